"""Rows of several samples against the samples one by one."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from mmgpt.datasets import collate_conversations
from mmgpt.models.packing import packed_inputs, positions
from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close
from tests.models.test_gated_lm import FAMILIES, IMAGE, VOCABULARY, gated

# Images of each sample: none, one, several, an image behind text; and samples of one token.
PLACES = [(), (0,), (2, 5), (), (4,), (1, 2, 3), (), (3,)]
LENGTHS = [6, 5, 9, 1, 8, 7, 4, 1 + 3]


def test_positions_start_again_in_each_sample():
    samples = torch.tensor([[4, 4, 4, 1, 1, 3], [0, 0, 2, -1, -1, -1]])
    assert positions(samples).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 1, 2]]


def make_samples(image, vocabulary, pixels):
    torch.manual_seed(3)
    made = []
    for i, (length, places) in enumerate(zip(LENGTHS, PLACES, strict=True)):
        ids = torch.randint(6, vocabulary, (length,))
        ids[list(places)] = image
        labels = ids.clone()
        labels[: length // 2] = -100
        source = "visual" if places else "language"
        images = torch.randn(len(places), *pixels) if places else None
        made.append({"input_ids": ids, "labels": labels, "pixels": images, "source": source, "meta": {"id": str(i)}})
    return made


@pytest.mark.parametrize("image_attention", ["latest", "next"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("bloom", "gemma3_text")])
def test_packed_tokens_attend_to_their_own_sample_only(family, image_attention):
    model = gated(family, image_attention)
    made = make_samples(IMAGE, VOCABULARY, (4, 16))  # latents in the place of pixels
    batch = collate_conversations(made, row_length=20)
    ids, samples, counts = batch["input_ids"], batch["sample_ids"], batch["image_counts"]
    media = model.media(ids, batch["pixels"], counts, samples)
    logits = model(ids, media=media, use_cache=False, **packed_inputs(model.model, samples)).logits
    for i, sample in enumerate(made):
        alone = sample["input_ids"][None]
        images = None if sample["pixels"] is None else sample["pixels"][None]
        media = model.media(alone, images, torch.tensor([len(PLACES[i])]))
        assert_close(logits[samples == i], model(alone, media=media).logits[0])


def test_models_that_cannot_keep_samples_apart_are_refused():
    samples = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="rows of several samples are not possible with 'bloom'"):
        packed_inputs(gated("bloom").model, samples)
    with pytest.raises(ValueError, match="separate turns are not possible with 'mpt', whose positions are not given"):
        packed_inputs(gated("mpt").model, samples, samples)
    model = gated().model
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=r"'llama' \(attention 'flash_attention_2'\)"):
        packed_inputs(model, samples)
    model = gated().model
    model.config.layer_types = ["conv", "full_attention"]
    with pytest.raises(ValueError, match="rows of several samples are not possible with 'llama'"):
        packed_inputs(model, samples)
    model = gated("gemma2").model
    model.config.sliding_window = 2
    with pytest.raises(ValueError, match="rows of 3 tokens, more than the window of 'gemma2', 2"):
        packed_inputs(model, samples)


@pytest.fixture(scope="module", params=[None, 3])
def model(request, tiny_flamingo_config):
    torch.manual_seed(0)
    return MODELS.build(
        dict(tiny_flamingo_config, perceiver=dict(tiny_flamingo_config["perceiver"], max_media=request.param))
    )


def trained(model, data) -> tuple[dict, dict]:
    """Losses, and the gradients of their sum."""
    model.zero_grad()
    losses = model(**data, mode="loss")
    sum(losses.values()).backward()
    return losses, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_packed_batches_give_the_losses_and_gradients_of_plain_ones(model):
    made = make_samples(model.tokenizer.convert_tokens_to_ids("<image>"), 300, (3, 32, 32))
    plain, packed = collate_conversations(made), collate_conversations(made, row_length=20)
    assert packed["input_ids"].shape == (3, 16)
    assert len(plain["input_ids"]) == len(made)
    losses, gradients = trained(model, plain)
    packed_losses, packed_gradients = trained(model, packed)
    assert_close(packed_losses, losses)
    assert set(packed_gradients) == set(gradients)
    assert len(gradients) > 10
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0, name
    assert_close(packed_gradients, gradients)


@torch.no_grad()
def test_each_sample_of_a_packed_row_has_the_loss_that_it_has_alone(model):
    made = make_samples(model.tokenizer.convert_tokens_to_ids("<image>"), 300, (3, 32, 32))
    packed = collate_conversations(made, row_length=20)
    samples, labels = packed["sample_ids"], packed["labels"]
    logits = model(**packed)
    for i, sample in enumerate(made):
        if len(sample["labels"]) == 1:
            continue
        here = (samples[:, 1:] == i) & (labels[:, 1:] != -100)
        loss = cross_entropy(logits[:, :-1][here], labels[:, 1:][here])
        (alone,) = model(**collate_conversations([sample]), mode="loss").values()
        assert_close(loss, alone)


def test_packed_rows_cannot_be_answered(model):
    packed = collate_conversations(make_samples(7, 300, (3, 32, 32)), row_length=20)
    with pytest.raises(ValueError, match="leave row_length out"):
        model(**packed, mode="predict")


def test_separate_turns_begin_behind_what_they_share():
    samples = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1, -1]])
    turns = torch.tensor([[0, 0, 1, 1, 2, 2, 0, 1, 2, 0]])
    assert positions(samples, turns).tolist() == [[0, 1, 2, 3, 2, 3, 0, 1, 1, 0]]


@pytest.mark.parametrize("row_length", [None, 20])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("bloom", "gemma3_text", "mpt")])
def test_a_separate_turn_is_computed_as_if_it_were_alone(family, row_length):
    model, made, alone = gated(family), make_samples(IMAGE, VOCABULARY, (4, 16)), {}
    for i, shared in ((1, 2), (2, 6)):  # their first tokens, with all their images, are shared by two turns
        ids = made[i]["input_ids"]
        middle = (shared + len(ids)) // 2
        made[i]["turn_ids"] = torch.tensor([0] * shared + [1] * (middle - shared) + [2] * (len(ids) - middle))
        alone |= {(i, 1): ids[:middle], (i, 2): torch.cat([ids[:shared], ids[middle:]])}
    batch = collate_conversations(made, row_length=row_length)
    ids, samples, turns = batch["input_ids"], batch["sample_ids"], batch["turn_ids"]
    media = model.media(ids, batch["pixels"], batch["image_counts"], samples)
    logits = model(ids, media=media, use_cache=False, **packed_inputs(model.model, samples, turns)).logits
    for (i, turn), own in alone.items():
        media = model.media(own[None], made[i]["pixels"][None], torch.tensor([len(PLACES[i])]))
        of_turn = (samples == i) & ((turns == 0) | (turns == turn))
        assert_close(logits[of_turn], model(own[None], media=media).logits[0])
