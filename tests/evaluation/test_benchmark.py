"""BenchmarkScores: each benchmark's scores as its own script has them, groups by tag, and what is refused."""

import random

import pytest
from mmengine.evaluator import Evaluator

from mmgpt.evaluation.metrics import benchmark
from mmgpt.registry import METRICS


def sample(name, prediction, **more):
    return {"id": str(name), "dataset": "test", "prediction": prediction, "answer": "", "answers": []} | more


def scores(rule, samples, **settings):
    metric = METRICS.build(dict(type="BenchmarkScores", rule=rule, **settings))
    results = Evaluator(metric).offline_evaluate(samples, chunk_size=3)
    return {key.removeprefix(f"{rule}/"): value for key, value in results.items()}


def voted(name, prediction, count, **tags):
    return sample(name, prediction, answers=["cat"] * count + ["dog"] * (10 - count), tags=tags)


VOTED = [
    voted(1, "Cat.", 2, question_type="what is", answer_type="other"),
    voted(2, "cat", 3, question_type="what is", answer_type="other"),
    voted(3, "cow", 3, question_type="is the", answer_type="yes/no"),
    voted(4, "cat", 9, question_type="is the", answer_type="other"),
]


def test_vqa_by_question_type_and_answer_type():
    assert scores("vqa", VOTED, by=["question_type", "answer_type"]) == pytest.approx({
        "accuracy": 62.5, "questions": 4,
        "question_type/what is/accuracy": 75, "question_type/what is/questions": 2,
        "question_type/is the/accuracy": 50, "question_type/is the/questions": 2,
        "answer_type/other/accuracy": 250 / 3, "answer_type/other/questions": 3,
        "answer_type/yes/no/accuracy": 0, "answer_type/yes/no/questions": 1,
    })  # fmt: skip


@pytest.mark.parametrize("rule, accuracy", [("vqa", 0), ("openflamingo", 100), ("vizwiz", 50), ("textvqa", 100)])
def test_each_rule_scores_as_its_script(rule, accuracy):
    samples = [sample(1, "A cat", answers=["cat"] * 10), sample(2, "A cat", answers=["a cat"] * 10)]
    assert scores(rule, samples)["accuracy"] == accuracy


def test_keys_begin_with_the_rule_or_the_prefix():
    samples = VOTED[:1]
    default = METRICS.build(dict(type="BenchmarkScores", rule="vqa"))
    named = METRICS.build(dict(type="BenchmarkScores", rule="vqa", prefix="okvqa"))
    assert Evaluator(default).offline_evaluate(samples).keys() == {"vqa/accuracy", "vqa/questions"}
    assert Evaluator(named).offline_evaluate(samples).keys() == {"okvqa/accuracy", "okvqa/questions"}


def aokvqa_direct(dataset, predictions):
    """A-OKVQA's eval_predictions.py for direct answers."""
    easy = [question for question in dataset if not question["difficult_direct_answer"]]
    counts = [sum(answer == predictions[q["question_id"]] for answer in q["direct_answers"]) for q in easy]
    return 100 * sum(min(1.0, count / 3.0) for count in counts) / len(easy)


def test_aokvqa_equals_its_script_on_random_predictions():
    rng, words = random.Random(0), ["red", "Red", "blue", "green"]
    dataset = [
        {
            "question_id": f"q{number}",
            "direct_answers": rng.choices(words, k=10),
            "difficult_direct_answer": rng.random() < 0.3,
            "choices": words,
            "correct_choice_idx": rng.randrange(4),
        }
        for number in range(200)
    ]
    predictions = {question["question_id"]: rng.choice(words) for question in dataset}
    samples = [
        sample(
            question["question_id"],
            predictions[question["question_id"]],
            answer=question["choices"][question["correct_choice_idx"]],
            answers=question["direct_answers"],
            choices=question["choices"],
            tags={"difficult_direct_answer": str(question["difficult_direct_answer"]).lower()},
        )
        for question in dataset
    ]
    direct = scores("direct_answer", samples)
    assert direct["accuracy"] == pytest.approx(aokvqa_direct(dataset, predictions))
    assert 100 < direct["questions"] < 180
    right = sum(predictions[q["question_id"]] == q["choices"][q["correct_choice_idx"]] for q in dataset)
    assert scores("choice", samples) == {"accuracy": pytest.approx(right / 2), "questions": 200}


def scienceqa_share(dataset, results, condition):
    """A line of ScienceQA's evaluate_acc.py: percent right among the questions that meet a condition."""
    met = [name for name, question in dataset.items() if condition(question)]
    return 100 * sum(results[name] == dataset[name]["answer"] for name in met) / len(met)


def scienceqa_data(count=300):
    rng = random.Random(0)
    subjects = ["natural science", "social science", "language science"]
    return {
        str(name): {
            "choices": ["yes", "no", "both", "neither"][: rng.randrange(2, 5)],
            "answer": rng.randrange(2),
            "hint": rng.choice(["", "Look."]),
            "image": rng.choice([None, "image.png"]),
            "subject": rng.choice(subjects),
            "grade": f"grade{rng.randrange(1, 13)}",
        }
        for name in range(count)
    }


def scienceqa_sample(name, question, result):
    has = {"text": question["hint"], "image": question["image"]}
    tags = {
        "subject": question["subject"],
        "context": [kind for kind, there in has.items() if there] or "none",
        "grade": "1-6" if int(question["grade"].removeprefix("grade")) < 7 else "7-12",
    }
    answer = question["choices"][question["answer"]]
    return sample(name, "ABCD"[result], choices=question["choices"], answer=answer, tags=tags)


def test_scienceqa_equals_its_script_by_subject_context_and_grade():
    dataset = scienceqa_data()
    results = {name: random.Random(name).randrange(2) for name in dataset}
    samples = [scienceqa_sample(name, question, results[name]) for name, question in dataset.items()]
    ours = scores("choice", samples, by=["subject", "context", "grade"])
    conditions = {
        "accuracy": lambda q: True,
        "subject/natural science/accuracy": lambda q: q["subject"] == "natural science",
        "subject/social science/accuracy": lambda q: q["subject"] == "social science",
        "subject/language science/accuracy": lambda q: q["subject"] == "language science",
        "context/text/accuracy": lambda q: q["hint"],
        "context/image/accuracy": lambda q: q["image"],
        "context/none/accuracy": lambda q: not q["hint"] and not q["image"],
        "grade/1-6/accuracy": lambda q: q["grade"] in {f"grade{number}" for number in range(1, 7)},
        "grade/7-12/accuracy": lambda q: q["grade"] in {f"grade{number}" for number in range(7, 13)},
    }
    theirs = {key: scienceqa_share(dataset, results, condition) for key, condition in conditions.items()}
    assert {key: value for key, value in ours.items() if key.endswith("accuracy")} == pytest.approx(theirs)
    assert sum(ours[f"context/{kind}/questions"] for kind in ("text", "image", "none")) > ours["questions"]


def test_mmpretrain_counts_images_with_a_hint_as_text_and_guesses_what_it_cannot_read():
    pytest.importorskip("mmpretrain")
    from mmpretrain.evaluation import ScienceQAMetric

    question = {"choices": ["yes", "no"], "hint": "Look.", "subject": "natural science", "grade": "grade1"}
    theirs = ScienceQAMetric()
    theirs.process(None, [question | {"pred_answer": "A", "gt_answer": 0, "has_image": True}])
    assert "acc_has_image" not in theirs.compute_metrics(theirs.results)
    ours = [scienceqa_sample("1", question | {"answer": 0, "image": "image.png"}, 0)]
    assert scores("choice", ours, by=["context"])["context/image/accuracy"] == 100

    unreadable = [question | {"pred_answer": "perhaps", "gt_answer": 0, "has_image": True}] * 100
    theirs.process(None, unreadable)
    assert 0.2 < theirs.compute_metrics(theirs.results)["all_acc"] < 0.8
    ours = [question | {"prediction": "perhaps", "id": str(name)} for name in range(3) for question in ours]
    assert scores("choice", ours)["accuracy"] == 0


def test_gqa_by_structural_and_semantic_type():
    rng, words = random.Random(0), ["yes", "no", "left", "white"]
    gold = [(rng.choice(words), rng.choice(["query", "verify"]), rng.choice(["attr", "rel"])) for _ in range(100)]
    predicted = [rng.choice(words) for _ in gold]
    samples = [
        sample(name, prediction, answer=answer, tags={"structural": structural, "semantic": semantic})
        for name, (prediction, (answer, structural, semantic)) in enumerate(zip(predicted, gold, strict=True))
    ]
    ours = scores("exact", samples, by=["structural", "semantic"])

    def share(index, value):  # GQA's eval.py: predicted == answer
        met = [
            (prediction, answer)
            for prediction, (answer, *types) in zip(predicted, gold, strict=True)
            if types[index] == value
        ]
        return 100 * sum(prediction == answer for prediction, answer in met) / len(met)

    assert ours["accuracy"] == sum(
        prediction == answer for prediction, (answer, *_) in zip(predicted, gold, strict=True)
    )
    for index, tag, value in ((0, "structural", "query"), (0, "structural", "verify"), (1, "semantic", "rel")):
        assert ours[f"{tag}/{value}/accuracy"] == pytest.approx(share(index, value))


def test_mmpretrain_takes_articles_and_number_words_for_equal_in_gqa():
    pytest.importorskip("mmpretrain")
    from mmpretrain.evaluation import GQAAcc

    theirs = GQAAcc()
    theirs.process(None, [{"pred_answer": "the zero", "gt_answer": "0"}])
    assert theirs.compute_metrics(theirs.results)["acc"] == 1
    assert scores("exact", [sample(1, "the zero", answer="0")])["accuracy"] == 0


@pytest.mark.parametrize(
    "prediction, right", [("J. K. Rowling", 100), (" j. k. rowling.\n", 100), ("JK Rowling", 0), ("Rowling", 0)]
)
def test_ocr_vqa_is_exact_but_for_case_and_a_closing_stop(prediction, right):
    assert scores("exact", [sample(1, prediction, answer="J. K. Rowling")])["accuracy"] == right


def test_snli_ve_is_a_choice_of_three_labels():
    labels = ["entailment", "neutral", "contradiction"]
    predictions = ["Entailment.", "neutral", "maybe"]
    samples = [
        sample(text, text, answer=label, choices=labels) for text, label in zip(predictions, labels, strict=True)
    ]
    assert scores("choice", samples)["accuracy"] == pytest.approx(200 / 3)


def test_pope_by_category():
    predictions = [
        ("random", "Yes", "yes"),
        ("random", "No.", "yes"),
        ("popular", "yes", "no"),
        ("popular", "no", "no"),
    ]
    samples = [
        sample(name, text, answer=answer, tags={"category": category})
        for name, (category, text, answer) in enumerate(predictions)
    ]
    ours = scores("yes_no", samples, by=["category"])
    assert ours["accuracy"] == 50
    assert ours["F1"] == 50
    assert ours["category/random/recall"] == 50
    assert ours["category/random/precision"] == 100
    assert ours["category/popular/precision"] == 0
    assert ours["category/popular/yes"] == 50
    assert ours["category/popular/questions"] == 2


def test_unknown_rules_and_tags_are_refused():
    with pytest.raises(ValueError, match="unknown rule 'vqav2'; choose one of caption, choice, direct_answer, exact"):
        scores("vqav2", [])
    with pytest.raises(ValueError, match="no sample has a tag 'type'.* tags found: answer_type, question_type"):
        scores("vqa", VOTED, by=["type"])
    with pytest.raises(ValueError, match="no sample has a tag 'type'.* tags found: none"):
        scores("exact", [sample(1, "a", answer="a")], by=["type"])


@pytest.mark.parametrize("answers", [[], None, ["cat"], ["cat"] * 11])
def test_votes_need_ten_annotators(answers):
    for rule in ("vqa", "openflamingo", "vizwiz", "textvqa", "direct_answer"):
        with pytest.raises(ValueError, match="dataset 'test', id '5': VQA accuracy needs 10 annotators' answers, got"):
            scores(rule, [sample(5, "cat", answers=answers)])


def test_samples_without_references_are_refused():
    with pytest.raises(ValueError, match="'5' of dataset 'test' has neither"):
        scores("exact", [sample(5, "cat")])
    with pytest.raises(ValueError, match="id '5'.* the list of its choices is empty"):
        scores("choice", [sample(5, "cat", choices=[])])


def test_repeated_ids_in_a_dataset_are_refused():
    assert scores("vqa", [VOTED[0], VOTED[0] | {"dataset": "other"}])["questions"] == 2
    with pytest.raises(ValueError, match=r"several predictions: \('test', '1'\)"):
        scores("vqa", [*VOTED, VOTED[0]])


def test_samples_that_do_not_count_have_a_row_so_that_processes_can_be_merged():
    metric = METRICS.build(dict(type="BenchmarkScores", rule="direct_answer"))
    samples = [
        sample(n, "cat", answers=["cat"] * 10, tags={"difficult_direct_answer": flag})
        for n, flag in enumerate(["true", "false", "true"])
    ]
    metric.process(None, samples)
    assert len(metric.results) == 3
    assert metric.compute_metrics(metric.results) == {"accuracy": 100, "questions": 1}


def test_data_without_a_counted_sample_is_refused():
    difficult = sample(1, "cat", answers=["cat"] * 10, tags={"difficult_direct_answer": "true"})
    with pytest.raises(ValueError, match="no prediction to score"):
        scores("direct_answer", [difficult])


def test_a_missing_package_is_named_at_construction(monkeypatch):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="rule 'caption' needs pycocoevalcap: pip install pycocoevalcap"):
        METRICS.build(dict(type="BenchmarkScores", rule="caption"))
