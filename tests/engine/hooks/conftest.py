"""Fixtures of the hooks' tests."""

import copy

import pytest

from mmgpt.registry import MODELS


@pytest.fixture(scope="module")
def tuned(tiny_flamingo_config):
    """A tiny Flamingo with LoRA."""
    module = copy.deepcopy(tiny_flamingo_config)
    return MODELS.build(dict(type="LoRAModel", module=module, lora=dict(r=2, target_modules=["q_proj"])))
