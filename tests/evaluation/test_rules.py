"""Scoring rules from outside the package: registered in a module that a config imports, and found by their name."""

import sys

import pytest

from mmgpt.cli import load_config
from mmgpt.evaluation.metrics.benchmark import BenchmarkScores
from mmgpt.evaluation.metrics.rules import Rule, find_rule
from mmgpt.evaluation.predictions import Predictions
from mmgpt.evaluation.readiness import build_metrics
from mmgpt.evaluation.results_reader import read_evaluation
from mmgpt.registry import SCORES
from mmgpt.utils.errors import SampleError
from tests.helpers.evaluation_files import row, write

RULES = """
from mmgpt.evaluation.metrics.rules import Rule
from mmgpt.registry import SCORES

@SCORES.register_module("first_letter")
def first_letter(sample):
    if not sample["answer"]:
        raise ValueError(f"sample {sample['id']}: no answer")
    return None if sample["answer"] == "?" else float(sample["prediction"][:1] == sample["answer"][0])

@SCORES.register_module("lengths")
class Lengths(Rule):
    scores_samples = False

    def score_sample(self, sample):
        return {"length": len(sample["prediction"])}

    def summarize(self, rows):
        return {"longest": max(row["length"] for row in rows)}
"""
CONFIG = """
custom_imports = dict(imports=["rules_of_a_user"])
test_evaluator = [dict(type="BenchmarkScores", rule="first_letter"), dict(type="BenchmarkScores", rule="lengths")]
"""
ROWS = [row(0, prediction="rose"), row(1, prediction="blue"), row(2, answer="?"), row(3, prediction="raspberry")]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A config that imports a module of rules from its own folder."""
    (tmp_path / "rules_of_a_user.py").write_text(RULES)
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    yield load_config(tmp_path / "config.py")
    for name in ("first_letter", "lengths"):
        SCORES.module_dict.pop(name)
    sys.modules.pop("rules_of_a_user")


def test_a_function_and_a_class_from_a_config_score_saved_predictions(config, tmp_path):
    write(tmp_path / "evaluation", ROWS)
    rows = list(Predictions(tmp_path / "evaluation").read().values())
    first_letter, lengths = build_metrics(config.test_evaluator)
    first_letter.process(None, rows)
    lengths.process(None, rows)
    assert first_letter.compute_metrics(first_letter.results) == {"accuracy": 100 * (2 / 3), "questions": 3}
    assert lengths.compute_metrics(lengths.results) == {"longest": 9, "questions": 4}
    assert (first_letter.prefix, lengths.prefix) == ("first_letter", "lengths")


def test_samples_without_references_are_found_before_anything_is_answered(config):
    metric = build_metrics(config.test_evaluator)[0]
    questions = [{key: value for key, value in row(i).items() if key != "prediction"} for i in range(2)]
    metric.check(questions)
    assert metric.results == []
    with pytest.raises(ValueError, match="sample q1: no answer"):
        metric.check([questions[0], questions[1] | {"answer": ""}])


def test_a_saved_evaluation_is_scored_by_the_rule(config, tmp_path):
    evaluation = read_evaluation(write(tmp_path / "evaluation", ROWS, metrics=config.test_evaluator[::-1]))
    assert evaluation.rule == "first_letter"
    assert [(saved_row["id"], saved_row["score"]) for saved_row in evaluation.rows] == [("q0", 1), ("q1", 0), ("q3", 1)]


def test_an_unknown_rule_is_refused_with_the_choices(tmp_path):
    folder = write(tmp_path, ROWS, metrics=[dict(type="BenchmarkScores", rule="first_letter")])
    with pytest.raises(ValueError, match="unknown rule 'first_letter'; choose one of caption, .* by custom_imports"):
        read_evaluation(folder)


def test_every_registered_rule_can_be_built():
    assert sorted(SCORES.module_dict) == [
        "caption",
        "choice",
        "direct_answer",
        "exact",
        "openflamingo",
        "textvqa",
        "vizwiz",
        "vqa",
        "yes_no",
    ]
    assert all(isinstance(find_rule(name), Rule) for name in SCORES.module_dict)
    assert [name for name in SCORES.module_dict if not find_rule(name).scores_samples] == ["caption"]


def test_a_rule_that_fails_on_an_empty_prediction_is_told_with_the_sample():
    SCORES.register_module("as_number", module=lambda sample: float(int(sample["prediction"]) == 1), force=True)
    sample = {"dataset": "birds", "id": "7", "answer": "1"}
    with pytest.raises(SampleError, match="dataset 'birds', id '7': its scoring rule fails on an empty prediction"):
        BenchmarkScores(rule="as_number").check([sample])


def test_the_earlier_name_of_score_sample_is_accepted_with_a_warning():
    with pytest.warns(FutureWarning, match="Old.judge is called score_sample now"):

        class Old(Rule):
            def judge(self, sample):
                return {"score": 1.0}

    assert Old().score_sample({}) == {"score": 1.0}
