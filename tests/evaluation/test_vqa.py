"""VQA accuracy: cases worked out by hand from the official script, random ones against a second implementation."""

import random

import pytest

from mmgpt.evaluation.metrics import vqa
from tests.helpers import vqa_reference as oracle

# Prediction, answers of ten annotators (answer: how many gave it), accuracy.
CASES = [
    # One annotator is left out at a time: 1, 2, 3 votes give 0.3, 0.6, 0.9, not 1/3, 2/3, 1.
    ("cat", {"dog": 9, "cow": 1}, 0.0),
    ("cat", {"dog": 9, "cat": 1}, 0.3),
    ("cat", {"dog": 8, "cat": 2}, 0.6),
    ("cat", {"dog": 7, "cat": 3}, 0.9),
    ("cat", {"dog": 6, "cat": 4}, 1.0),
    ("cat", {"dog": 1, "cat": 9}, 1.0),
    ("cat", {"cat": 10}, 1.0),
    # Nothing is normalized when all agree, white space apart.
    ("Cat", {"cat": 10}, 0.0),
    ("cat.", {"cat": 10}, 0.0),
    ("the cat", {"cat": 10}, 0.0),
    ("two", {"2": 10}, 0.0),
    ("STOP", {"STOP": 10}, 1.0),
    (" cat\n", {"cat": 10}, 1.0),
    ("a\tcat", {"a cat": 10}, 1.0),
    ("cat", {"cat": 5, " cat": 5}, 1.0),  # alike once the white space around them is gone
    ("Cat", {"cat": 5, "cat\n": 5}, 0.0),
    ("Cat", {"cat": 9, "Cat": 1}, 1.0),  # not alike in case: normalized
    # Case.
    ("CAT", {"Cat": 4, "dog": 6}, 1.0),
    ("İ", {"i̇": 4, "dog": 6}, 1.0),
    # Articles are words; what only looks like one stays.
    ("a cat", {"cat": 4, "dog": 6}, 1.0),
    ("The cat", {"cat": 4, "dog": 6}, 1.0),
    ("cat", {"an cat": 4, "dog": 6}, 1.0),
    ("a", {"the": 4, "dog": 6}, 1.0),  # both nothing
    ("a", {"b": 4, "": 3, "dog": 3}, 0.9),
    ("theater", {"ater": 4, "dog": 6}, 0.0),
    ("A.", {"": 4, "dog": 6}, 1.0),  # the letter is lost with the article
    # Number words up to ten, and none.
    ("zero", {"0": 4, "1": 6}, 1.0),
    ("none", {"0": 4, "1": 6}, 1.0),
    ("None", {"zero": 4, "1": 6}, 1.0),
    ("ten", {"10": 4, "1": 6}, 1.0),
    ("eleven", {"11": 4, "1": 6}, 0.0),
    ("Seven dogs", {"7 dogs": 4, "1": 6}, 1.0),
    ("twenty one", {"twenty 1": 4, "1": 6}, 1.0),
    ("once", {"1ce": 4, "1": 6}, 0.0),
    # A mark between letters becomes a space; next to a space anywhere it goes everywhere.
    ("x-ray", {"x ray": 4, "dog": 6}, 1.0),
    ("x-ray", {"xray": 4, "dog": 6}, 0.0),
    ("x- ray", {"x ray": 4, "dog": 6}, 1.0),
    ("x -ray t-shirt", {"x ray tshirt": 4, "dog": 6}, 1.0),
    ("x-ray t-shirt", {"x ray t shirt": 4, "dog": 6}, 1.0),
    ("yes!", {"yes": 4, "no": 6}, 1.0),
    ("yes?!", {"yes": 4, "no": 6}, 1.0),
    ("(yes)", {"yes": 4, "no": 6}, 1.0),
    ("black/white", {"black white": 4, "no": 6}, 1.0),
    ("black / white", {"black white": 4, "no": 6}, 1.0),
    ("a_b;c@d", {"b c d": 4, "no": 6}, 1.0),  # the freed a is an article
    ("[{red}]", {"red": 4, "no": 6}, 1.0),
    ("\\o/", {"o": 4, "no": 6}, 1.0),
    ("5>3", {"5 3": 4, "no": 6}, 1.0),
    ("it:is", {"it is": 4, "no": 6}, 0.0),  # the script does not remove colons
    ("it's", {"its": 4, "no": 6}, 0.0),  # nor an apostrophe
    ("red & blue", {"red blue": 4, "no": 6}, 0.0),
    # A comma between two digits: all marks of the text go without a space.
    ("1,000", {"1000": 4, "no": 6}, 1.0),
    ("1,000", {"1 000": 4, "no": 6}, 0.0),
    ("red,blue", {"red blue": 4, "no": 6}, 1.0),
    ("1,000 t-shirts", {"1000 tshirts": 4, "no": 6}, 1.0),
    ("1, 000", {"1 000": 4, "no": 6}, 1.0),
    # A full stop goes unless a digit follows, whatever comes before it.
    ("yes.", {"yes": 4, "no": 6}, 1.0),
    ("3.5", {"35": 4, "no": 6}, 0.0),
    (".5", {"5": 4, "no": 6}, 0.0),
    ("5.", {"5": 4, "no": 6}, 1.0),
    ("5.m", {"5m": 4, "no": 6}, 1.0),
    ("p.m.", {"pm": 4, "no": 6}, 1.0),
    ("a. cat", {"cat": 4, "no": 6}, 1.0),
    ("3..5", {"3.5": 4, "no": 6}, 1.0),
    ("no" + "." * 32, {"no": 4, "yes": 6}, 1.0),
    ("no" + "." * 33, {"no": 4, "yes": 6}, 0.0),
    # Contractions get the one apostrophe that they lack.
    ("dont", {"don't": 4, "no": 6}, 1.0),
    ("dont", {"dont": 4, "no": 6}, 1.0),
    ("Youre", {"you're": 4, "no": 6}, 1.0),
    ("couldnt've", {"couldn'tve": 4, "no": 6}, 1.0),
    ("couldntve", {"couldn't've": 4, "no": 6}, 0.0),
    ("somebody'd", {"somebodyd": 4, "no": 6}, 1.0),  # the script's slip
    ("somebodyd", {"somebody'd": 4, "no": 6}, 1.0),
    ("Im", {"I'm": 4, "no": 6}, 0.0),  # the table has a capital I, the text is in lower case
    ("lets", {"let's": 4, "no": 6}, 0.0),
    ("10 oclock", {"ten o'clock": 4, "no": 6}, 1.0),
    # Empty answers.
    ("", {"": 4, "no": 6}, 1.0),
    ("", {"no": 9, "yes": 1}, 0.0),
    ("?", {"": 4, "no": 6}, 1.0),
]  # fmt: skip


def spread(votes):
    answers = [answer for answer, count in votes.items() for _ in range(count)]
    assert len(answers) == 10
    return answers


@pytest.mark.parametrize("prediction, votes, accuracy", CASES)
def test_accuracy_of_cases_worked_out_by_hand(prediction, votes, accuracy):
    assert vqa.vqa_accuracy(prediction, spread(votes)) == pytest.approx(accuracy, abs=1e-12)
    assert oracle.official(prediction, spread(votes)) == pytest.approx(accuracy, abs=1e-12)


BITS = (
    ["cat", "Cat", "the", "a", "An", "one", "Ten", "none", "dont", "don't", "couldnt've", "let's", "somebody'd", "Im"]
    + ["1,000", "1, 2", "3.5", "5.", ".5", "p.m.", "x-ray", "a/b", "yes!", "(no)", "it's", "dog's", "what?", "." * 35]
    + [" ", "  ", "\n", "\t", "\u00a0", "\u0664,\u0665", "\u0130", "\u00df", *oracle.MARKS, *oracle.TABLE]
)


def random_case(rng):
    pool = ["".join(rng.choice(BITS) + rng.choice(["", " "]) for _ in range(rng.randrange(5))) for _ in range(3)]

    def vary(text):
        return rng.choice([text, text, text.upper(), f"{text}.", f" the {text}", text.replace("'", "")])

    answers = [vary(rng.choice(pool)) for _ in range(10)]
    if rng.random() < 0.2:
        answers = answers[:1] * 10
    return vary(rng.choice(pool)), answers


@pytest.mark.parametrize("ours, theirs", [("vqa_accuracy", "official"), ("textvqa_accuracy", "textvqa")])
def test_3000_random_cases_equal_the_second_implementation(ours, theirs):
    rng, scores = random.Random(0), []
    for _ in range(3000):
        prediction, answers = random_case(rng)
        scores.append(getattr(vqa, ours)(prediction, answers))
        assert scores[-1] == pytest.approx(getattr(oracle, theirs)(prediction, answers), abs=1e-12), (
            prediction,
            answers,
        )
    assert all(sum(round(score, 9) == level for score in scores) > 50 for level in (0, 0.3, 0.6, 0.9, 1))


def test_the_table_of_contractions_is_the_published_one():
    assert {key: value for key, value in oracle.TABLE.items() if key != value} == vqa.CONTRACTIONS
    assert len(vqa.CONTRACTIONS) == 114


@pytest.mark.parametrize(
    "prediction, answer, official, openflamingo, vizwiz, textvqa",
    [
        ("Cat", "cat", 0, 1, 1, 1),  # agreed answers: only the official script leaves the prediction as it is
        ("coca-cola", "coca-cola", 1, 1, 0, 1),  # VizWiz' script normalizes the prediction alone
        ("dog's", "dog 's", 0, 0, 0, 1),  # TextVQA takes the possessive apart
        ("red,blue", "redblue", 0, 0, 0, 1),  # and drops commas and question marks at once
        ("a?b", "ab", 0, 0, 0, 1),
    ],
)
def test_the_official_scripts_differ(prediction, answer, official, openflamingo, vizwiz, textvqa):
    accuracies = (vqa.vqa_accuracy, vqa.openflamingo_accuracy, vqa.vizwiz_accuracy, vqa.textvqa_accuracy)
    assert [accuracy(prediction, [answer] * 10) for accuracy in accuracies] == [official, openflamingo, vizwiz, textvqa]


def test_where_annotators_differ_openflamingo_and_the_official_script_agree():
    rng = random.Random(1)
    for prediction, answers in (random_case(rng) for _ in range(500)):
        if len({vqa.clean(answer) for answer in answers}) > 1:
            assert vqa.openflamingo_accuracy(prediction, answers) == vqa.vqa_accuracy(prediction, answers)


@pytest.mark.parametrize("count, accuracy", [(0, 0), (1, 1 / 3), (2, 2 / 3), (3, 1), (10, 1)])
def test_direct_answers_of_aokvqa_are_compared_literally_with_all_annotators(count, accuracy):
    answers = ["red"] * count + ["blue"] * (10 - count)
    assert vqa.direct_answer_accuracy("red", answers) == pytest.approx(accuracy)
    assert vqa.direct_answer_accuracy("Red", answers) == 0
    assert vqa.direct_answer_accuracy("red.", answers) == 0


def test_mmpretrain_leaves_no_annotator_out_and_always_normalizes():
    pytest.importorskip("mmpretrain")
    from mmpretrain.evaluation import VQAAcc

    def theirs(prediction, answers):
        metric = VQAAcc()
        metric.process(None, [{"pred_answer": prediction, "gt_answer": answers}])
        return metric.compute_metrics(metric.results)["acc"] / 100

    for count, ours in ((1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0)):
        answers = spread({"cat": count, "dog": 10 - count})
        assert vqa.vqa_accuracy("cat", answers) == pytest.approx(ours)
        assert theirs("cat", answers) == pytest.approx(min(1, count / 3))
    assert theirs("Cat.", ["cat"] * 10) == 1
    assert vqa.vqa_accuracy("Cat.", ["cat"] * 10) == 0
