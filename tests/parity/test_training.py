"""Losses, LoRA gradients and optimizer steps against the published training.

The reference's accumulated runs (B_accum2, C_accum3_tail) differ on purpose: the published code clips the gradients
after every micro step and divides a short last accumulation by the full count; here they are clipped once a step,
and a short accumulation is divided by its own count (tests/engine/test_optim.py).
"""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from safetensors.torch import load_file
from torch.nn.functional import pad

from mmgpt.cli import load_config
from tests.helpers.parity_data import PARITY
from tests.helpers.parity_models import (
    CONFIGS,
    GRADIENTS,
    LOSSES,
    STEPPED,
    assert_close,
    build_lora,
    expected_arrays,
    expected_json,
    our_lora_name,
)

SOURCES = {"vision": "visual", "lang": "language"}


@pytest.fixture
def model():
    return build_lora().train()


def batch_of(source: str, number: int = 0) -> dict:
    """A batch of the reference, as our collate function makes it."""
    prefix = f"{source}{number}/"
    arrays = {key.removeprefix(prefix): v for key, v in expected_arrays("train_batches").items() if prefix in key}
    image = arrays.pop("image", None)
    rows = len(arrays["input_ids"])
    pixels = image if image is None or image.ndim == 5 else image.unsqueeze(1)
    counts = torch.full((rows,), 0 if pixels is None else pixels.shape[1])
    return {**arrays, "pixels": pixels, "image_counts": counts, "sources": [SOURCES[source]] * rows}


def joined(visual: dict, language: dict) -> dict:
    """Both as one batch, as our joint training has it."""
    length = max(visual["input_ids"].shape[1], language["input_ids"].shape[1])
    filler = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    both = {}
    for key, value in filler.items():
        both[key] = torch.cat([pad(b[key], (0, length - b[key].shape[1]), value=value) for b in (visual, language)])
    absent = visual["pixels"].new_zeros(len(language["input_ids"]), *visual["pixels"].shape[1:])
    both["pixels"] = torch.cat((visual["pixels"], absent))
    both["image_counts"] = torch.cat((visual["image_counts"], language["image_counts"]))
    return {**both, "sources": visual["sources"] + language["sources"]}


@pytest.mark.parametrize("source", SOURCES)
def test_loss_and_gradients_of_a_source(model, source):
    expected = expected_json("train_loss_grads")[source]
    batch = batch_of(source)
    assert (batch["labels"][:, 1:] != -100).sum() == expected["n_label_tokens"]
    loss = model(**batch, mode="loss")[f"loss_{SOURCES[source]}"]
    assert_close(loss.detach(), torch.tensor(expected["loss"]), LOSSES, "loss")
    loss.backward()
    theirs = load_file(PARITY / "expected" / f"grads_{source}.safetensors")
    ours = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    names = {our_lora_name(name, model): name for name in expected["grad_l2"]}
    assert ours.keys() == names.keys(), "another set of trained tensors"
    for name, grad in ours.items():
        reference = theirs.get(names[name])
        if reference is None:
            assert grad is None or not grad.any(), name
        else:
            assert_close(grad, reference, GRADIENTS * reference.abs().max().item(), name)


def test_steps_of_the_optimizer(model):
    """The recipe's optimizer (decay, clipping) with a constant learning rate of 1e-3 and no accumulation."""
    expected = expected_json("train_steps")["A_5steps"]
    (rate,) = set(expected["lr_at_step"])
    options = {"lr": rate, "accumulative_counts": 1}
    schedule = load_config(CONFIGS / "_base_" / "schedules" / "lora_1e-5.py", options)
    with DefaultScope.overwrite_default_scope("mmgpt"):
        wrapper = build_optim_wrapper(model, schedule.optim_wrapper)
    batch = joined(batch_of("vision"), batch_of("lang"))
    for step, norm in enumerate(expected["total_grad_norm_before_clip"]):
        losses = model.train_step(batch, wrapper)
        for source, name in SOURCES.items():
            reference = torch.tensor(expected[f"{source}_loss"][step])
            assert_close(losses[f"loss_{name}"].detach(), reference, LOSSES, f"{source}, step {step}")
        ours = wrapper.message_hub.get_scalar("train/grad_norm").current()
        assert ours == pytest.approx(norm, rel=GRADIENTS), step
    trained = dict(model.named_parameters())
    for name, value in load_file(PARITY / "expected" / "lora_after_A_5steps.safetensors").items():
        assert_close(trained[our_lora_name(name, model)].detach(), value, STEPPED, name)
