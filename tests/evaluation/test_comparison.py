"""Two evaluations: which samples pair up, the figures of their difference, and what they refuse."""

import numpy as np
import pytest

from mmgpt.evaluation.comparison import Pair, change, differing, pair_up
from mmgpt.evaluation.results_reader import SavedEvaluation, read_evaluation
from tests.helpers.evaluation_files import row, write


def evaluation(name, rows, rule="exact"):
    return SavedEvaluation(
        name, {}, rule, [dict(values, score=float(values["prediction"] == "red")) for values in rows]
    )


def pairs(*scores):
    return [Pair({"score": first}, {"score": second}) for first, second in scores]


def test_samples_pair_up_in_any_order():
    # Two of the same id and question, as two turns of a conversation may be, pair up in their order.
    rows = [row(0), row(1, id="x", prediction="a"), row(2, id="x", prediction="b"), row(3, dataset="shape")]
    other = [dict(values, prediction="red") for values in reversed(rows)]
    other[1], other[2] = other[2], other[1]
    paired = pair_up(evaluation("A", rows), evaluation("B", other))
    assert [pair.first["index"] for pair in paired] == [pair.second["index"] for pair in paired] == [0, 1, 2, 3]


def test_missing_samples_are_named():
    first, second = [row(i) for i in range(6)], [row(0), row(1, question="What?")]
    with pytest.raises(ValueError) as error:
        pair_up(evaluation("A", first), evaluation("B", second))
    assert "5 are not in B, such as dataset 'colour', id 'q1' ('What colour is it?')" in str(error.value)
    assert "and 1 are not in A, such as dataset 'colour', id 'q1' ('What?')" in str(error.value)
    assert "q4" not in str(error.value)


def test_other_answers_and_other_rules_are_refused():
    message = r"1 samples have different expected answers: .*id 'q0'.*\['red'\].*\['blue'\]"
    with pytest.raises(ValueError, match=message):
        pair_up(evaluation("A", [row(0)]), evaluation("B", [row(0, answers=["blue"])]))
    with pytest.raises(ValueError, match="A is scored by rule 'exact', B by 'vqa'"):
        pair_up(evaluation("A", [row(0)]), evaluation("B", [row(0)], "vqa"))


def test_statistics_of_a_change():
    result = change(pairs(*[(0, 1)] * 7, *[(1, 0)] * 2, *[(1, 1)] * 8, *[(0, 0)] * 3))
    assert (result.questions, result.wins, result.losses, result.both_right, result.both_wrong) == (20, 7, 2, 8, 3)
    assert (result.first, result.second, result.difference) == pytest.approx((50, 75, 25))
    # Nine coins, seven or more of one side: 2 * (36 + 9 + 1) / 2**9.
    assert result.p == pytest.approx(92 / 512)


def test_the_interval_equals_a_paired_bootstrap():
    scores = [(0, 1)] * 30 + [(1, 0)] * 10 + [(1, 1)] * 60
    result = change(pairs(*scores))
    gains = 100 * np.diff(scores)[:, 0]
    draw = np.random.default_rng(1)
    means = [draw.choice(gains, len(gains)).mean() for _ in range(4000)]
    assert (result.low, result.high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=1.1)
    # Unpaired, it would be as wide as the scores themselves vary.
    assert result.high - result.low < 27


def test_scores_between_zero_and_one():
    result = change(pairs((0.3, 0.6), (0.3, 0.3), (0.6, 0.6), (1, 0.9)))
    assert (result.wins, result.losses, result.both_right, result.both_wrong) == (1, 1, 1, 1)
    assert result.difference == pytest.approx(5)


def test_equal_scores_have_an_empty_interval():
    result = change(pairs((1, 1), (0, 0)))
    assert (result.difference, result.low, result.high, result.p) == (0, 0, 0, 1)


def test_differing_settings_have_dotted_names():
    first = {"model": {"lora": {"r": 16}, "type": "X"}, "data": [{"name": "a"}], "seed": 0, "cut_at": []}
    second = {"model": {"lora": {"r": 64}, "type": "X"}, "data": [{"name": "a"}, {"name": "b"}], "cut_at": []}
    assert differing(first, second) == {"model.lora.r": (16, 64), "seed": (0, None), "data.1.name": (None, "b")}


def test_saved_evaluations_pair_up(tmp_path):
    first = read_evaluation(write(tmp_path / "a", [row(0), row(1, prediction="blue")]))
    second = read_evaluation(write(tmp_path / "b", [row(0), row(1)]))
    [same, better] = pair_up(first, second)
    assert (same.gain, better.gain) == (0, 1)
