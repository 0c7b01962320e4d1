"""What the tolerances of the tests let pass, and what not."""

import pytest
import torch

from tests.helpers.tolerances import assert_close


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_in_another_order_are_close_and_sums_without_a_term_are_not(dtype):
    torch.manual_seed(0)
    terms = torch.rand(3000, 8, dtype=dtype)
    forwards, backwards = torch.zeros(8, dtype=dtype), torch.zeros(8, dtype=dtype)
    for i in range(3000):
        forwards, backwards = forwards + terms[i] / 64, backwards + terms[-1 - i] / 64
    assert_close(forwards, backwards)
    with pytest.raises(AssertionError, match="latents"):
        assert_close(forwards, backwards - terms[0] / 64, what="latents")


def test_what_cancels_keeps_the_error_of_its_terms():
    large, small = torch.tensor([30.0]), torch.tensor([1e-3])
    assert_close({"weight": large, "gate": small + 1e-6}, {"weight": large, "gate": small})
    for name in ("weight", "gate"):
        other = {"weight": large, "gate": small}
        with pytest.raises(AssertionError):
            assert_close({**other, name: 1.1 * other[name]}, other)
    assert_close(torch.ones(0), torch.ones(0))
