"""Reader of saved evaluations: scores by the benchmark's rule, types of questions, clear errors."""

import pytest

from mmgpt.evaluation.results_reader import (
    OTHER_TYPES,
    common_types,
    expected_answer,
    grouped,
    question_type,
    read_evaluation,
    rule_of,
)
from tests.helpers.evaluation_files import row, write

TEN = ["red"] * 2 + ["pink"] * 8


def test_rows_come_in_the_order_of_the_data_and_are_scored_by_exact_match(tmp_path):
    rows = [row(1, prediction="Red. "), row(0, prediction="blue"), row(2, answers=["red", "blue"], prediction="blue")]
    evaluation = read_evaluation(write(tmp_path, rows))
    assert [saved_row["index"] for saved_row in evaluation.rows] == [0, 1, 2]
    assert [saved_row["score"] for saved_row in evaluation.rows] == [0, 1, 1]
    assert evaluation.rule == "exact"
    assert read_evaluation(tmp_path / "result.json") == evaluation


def test_the_rule_of_the_benchmark_scores_rows(tmp_path):
    metrics = [dict(type="VQALeaderboardFile"), dict(type="BenchmarkScores", rule="vqa")]
    [only] = read_evaluation(write(tmp_path, [row(0, answers=TEN)], metrics=metrics)).rows
    assert only["score"] == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)


def test_saved_scores_take_precedence_and_rows_that_do_not_count_are_left_out(tmp_path):
    metrics = dict(type="BenchmarkScores", rule="direct_answer")
    rows = [row(0, score=0.25), row(1, answers=TEN, tags=dict(difficult_direct_answer="true")), row(2, answers=TEN)]
    evaluation = read_evaluation(write(tmp_path, rows, metrics=metrics))
    assert [(saved_row["id"], saved_row["score"]) for saved_row in evaluation.rows] == [
        ("q0", 0.25),
        ("q2", pytest.approx(2 / 3)),
    ]


@pytest.mark.parametrize(
    ("metrics", "rule"),
    [
        (dict(type="BenchmarkScores", rule="caption"), "exact"),
        ([dict(type="BenchmarkScores", rule="caption"), dict(rule="yes_no")], "yes_no"),
        ([dict(type="AnswerAccuracy")], "exact"),
    ],
)
def test_rule_of_is_the_first_rule_that_scores_single_samples(metrics, rule):
    assert rule_of(metrics) == rule


def test_perplexity_has_no_answers():
    with pytest.raises(ValueError, match="no answers to look at"):
        rule_of(dict(type="Perplexity"))


def test_a_folder_without_a_result_names_those_below_it(tmp_path):
    write(tmp_path / "evaluation" / "latest-1", [row(0)])
    with pytest.raises(FileNotFoundError, match="holds no result.json; did you mean .*latest-1?"):
        read_evaluation(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere holds no result.json$"):
        read_evaluation(tmp_path / "nowhere")


def test_missing_predictions_are_refused(tmp_path):
    folder = write(tmp_path, [row(0), row(1)])
    (folder / "predictions.jsonl").write_text("")
    with pytest.raises(ValueError, match="0 predictions, but result.json is of 2 samples"):
        read_evaluation(folder)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "what colour"),
        (dict(question="  IS the cup red?"), "is the"),
        (dict(question="Why?"), "why"),
        (dict(question="¿?"), OTHER_TYPES),
        (dict(tags=dict(question_type="none of the above")), "none of the above"),
        (dict(tags=dict(question_type=["a", "b"])), "a, b"),
        (dict(tags=dict(answer_type="number")), "what colour"),
    ],
)
def test_question_type_is_the_tag_or_the_first_two_words(changes, kind):
    assert question_type(row(0, **changes)) == kind


def test_rare_question_types_are_merged():
    rows = [row(i) for i in range(150)] + [row(200, question="How many?")] + [row(201, question="Is it?")] * 2
    assert common_types(rows) == ["what colour"] * 150 + [OTHER_TYPES] + ["is it"] * 2
    many = [row(i, question=f"kind{i % 30} of it") for i in range(60)]
    assert len(set(common_types(many))) == 21


def test_groups_keep_their_order_with_other_types_last():
    groups = grouped(["b", OTHER_TYPES, "a", "b"], [1, 2, 3, 4])
    assert list(groups.items()) == [("b", [1, 4]), ("a", [3]), (OTHER_TYPES, [2])]


def test_expected_answer_counts_the_annotators():
    assert expected_answer(row(0, answers=TEN)) == "pink (8), red (2)"
    assert expected_answer(row(0, answers=["red"] * 10)) == "red"
    assert expected_answer(row(0, answers=[])) == "red"
    assert expected_answer({"answer": "red"}) == "red"
