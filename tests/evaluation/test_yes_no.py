"""Yes and no in free text by POPE's rule, and its scores."""

import random

import pytest

from mmgpt.evaluation.metrics.yes_no import YesNoRule, says_yes


@pytest.mark.parametrize(
    "text, yes",
    [
        ("Yes", True),
        ("yes, there is a dog", True),
        ("No", False),
        ("no.", False),
        ("No, there is none", False),
        ("There is not a dog.", False),
        ("There is no, dog", False),
        ("Yes. There is no cat.", True),  # the first sentence counts
        ("Perhaps", True),  # whatever does not say no says yes
        ("", True),
        ("NO", True),  # the rule knows 'No' and 'no'
        ("nothing", True),
        ("No!", True),
        ("A dog\nno", True),  # only spaces separate words
    ],
)
def test_says_yes(text, yes):
    assert says_yes(text) is yes


def rows(true_yes, missed, false_yes, true_no):
    kinds = {(True, True): true_yes, (False, True): missed, (True, False): false_yes, (False, False): true_no}
    return [
        {"predicted": predicted, "expected": expected}
        for (predicted, expected), count in kinds.items()
        for _ in range(count)
    ]


def test_scores_are_in_percent():
    assert YesNoRule().summarize(rows(3, 1, 2, 4)) == pytest.approx(
        {"accuracy": 70, "precision": 60, "recall": 75, "F1": 200 * 0.6 * 0.75 / 1.35, "yes": 50}
    )


def test_shares_without_a_denominator_are_zero():
    assert YesNoRule().summarize(rows(0, 2, 0, 2)) == {"accuracy": 50, "precision": 0, "recall": 0, "F1": 0, "yes": 0}
    assert YesNoRule().summarize(rows(0, 0, 0, 2)) == {"accuracy": 100, "precision": 0, "recall": 0, "F1": 0, "yes": 0}


def test_scores_equal_scikit_learn_on_random_answers():
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    rng = random.Random(0)
    for _ in range(20):
        scored = [{"predicted": rng.random() < 0.6, "expected": rng.random() < 0.5} for _ in range(50)]
        predicted, expected = ([row[key] for row in scored] for key in ("predicted", "expected"))
        precision, recall, f1, _ = precision_recall_fscore_support(expected, predicted, average="binary")
        reference = dict(
            accuracy=accuracy_score(expected, predicted),
            precision=precision,
            recall=recall,
            F1=f1,
            yes=sum(predicted) / 50,
        )
        assert YesNoRule().summarize(scored) == pytest.approx({name: 100 * score for name, score in reference.items()})


def test_the_right_answer_is_yes_or_no():
    rule = YesNoRule()
    assert rule.score_sample({"answer": "Yes", "prediction": "no"}) == {
        "predicted": False,
        "expected": True,
        "score": 0,
    }
    assert rule.score_sample({"answer": "no", "prediction": "No."}) == {
        "predicted": False,
        "expected": False,
        "score": 1,
    }
    for answer in ("maybe", "", None):
        with pytest.raises(ValueError, match="id 'p1': the right answer must be yes or no, got"):
            rule.score_sample({"id": "p1", "answer": answer, "prediction": "no"})
