"""The 9B model's names and shapes, without its weights."""

from pathlib import Path

import pytest
import torch

from mmgpt.cli import load_config
from mmgpt.models.memory.sizes import build_without_weights

CONFIGS = Path(__file__).parents[3] / "configs" / "mmgpt"
PUBLISHED = 8_220_452_880  # OpenFlamingo-9B v1 as mmpretrain counts it
HEAD = 1024 * 768 + 2 * 1024  # open_clip's projection to the text's space and the norm before it; not in mmpretrain's


@pytest.fixture(scope="module")
def model():
    return build_without_weights(load_config(CONFIGS / "published_v0.py"))


def test_it_has_the_published_number_of_parameters_and_no_values(model):
    frozen = [p for name, p in model.named_parameters() if ".lora_" not in name]
    assert sum(p.numel() for p in frozen) - HEAD == PUBLISHED
    assert all(p.device == torch.device("meta") for p in model.parameters())


def test_what_is_trained(model):
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    layers = "peft.base_model.model.language.model.model.layers."
    expected = {}
    for layer in range(32):
        gated = layer % 4 == 3
        decoder = f"{layers}{layer}." + "decoder." * gated
        linear = {f"{decoder}self_attn.{name}_proj": (4096, 4096) for name in "qkvo"}
        if gated:
            block = f"{layers}{layer}.gated."
            linear |= {f"{block}attn.to_q": (512, 4096), f"{block}attn.to_kv": (1024, 1024)}
            linear |= {f"{block}attn.to_out": (4096, 512)}
            linear |= {f"{block}ff.1": (16384, 4096), f"{block}ff.3": (4096, 16384)}
        for name, (outputs, inputs) in linear.items():
            expected[f"{name}.lora_A.default.weight"] = (16, inputs)
            expected[f"{name}.lora_B.default.weight"] = (outputs, 16)
    assert shapes == expected


def test_what_cannot_be_built():
    cfg = load_config(CONFIGS / "tiny_lora_joint.py")
    with pytest.raises(ValueError, match="has no `sizes`"):
        build_without_weights(cfg)
    cfg = load_config(CONFIGS / "lora_joint_hf_clip.py")
    with pytest.raises(ValueError, match="vision.type='HFVision'"):
        build_without_weights(cfg)
