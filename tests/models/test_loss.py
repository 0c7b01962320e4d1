"""The loss made in chunks against cross entropy over all logits."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmgpt.datasets import collate_conversations
from mmgpt.models.loss import chunked_cross_entropy, sums_by_source
from mmgpt.models.packing import packed_inputs
from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close
from tests.models.test_gated_lm import FAMILIES, IMAGE, VOCABULARY, gated
from tests.models.test_gated_lm import batch as gated_batch
from tests.models.test_lora import LORA
from tests.models.test_packing import make_samples

SOURCES = ["visual", "language", "visual"]


def labelled():
    """A batch of three rows with 5, 4 and 3 label tokens, at different positions."""
    ids, attention, features, counts = gated_batch()
    labels = torch.full_like(ids, -100)
    labels[0, 5:], labels[1, 3:7], labels[2, [1, 2, 9]] = ids[0, 5:], ids[1, 3:7], ids[2, [1, 2, 9]]
    return ids, attention, features, counts, labels


def token_losses_by_source(model, inputs, labels, sample_ids=None, sources=None, chunk=1024, names=None):
    """Sum and number of the losses of each source, as Flamingo computes them, for a language model alone."""
    states, logits = model.hidden_states(**inputs)
    targets = labels[:, 1:]
    supervised = (targets != -100).nonzero(as_tuple=True)
    losses = chunked_cross_entropy(states[supervised], targets[supervised], logits, chunk)
    owners = supervised[0] if sample_ids is None else sample_ids[:, 1:][supervised]
    return sums_by_source(losses, owners, sources or ["text"] * len(labels), names)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(some, others):
    assert some.keys() == others.keys()
    assert len(some) > 5
    assert_close(some, others)


@pytest.mark.parametrize("chunk", [5, 100])
@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_give_the_losses_and_gradients_of_all_logits(family, chunk):
    model = gated(family)
    ids, attention, features, counts, labels = labelled()
    media = model.media(ids, features, counts)
    logits = model(ids, attention, media=media, use_cache=False).logits[:, :-1]
    each = cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    inputs = dict(input_ids=ids, attention_mask=attention, media=media)
    made = token_losses_by_source(model, inputs, labels, sources=SOURCES, chunk=chunk)
    assert list(made) == ["visual", "language"]
    assert [int(count) for _, count in made.values()] == [8, 4]
    for name, rows in {"visual": [0, 2], "language": [1]}.items():
        assert_close(made[name][0], each[rows].sum())
    weighted = made["visual"][0] + 2 * made["language"][0]
    expected = gradients(model, each[[0, 2]].sum() + 2 * each[1].sum())
    assert_equal_gradients(gradients(model, weighted), expected)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mpt"])
def test_samples_of_a_packed_row_belong_to_their_sources(family):
    model, made = gated(family), make_samples(IMAGE, VOCABULARY, (4, 16))
    batch = collate_conversations(made, row_length=20)
    ids, samples, labels = batch["input_ids"], batch["sample_ids"], batch["labels"]
    media = model.media(ids, batch["pixels"], batch["image_counts"], samples)
    inputs = dict(input_ids=ids, media=media, **packed_inputs(model.model, samples))
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    each = cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    sums = token_losses_by_source(model, inputs, labels, samples, batch["sources"], chunk=7)
    for source, (total, count) in sums.items():
        own = torch.tensor([i for i, name in enumerate(batch["sources"]) if name == source])
        here = torch.isin(samples[:, 1:], own) & (labels[:, 1:] != -100)
        assert int(count) == int(here.sum())
        assert_close(total, each[here].sum())


def test_without_sources_all_is_text_and_without_labels_the_sum_is_zero():
    model = gated()
    ids, attention, features, counts, labels = labelled()
    inputs = dict(input_ids=ids, attention_mask=attention, media=model.media(ids, features, counts))
    made = token_losses_by_source(model, inputs, labels)
    assert list(made) == ["text"]
    assert int(made["text"][1]) == 12
    made = token_losses_by_source(model, inputs, labels, sources=["a", "b", "b"], names=["b", "c"])
    assert {name: int(count) for name, (_, count) in made.items()} == {"b": 7, "c": 0}
    assert made["c"][0].item() == 0
    total, count = token_losses_by_source(model, inputs, torch.full_like(labels, -100))["text"]
    assert total.item() == 0
    assert count.item() == 0
    # Processes that train together need a gradient from each.
    assert all(not value.any() for value in gradients(model, total).values())


def test_trained_tokens_and_lora_get_the_gradients_of_all_logits(tiny_flamingo_config):
    torch.manual_seed(0)
    config = dict(type="LoRAModel", lora=dict(LORA), train_tokens=["<image>"])
    model = MODELS.build({**config, "module": dict(tiny_flamingo_config, loss_chunk=7)}).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    data = collate_conversations(make_samples(model.tokenizer.convert_tokens_to_ids("<image>"), 300, (3, 32, 32)))
    logits, labels = model(**data)[:, :-1], data["labels"][:, 1:]
    each = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    kinds = {name: [i for i, source in enumerate(data["sources"]) if source == name] for name in data["sources"]}
    plain = sum(each[rows].sum() / (labels[rows] != -100).sum() for rows in kinds.values())
    expected = gradients(model, plain)
    assert any("embed_tokens" in name for name in expected)
    loss = sum(model(**data, mode="loss").values())
    assert_close(loss, plain)
    assert_equal_gradients(gradients(model, loss), expected)


class Largest(TorchDispatchMode):
    """The largest number of elements of a floating point result that is `wide` at some dimension."""

    def __init__(self, wide, parameters):
        super().__init__()
        self.wide, self.found = wide, 0
        self.known = {parameter.untyped_storage().data_ptr() for parameter in parameters}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and self.wide in tensor.shape:
                if tensor.untyped_storage().data_ptr() not in self.known:
                    self.found = max(self.found, tensor.numel())
        return out


@pytest.mark.parametrize("chunk", [5, 100])
def test_logits_exist_for_one_chunk_at_a_time(chunk):
    model = gated()
    model.get_output_embeddings().requires_grad_(False)
    model.get_input_embeddings().requires_grad_(False)
    ids, attention, features, counts, labels = labelled()
    inputs = dict(input_ids=ids, attention_mask=attention, media=model.media(ids, features, counts))
    with Largest(VOCABULARY, model.parameters()) as largest:
        (total, _) = token_losses_by_source(model, inputs, labels, chunk=chunk)["text"]
        total.backward()
    assert largest.found == min(chunk, 12) * VOCABULARY
