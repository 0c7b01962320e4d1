import numpy as np
import pytest

from mmgpt.datasets.mixture import LANGUAGE, VISUAL, Mixture, mixture_table
from tests.datasets.test_samplers import Part


def mixture(*parts, stream=VISUAL, first=0, total=100, seed=0, shuffle=True):
    return Mixture([Part(*part) for part in parts], stream, first, total, seed, shuffle)


def drawn(mix, epochs):
    """(pass, index) of the samples of each epoch."""
    return [[tuple(map(int, divmod(i, mix.total))) for i in mix.epoch(number)] for number in range(epochs)]


def test_four_epochs_share_a_pass():
    mix = mixture((8, 0.25), (3,))
    epochs = drawn(mix, 8)
    assert len(mix) == 5
    assert all(len(epoch) == 5 for epoch in epochs)
    quarters = [[(n, i) for n, i in epoch if i < 8] for epoch in epochs]
    for number in range(2):
        first = sum(quarters[4 * number : 4 * number + 4], [])
        assert sorted(first) == [(number, i) for i in range(8)]
    # The other part has its own pass in each epoch.
    assert [sorted(set(epochs[n]) - set(quarters[n])) for n in range(8)] == [
        [(n, 8), (n, 9), (n, 10)] for n in range(8)
    ]


def test_an_epoch_of_one_and_a_half_passes():
    first, second = drawn(mixture((6, 1.5)), 2)
    assert len(first) == len(second) == 9
    assert sorted(first + second) == [(n, i) for n in range(3) for i in range(6)]
    assert {i for n, i in first if n == 0} == set(range(6)) == {i for n, i in second if n == 2}


def test_an_epoch_of_two_passes():
    first, second = drawn(mixture((5, 2)), 2)
    assert sorted(first) == [(n, i) for n in (0, 1) for i in range(5)]
    assert sorted(second) == [(n, i) for n in (2, 3) for i in range(5)]
    assert sorted(first) != first


def test_passes_and_datasets_have_different_orders():
    epochs = drawn(mixture((40, 0.5), (40, 0.5)), 4)
    halves = [frozenset(i - first for _, i in epochs[n] if 0 <= i - first < 40) for n in (0, 2) for first in (0, 40)]
    assert len(set(halves)) == 4
    assert frozenset(range(20)) not in halves
    # A pass does not depend on what else is in the mix, nor the visual half on the language one.
    alone = drawn(mixture((40, 0.5)), 1)[0]
    assert {i for _, i in alone} == halves[0]
    assert {i for _, i in drawn(mixture((40, 0.5), stream=LANGUAGE), 1)[0]} != halves[0]
    assert {i for _, i in drawn(mixture((40, 0.5), seed=1), 1)[0]} != halves[0]


def test_without_shuffling_passes_continue_in_order():
    mix = mixture((4, 0.5), (2,), shuffle=False, first=10)
    assert [mix.epoch(n).tolist() for n in range(3)] == [[10, 11, 14, 15], [12, 13, 114, 115], [110, 111, 214, 215]]


def test_whole_passes_are_only_shuffled_once():
    """So that runs without weights keep the order that they always had."""
    order = np.random.default_rng([5, LANGUAGE, 3]).permutation(7)
    assert mixture((4,), (3,), stream=LANGUAGE, first=20, seed=5).epoch(3).tolist() == (300 + 20 + order).tolist()


def test_number_of_samples_is_rounded():
    assert mixture((7, 0.3), (10, 0.3), (1, 0.6)).counts == [2, 3, 1]
    with pytest.raises(ValueError, match="dataset 'part': weight=0.05 of its 7 samples is less than one an epoch"):
        mixture((100,), (7, 0.05))


def test_mixture_table_has_a_line_for_each_dataset():
    visual, language = mixture((80, 0.5, "photos"), (30, 2, "clevr")), mixture((10, 1, "text"), stream=LANGUAGE)
    assert [line.split() for line in mixture_table([(visual, 100), (language, 25)]).splitlines()[1:]] == [
        ["dataset", "source", "samples", "weight", "per", "epoch", "share"],
        ["photos", "visual", "80", "0.5", "40", "32.0%"],
        ["clevr", "visual", "30", "2", "60", "48.0%"],
        ["text", "language", "10", "1", "25", "20.0%"],
    ]
