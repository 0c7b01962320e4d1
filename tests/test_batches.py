"""Plain batches, batches of like length and packed rows: the same samples give the same losses and gradients."""

import json

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.registry import DefaultScope
from PIL import Image
from torch.nn.functional import cross_entropy

from mmgpt.datasets import JointBatchSampler, collate_conversations
from mmgpt.registry import DATASETS, MODELS
from tests.helpers.tolerances import assert_close

WAYS = {"sorted": dict(sorted_batches=3), "packed": dict(row_length=150)}
COUNTS = [1, 3, 2, 0, 1, 2, 1, 3, 0, 1]
IMAGED = [f"v{i}" for i, count in enumerate(COUNTS) if count]
FOLLOWED = ("perceiver.latents", "language.model.model.layers.1.gated.attn.to_q.weight")


@pytest.fixture(scope="module")
def model(tiny_flamingo_config):
    torch.manual_seed(0)
    return MODELS.build(tiny_flamingo_config)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, tiny_llama):
    """Conversations of uneven length about 0 to 3 images, and text only."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(draw.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
    turn = {"question": "what is the colour", "answer": "red"}
    records = [
        {"id": f"v{i}", "images": [f"{k}.png" for k in range(n)], "turns": [turn] * (1 + i % 3)}
        for i, n in enumerate(COUNTS)
    ]
    texts = [
        {"id": f"t{i}", "turns": [{"question": "what is " * (1 + i), "answer": "blue " * i + "no"}]} for i in range(4)
    ]
    for name, rows in (("visual", records), ("language", texts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    images = [dict(type="LoadImages"), dict(type="PrepareImages", size=32, mean=[0.5] * 3, std=[0.5] * 3)]
    steps = [
        dict(type="FormatPrompt", template="short"),
        dict(type="TokenizeSegments", tokenizer=tiny_llama, max_length=140),
    ]
    config = dict(type="InstructionDataset", parser="conversation", data_prefix=dict(img=str(folder)))
    parts = {
        name: [
            dict(
                config,
                source=name,
                ann_file=str(folder / f"{name}.jsonl"),
                pipeline=first + steps + [dict(type="PackInputs")],
            )
        ]
        for name, first in (("visual", images), ("language", []))
    }
    with DefaultScope.overwrite_default_scope("mmgpt"):
        return DATASETS.build(dict(type="JointDataset", **parts))


def token_losses(model, batch) -> dict[str, torch.Tensor]:
    """The mean loss of each sample, by its id."""
    logits = model(**{key: value for key, value in batch.items() if key != "labels"})[:, :-1]
    labels, owner = batch["labels"][:, 1:], batch["sample_ids"]
    owner = torch.arange(len(labels))[:, None].expand_as(labels) if owner is None else owner[:, 1:]
    each = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    learned = labels != -100
    return {meta["id"]: each[(owner == i) & learned].mean() for i, meta in enumerate(batch["metas"])}


def epoch(model, dataset, sorted_batches=1, row_length=None):
    """Losses of all samples of an epoch, and of each of them the gradient of two parameters."""
    sampler = DefaultSampler(dataset, shuffle=True, seed=0)
    followed = [p for name, p in model.named_parameters() if name in FOLLOWED]
    losses, gradients, rows = {}, {}, 0
    for numbers in JointBatchSampler(sampler, 4, 2, sorted_batches):
        batch = collate_conversations([dataset[i] for i in numbers], row_length=row_length)
        rows += len(batch["input_ids"])
        for name, loss in token_losses(model, batch).items():
            gradient = torch.autograd.grad(loss, followed, retain_graph=True, allow_unused=True)
            losses[name] = loss.detach()
            gradients[name] = [torch.zeros_like(p) if g is None else g for g, p in zip(gradient, followed, strict=True)]
    return losses, gradients, rows


@pytest.mark.parametrize("way", WAYS)
def test_each_sample_has_the_loss_and_gradient_of_plain_batches(model, dataset, way):
    losses, gradients, rows = epoch(model, dataset)
    others, other_gradients, other_rows = epoch(model, dataset, **WAYS[way])
    assert set(losses) == set(others)
    assert len(losses) == 14
    assert other_rows < rows if way == "packed" else other_rows == rows
    for name, loss in losses.items():
        assert_close(others[name], loss, what=name)
        assert any(g.abs().max() > 0 for g in gradients[name]) == (name in IMAGED), name
        assert_close(other_gradients[name], gradients[name], what=name)
