"""Checks of weights that a library loads by itself; see also tests/models/vision/test_damaged_weights.py."""

import torch

from mmgpt.models.weights.checks import is_finite


def test_nan_and_infinity_are_not_finite():
    for value in (float("nan"), float("inf"), -float("inf")):
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            tensor = torch.zeros(7, 5, dtype=dtype)
            assert is_finite(tensor)
            assert is_finite(tensor[:0])
            assert is_finite(tensor[0, 0])
            tensor[3, 4] = value
            assert not is_finite(tensor)
            assert not is_finite(tensor.t())
            assert is_finite(tensor[:3])
    assert is_finite(torch.tensor([1]))
    assert is_finite(torch.ones(3).to(torch.float8_e4m3fn))
