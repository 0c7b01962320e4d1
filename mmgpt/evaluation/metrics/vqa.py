"""VQA accuracy of VQAv2, OK-VQA, VizWiz, TextVQA and A-OKVQA: agreement with the answers of ten annotators.

The official scripts normalize text differently; the docstring of each function says how.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from mmgpt.registry import SCORES
from mmgpt.utils.errors import SampleError, SampleLocation

ANNOTATORS = 10
NUMBERS = {"none": "0"} | {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")
# The official script passes the flag re.UNICODE, which is 32, as the argument `count` of re.sub.
FULL_STOPS_REMOVED = 32
CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've "
    "we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's "
    "who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've "
    "you'll you're you've"
).split()
# Each contraction is found without one of its apostrophes. The last entry is a mistake of the official script.
CONTRACTIONS = {
    form[:index] + form[index + 1 :]: form for form in CONTRACTED for index, char in enumerate(form) if char == "'"
} | {"somebody'd": "somebodyd"}


def clean(text: str) -> str:
    """Text on one line, without surrounding white space."""
    return text.replace("\n", " ").replace("\t", " ").strip()


# Each sample is scored twice, once before anything is answered, and most answers occur many times.
@lru_cache(maxsize=2**16)
def normalize_vqa(text: str) -> str:
    """Normalized text of the VQA script: without case, punctuation and articles, number words as digits.

    A punctuation mark is replaced by a space, except that it is deleted when it stands next to a space anywhere in the
    text, or when the text has a comma between two digits. A full stop is deleted unless a digit follows it. Apostrophes
    stay, and contractions without their apostrophe get it.
    """
    has_digit_comma = DIGIT_COMMA.search(text) is not None
    plain = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if has_digit_comma or beside_space else " ")
    plain = FULL_STOP.sub("", plain, count=FULL_STOPS_REMOVED)
    words = [NUMBERS.get(word, word) for word in plain.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalize_textvqa(text: str) -> str:
    """Normalized text of the TextVQA evaluator (EvalAIAnswerProcessor of github.com/facebookresearch/mmf).

    Same as `normalize_vqa`, except that commas and question marks are deleted first, and a possessive 's is a word.
    """
    return normalize_vqa(clean(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()))


def leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    """Mean over the annotators of min(1, n / 3), n of the other annotators agreeing: 0 to 1 (arXiv:1505.00468)."""
    agreements = [answer == prediction for answer in answers]
    return sum(min(1.0, (sum(agreements) - agrees) / 3) for agrees in agreements) / len(agreements)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy of the official VQA script (github.com/GT-Vision-Lab/VQA, vqaEval.py at a013f00): VQAv2, OK-VQA.

    When all annotators agree, the script normalizes nothing, not even case. This is intended (issue 14 of that
    repository): text that is read from an image should be compared literally.
    """
    prediction, answers = clean(prediction), [clean(answer) for answer in answers]
    if len(set(answers)) == 1:
        return leave_one_out(prediction, answers)
    return leave_one_out(normalize_vqa(prediction), [normalize_vqa(answer) for answer in answers])


def openflamingo_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy of OpenFlamingo 2.0.1 for all its VQA datasets: predictions and answers are always normalized."""
    return leave_one_out(normalize_vqa(clean(prediction)), [normalize_vqa(clean(answer)) for answer in answers])


def vizwiz_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy of VizWiz's own script (vizwiz.org), which does not normalize the annotators' answers.

    That script has typographic apostrophes in some contractions; they are not reproduced here.
    """
    return leave_one_out(normalize_vqa(clean(prediction)), answers)


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy of TextVQA's evaluator (TextVQAAccuracyEvaluator of github.com/facebookresearch/mmf)."""
    return leave_one_out(normalize_textvqa(prediction), [normalize_textvqa(answer) for answer in answers])


def direct_answer_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy of A-OKVQA's direct answers: min(1, n / 3) for n of all annotators' answers that are literally equal.

    Source: github.com/allenai/aokvqa, evaluation/eval_predictions.py.
    """
    return min(1.0, sum(answer == prediction for answer in answers) / 3)


def ten_answers(sample: dict) -> list[str]:
    """The answers of a sample's ten annotators.

    Raises:
        ValueError: there are not ten, e.g. because equal answers were merged; names the sample.
    """
    answers = sample.get("answers") or []
    if len(answers) != ANNOTATORS:
        reason = f"VQA accuracy needs {ANNOTATORS} annotators' answers, got {answers!r}"
        raise SampleError(reason, SampleLocation.of(sample))
    return answers


def annotators_score(accuracy: Callable[[str, Sequence[str]], float]) -> Callable[[dict], float]:
    """The score of a sample by one of the accuracies above."""

    def score(sample: dict) -> float:
        return accuracy(sample["prediction"], ten_answers(sample))

    return score


SCORES.register_module("vqa", module=annotators_score(vqa_accuracy))
SCORES.register_module("openflamingo", module=annotators_score(openflamingo_accuracy))
SCORES.register_module("vizwiz", module=annotators_score(vizwiz_accuracy))
SCORES.register_module("textvqa", module=annotators_score(textvqa_accuracy))


@SCORES.register_module("direct_answer")
def direct_answer_score(sample: dict) -> float | None:
    """Score of an A-OKVQA direct answer; None for the samples that A-OKVQA leaves out as too difficult."""
    if sample.get("tags", {}).get("difficult_direct_answer") == "true":
        return None
    return direct_answer_accuracy(sample["prediction"], ten_answers(sample))
