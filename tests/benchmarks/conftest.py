"""The model of configs/mmgpt/benchmark.py at a tiny size."""

import pytest

from mmgpt.apis import build_model
from mmgpt.cli import load_config

SMALL = {
    "language.config.hidden_size": 32,
    "language.config.intermediate_size": 48,
    "language.config.num_hidden_layers": 4,
    "language.config.num_attention_heads": 2,
    "vision.model": "tests/benchmarks/small_image_encoder.json",
    "prepare_images.size": 32,
    "perceiver.depth": 1,
    "perceiver.num_latents": 4,
    "perceiver.dim_head": 8,
    "perceiver.heads": 2,
    "gated.every_n_layers": 2,
    "gated.dim_head": 16,
    "gated.heads": 2,
    "lora.r": 2,
}


@pytest.fixture(scope="package")
def small_cfg():
    """A config with two gated blocks in four layers, and a ViT of one layer for 32 x 32 pixels."""
    return load_config("configs/mmgpt/benchmark.py", SMALL)


@pytest.fixture(scope="package")
def small_model(small_cfg):
    """The model of the config in evaluation mode, on the CPU, with LoRA."""
    return build_model(small_cfg, device="cpu")
