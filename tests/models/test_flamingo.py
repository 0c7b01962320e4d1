"""The whole model: losses by source, generation, freezing."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from mmgpt.compat.names import with_present_names
from mmgpt.models.memory.sizes import build_without_weights
from mmgpt.registry import MODELS
from tests.helpers.hub_cache import put_into_cache, use_hub
from tests.helpers.tolerances import assert_close


@pytest.fixture(scope="module")
def model(tiny_flamingo_config):
    torch.manual_seed(0)
    return MODELS.build(tiny_flamingo_config).eval()


def batch(model):
    """Rows with 1, 2 and 0 images, right-padded, the last from the language source."""
    torch.manual_seed(1)
    image = model.tokenizer.convert_tokens_to_ids("<image>")
    ids = torch.randint(5, 300, (3, 9))
    ids[0, 1] = ids[1, 1] = ids[1, 4] = image
    attention = torch.ones_like(ids)
    attention[2, 7:] = 0
    labels = ids.clone()
    labels[:, :5] = -100
    labels[2, 7:] = -100
    return dict(
        input_ids=ids,
        attention_mask=attention,
        pixels=torch.randn(3, 2, 3, 32, 32),
        image_counts=torch.tensor([1, 2, 0]),
        labels=labels,
        sources=["visual", "visual", "language"],
    )


def test_loss_is_the_mean_of_each_source(model):
    data = batch(model)
    logits = model(**data, mode="tensor")[:, :-1]
    losses = model(**data, mode="loss")
    assert list(losses) == ["loss_visual", "loss_language"]
    targets = data["labels"][:, 1:]
    for name, rows in {"loss_visual": slice(0, 2), "loss_language": slice(2, 3)}.items():
        expected = cross_entropy(logits[rows].flatten(0, 1), targets[rows].flatten(), ignore_index=-100)
        assert_close(losses[name], expected)


def test_a_mixed_batch_equals_one_pass_per_source(model):
    data = batch(model)
    mixed = model(**data, mode="loss")
    visual = {k: v[:2] for k, v in data.items()}
    language = {k: v[2:] for k, v in data.items()} | {"pixels": None, "image_counts": None}
    assert_close(mixed["loss_visual"], model(**visual, mode="loss")["loss_visual"])
    assert_close(mixed["loss_language"], model(**language, mode="loss")["loss_language"])


def test_losses_are_divided_by_totals_where_they_are_given(model):
    """The losses are those of the sources with a total, also of sources that this batch does not have."""
    data = batch(model)
    own = model(**data, mode="loss")
    totals = {"visual": torch.tensor(16.0), "other": torch.tensor(3.0)}
    losses = model(**data, totals=totals, mode="loss")
    assert list(losses) == ["loss_visual", "loss_other"]
    assert losses["loss_other"] == 0
    assert_close(losses["loss_visual"], own["loss_visual"] * 8 / 16)
    # What a process has that has run out of samples, and where nothing is learned at all.
    nothing = dict(input_ids=data["input_ids"][:1, :1], labels=torch.full((1, 1), -100), sources=[])
    assert model(**nothing, totals=totals, mode="loss") == {"loss_visual": 0, "loss_other": 0}
    assert model(**nothing, totals={}, mode="loss") == {"loss_none": 0}


def test_blank_images_give_equal_losses_and_gradients_of_zero(model):
    """Their size does not matter, since they are not encoded; resampler and gated blocks are in the graph."""
    data = batch(model)
    data = dict(input_ids=data["input_ids"][2:], attention_mask=data["attention_mask"][2:], labels=data["labels"][2:])
    blank = dict(pixels=torch.zeros(1, 1, 3, 1, 1), image_counts=torch.tensor([0]))
    samples = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1]])
    for more in ({}, {"sample_ids": samples, "attention_mask": None, "sources": ["a", "b"]}):
        with_blank, without = (model(**{**data, **more, **images}, mode="loss") for images in (blank, {}))
        torch.testing.assert_close(with_blank, without, rtol=0, atol=0)
        model.zero_grad()
        sum(with_blank.values()).backward()
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        assert trained
        assert all(weight.grad is not None and not weight.grad.any() for weight in trained)


def test_blank_images_need_no_position_embeddings(tiny_flamingo_config):
    perceiver = {**tiny_flamingo_config["perceiver"], "max_media": 2}
    model = MODELS.build({**tiny_flamingo_config, "perceiver": perceiver})
    assert not model.encode_images(torch.zeros(1, 1, 3, 1, 1), torch.tensor([0])).any()


def test_a_batch_of_texts_gives_no_gradient_where_only_the_image_path_is_trained(model):
    data = batch(model)
    model.zero_grad()
    losses = model(data["input_ids"][2:], labels=data["labels"][2:], mode="loss")
    sum(losses.values()).backward()
    assert all(weight.grad is None for weight in model.parameters())


def test_families_of_openflamingo_v2_are_trained_and_generate(tiny_flamingo_config, tiny_v2):
    model = MODELS.build(dict(tiny_flamingo_config, language=dict(path=tiny_v2))).eval()
    data = batch(model)
    logits = model(**data, mode="tensor")
    assert logits.shape == (3, 9, len(model.tokenizer))
    losses = model(**data, mode="loss")
    expected = cross_entropy(logits[:2, :-1].flatten(0, 1), data["labels"][:2, 1:].flatten(), ignore_index=-100)
    assert_close(losses["loss_visual"], expected)
    sum(losses.values()).backward()
    assert all(p.grad.abs().sum() > 0 for name, p in model.named_parameters() if "to_kv" in name)
    ids = model.generate(data["input_ids"], None, data["pixels"], data["image_counts"], max_new_tokens=3, num_beams=3)
    assert ids.shape[0] == 3
    assert ids.shape[1] <= 3


def test_rows_without_an_image_are_not_encoded(model):
    pixels = torch.randn(3, 2, 3, 32, 32)
    out = model.encode_images(pixels, torch.tensor([2, 0, 1]))
    assert_close(out[0], model.encode_images(pixels)[0])
    assert_close(out[2, 0], model.encode_images(pixels)[2, 0])
    assert not out[1].any()


def test_images_of_a_row_are_encoded_one_by_one(model):
    pixels = torch.randn(1, 2, 3, 32, 32)
    out = model.encode_images(pixels)
    assert out.shape == (1, 2, 4, 32)
    assert_close(out[:, 1:], model.encode_images(pixels[:, 1:]))
    assert model.encode_images(pixels[:, :, None].expand(1, 2, 3, 3, 32, 32)).shape == (1, 2, 4, 32)


def test_predict_answers_each_row(model):
    data = batch(model)
    data.update(labels=None, attention_mask=torch.ones(3, 9, dtype=torch.long))
    metas = [{"id": str(i)} for i in range(3)]
    rows = model(**data, metas=metas, mode="predict")
    assert [row["id"] for row in rows] == ["0", "1", "2"]
    ids = model.generate(
        data["input_ids"], data["attention_mask"], data["pixels"], data["image_counts"], max_new_tokens=4
    )
    assert ids.shape == (3, 4)
    assert rows[1]["prediction"] == model.tokenizer.decode(ids[1], skip_special_tokens=True).strip()


def test_predict_chooses_the_likeliest_of_the_candidates(model):
    data = batch(model) | dict(labels=None, attention_mask=None)
    words = [torch.tensor([20, 30]), torch.tensor([40]), torch.tensor([50, 60, 70])]
    some = [dict(ids=ids, labels=ids, weight=1.0) for ids in words]
    metas = [{"id": str(i), "choices": ["a", "b", "c"]} for i in range(3)]
    rows = model(**data, candidates=[some] * 3, metas=metas, mode="predict")
    for i, row in enumerate(rows):
        assert row["prediction"] == "abc"[row["scores"].index(max(row["scores"]))]
        assert row["id"] == str(i)
    for word, score in zip(words, rows[1]["scores"], strict=True):
        ids = torch.cat((data["input_ids"][1], word))[None]
        likely = model(ids, pixels=data["pixels"][1:2]).log_softmax(-1)[0]
        expected = sum(likely[8 + i, token] for i, token in enumerate(word))
        torch.testing.assert_close(score, expected.item(), rtol=1e-4, atol=1e-4)


def test_image_and_padding_tokens_are_never_generated(model):
    data = batch(model)
    tokenizer = model.tokenizer
    image = tokenizer.convert_tokens_to_ids("<image>")
    with torch.no_grad():
        head = model.language.get_output_embeddings().weight
        saved = head[image].clone()
        head[image] = 100 * model.language(data["input_ids"], output_hidden_states=True).hidden_states[-1][0, -1]
        arguments = {key: data[key] for key in ("input_ids", "pixels", "image_counts")}
        ids = model.generate(**arguments, max_new_tokens=3)
        allowed = model.generate(**arguments, max_new_tokens=3, suppress_tokens=None)
        head[image] = saved
    assert image not in ids
    assert tokenizer.pad_token_id not in ids
    assert image in allowed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(image_counts=torch.tensor([1, 1, 0])), "row 1 has 2 `<image>` tokens and 1 images"),
        (dict(image_counts=torch.tensor([1, 2, 1])), "row 2 has 0 `<image>` tokens and 1 images"),
        (dict(image_counts=torch.tensor([3, 2, 0])), "row 0 has 1 `<image>` tokens and 2 images"),
        (dict(image_counts=None), "row 0 has 1 `<image>` tokens and 2 images"),
        (dict(pixels=None), "row 0 has 1 `<image>` tokens and 0 images"),
        (dict(pixels=None, image_counts=None), "row 0 has 1 `<image>` tokens and 0 images"),
    ],
)
def test_each_image_needs_one_token(model, change, message):
    data = batch(model) | change
    for mode in ("tensor", "loss"):
        with pytest.raises(ValueError, match=message):
            model(**data, mode=mode)
    with pytest.raises(ValueError, match=message):
        model.generate(data["input_ids"], pixels=data["pixels"], image_counts=data["image_counts"])


def test_without_counts_each_row_has_all_its_images(model):
    data = {key: value[1:2] for key, value in batch(model).items()}
    assert torch.equal(model(**data), model(**data | {"image_counts": None}))


def test_frozen_components_have_no_gradient_and_vision_stays_in_eval_mode(tiny_flamingo_config):
    model = MODELS.build(tiny_flamingo_config).train()
    assert not model.vision.training
    assert model.perceiver.training
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"perceiver", "language"}
    assert all(".gated." in n for n, p in model.named_parameters() if p.requires_grad and n.startswith("language"))
    data = batch(model)
    sum(model(**data, mode="loss").values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with pytest.raises(ValueError, match="frozen=\\['eyes'\\]: choose among vision, perceiver, language"):
        MODELS.build({**tiny_flamingo_config, "frozen": ["eyes"]})


def test_bfloat16_language_model(tiny_flamingo_config):
    torch.manual_seed(0)
    config = dict(tiny_flamingo_config)
    config["language"] = dict(config["language"], dtype="bfloat16")
    model = MODELS.build(config)
    losses = model(**batch(model), mode="loss")
    assert all(torch.isfinite(value) for value in losses.values())
    assert model.language.get_input_embeddings().weight.dtype == torch.bfloat16


def test_the_earlier_name_of_image_attention_is_accepted():
    model = dict(type="LoRAModel", module=dict(type="Flamingo", image_attention="latest", reading="next"))
    assert with_present_names(dict(model=model), "a.py")["model"]["module"] == dict(
        type="Flamingo", image_attention="next"
    )


def test_unknown_mode_names_the_choices(model):
    with pytest.raises(ValueError, match="mode='train': choose one of tensor, loss, predict"):
        model(torch.ones(1, 2, dtype=torch.long), mode="train")


def test_bfloat16_image_encoder_stays_close_to_float32(model, tiny_flamingo_config):
    vision = dict(tiny_flamingo_config["vision"], dtype="bfloat16")
    torch.manual_seed(0)
    low = MODELS.build(dict(tiny_flamingo_config, vision=vision)).eval()
    assert {each.dtype for each in low.vision.parameters()} == {torch.bfloat16}
    assert {each.dtype for each in low.perceiver.parameters()} == {torch.float32}
    low.perceiver.load_state_dict(model.perceiver.state_dict())
    pixels = batch(model)["pixels"]
    expected, found = model.encode_images(pixels), low.encode_images(pixels)
    assert 0 < (found - expected).norm() < 0.03 * expected.norm()


def test_a_model_by_hub_ids_equals_that_of_the_folders(model, tiny_flamingo_config, tmp_path, monkeypatch):
    for kind, name in (("language", "owner/llama"), ("vision", "owner/clip")):
        put_into_cache(tmp_path, name, tiny_flamingo_config[kind]["path"])
    use_hub(monkeypatch, tmp_path)
    config = {
        **tiny_flamingo_config,
        "language": dict(path="owner/llama"),
        "vision": {**tiny_flamingo_config["vision"], "path": "owner/clip"},
    }
    by_name = MODELS.build(config).state_dict()
    for name, value in model.state_dict().items():
        # The resampler and the gated blocks are drawn at random.
        if name.startswith(("vision.", "language.model.")) and ".gated." not in name:
            assert torch.equal(by_name[name], value), name
    planned = build_without_weights(dict(model=config)).state_dict()
    assert {name: value.shape for name, value in planned.items()} == {k: v.shape for k, v in by_name.items()}
