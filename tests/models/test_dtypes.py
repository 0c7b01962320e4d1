"""The names of dtypes in configs."""

import pytest
import torch

from mmgpt.models.dtypes import float_dtype
from mmgpt.registry import MODELS


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_name_is_that_of_torch(name):
    assert float_dtype(name, "vision.dtype") is getattr(torch, name)


@pytest.mark.parametrize("component", ["vision", "language", "gated"])
@pytest.mark.parametrize("name", ["bf16", "int8", "float8_e4m3fn", 16])
def test_other_names_are_refused(tiny_flamingo_config, component, name):
    choices = f"{'auto, ' if component == 'language' else ''}float32, bfloat16, float16"
    config = {**tiny_flamingo_config, component: dict(tiny_flamingo_config.get(component) or {}, dtype=name)}
    with pytest.raises(ValueError, match=f"^{component}.dtype={name!r}: choose one of {choices}$"):
        MODELS.build(config)
