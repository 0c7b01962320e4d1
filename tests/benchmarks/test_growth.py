"""Laws of growth, and the steps that they are fitted to."""

import pytest
import torch

from benchmarks import growth
from benchmarks.growth import BARE, OURS, Law, fit, laws, name
from mmgpt.models.memory.planner import Sizes

AXES = {"rows": (1, 2), "length": (16, 32), "images": (0, 2)}


@pytest.mark.parametrize("law", [Law(0.5, 0.25, 0.0), Law(0.0, 0.1, 0.003), Law(1.0, 0.0, 0.5)])
def test_fit_recovers_a_known_law(law):
    sizes = (1, 2, 4, 8, 16)
    fitted = fit(sizes, [law(n) for n in sizes])
    assert fitted == pytest.approx(law, abs=1e-9)


def test_exponents_of_laws():
    assert Law(0, 2, 0).exponent(8) == pytest.approx(1)
    assert Law(0, 0, 2).exponent(8) == pytest.approx(2)
    assert Law(16, 2, 0).exponent(8) == pytest.approx(0.5)


def test_growth_beyond_that_of_the_bare_components_is_reported():
    sizes = (1, 2, 4, 8)

    def times(ours):
        fitted_laws = {OURS: ours, BARE: Law(1, 1, 0)}
        return {name("rows", n, kind): [9 * law(n), law(n), 0] for n in sizes for kind, law in fitted_laws.items()}

    even = laws(times(Law(2, 3, 0)), {"rows": sizes})["rows"]
    assert even["grows_no_faster"]
    assert even["sizes"] == [1, 2, 4, 8]
    assert even["seconds"] == {OURS: [5, 8, 14, 26], BARE: [2, 3, 5, 9]}
    assert even["laws"][OURS] == pytest.approx(dict(constant=2, linear=3, quadratic=0), abs=1e-9)
    worse = laws(times(Law(1, 1, 0.5)), {"rows": sizes})["rows"]
    assert not worse["grows_no_faster"]
    assert worse["exponents"][OURS] == pytest.approx((8 + 64) / 41)


def test_rows_have_the_sizes_of_the_axes(small_model, small_cfg):
    rows = growth.rows(small_model, small_cfg, AXES, Sizes(1, 24, 1))
    shapes = {key: tuple(row.inputs[0]["input_ids"].shape) for key, row in rows.items()}
    assert shapes[name("rows", 2, OURS)] == shapes[name("rows", 2, BARE)] == (2, 24)
    assert shapes[name("length", 32, OURS)] == (1, 32)
    assert shapes[name("images", 2, BARE)] == (1, 24)
    assert rows[name("images", 2, OURS)].inputs[0]["pixels"].shape == (1, 2, 3, 32, 32)
    assert "pixels" not in rows[name("images", 0, OURS)].inputs[0]
    assert all(row() > 0 for row in rows.values())


def test_the_bare_components_encode_all_images(small_model, small_cfg, monkeypatch):
    batch_sizes = []
    monkeypatch.setattr(
        growth, "image_encoder", lambda model, images: batch_sizes.append(len(images)) or torch.zeros(1)
    )
    monkeypatch.setattr(growth, "resampler", lambda model, features: features)
    rows = growth.rows(small_model, small_cfg, AXES, Sizes(1, 24, 1))
    rows[name("images", 2, BARE)](), rows[name("rows", 2, BARE)](), rows[name("images", 0, BARE)]()
    assert batch_sizes == [2, 2]
