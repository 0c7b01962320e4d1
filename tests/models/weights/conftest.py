"""Fixtures of the tests of weight files."""

import pytest
import torch

from mmgpt.registry import MODELS


@pytest.fixture
def model(tiny_flamingo_config):
    torch.manual_seed(3)
    return MODELS.build(tiny_flamingo_config).eval()
