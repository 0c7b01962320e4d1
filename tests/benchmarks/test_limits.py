"""What a device does at most, and what rows do of it."""

import pytest
import torch

from benchmarks import limits as module
from benchmarks.limits import Limits, limits, share


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(module, "WIDTH_ON_CPU", 128)
    monkeypatch.setattr(module, "BYTES_ON_CPU", 1000)


def test_limits_are_of_the_best_round(small, monkeypatch):
    seconds = iter([4.0, 2.0, *[3.0] * 8, 0.5, *[1.0] * 9])
    monkeypatch.setattr(module.Timer, "__call__", lambda self, work: next(seconds))
    assert limits(torch.device("cpu"), torch.float32) == Limits(2 * 128**3 / 2, 2 * 1000 / 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_limits_are_positive(small, dtype):
    assert all(limit > 0 for limit in limits(torch.device("cpu"), dtype))


def test_share_of_products_or_of_memory():
    most = Limits(operations=100.0, bytes=10.0)
    assert share(dict(seconds=2.0, operations=50.0), most) == {"share": 0.25}
    assert share(dict(seconds=2.0, weight_bytes=5), most) == {"share": 0.25}
    assert share(dict(seconds=2.0), most) == {}
