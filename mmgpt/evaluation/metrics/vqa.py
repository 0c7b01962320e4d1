"""VQA accuracy of VQAv2, OK-VQA, VizWiz, TextVQA and A-OKVQA: agreement with the answers of several annotators.

The scripts in use normalise differently; what each one does is written at its function.
"""

import re
from collections.abc import Sequence

NUMBERS = {"none": "0"} | {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")
# The script gives re.sub the flag re.UNICODE, which is 32, in the place of the count.
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
# Each form with one of its apostrophes left out, and one entry that is a slip of the script.
CONTRACTIONS = {
    form[:place] + form[place + 1 :]: form for form in CONTRACTED for place, mark in enumerate(form) if mark == "'"
} | {"somebody'd": "somebodyd"}


def clean(text: str) -> str:
    """A text on one line, without white space around it."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalise_vqa(text: str) -> str:
    """A text as the VQA script compares it: without case, punctuation, articles; number words as digits.

    A punctuation mark becomes a space; but nothing, when it stands next to a space anywhere in the text, or when the
    text has a comma between two digits. A full stop goes unless a digit follows it. Apostrophes stay, and are put into
    contractions that lack one.
    """
    glued = DIGIT_COMMA.search(text) is not None
    plain = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if glued or beside_space else " ")
    plain = FULL_STOP.sub("", plain, count=FULL_STOPS_REMOVED)
    words = [NUMBERS.get(word, word) for word in plain.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalise_textvqa(text: str) -> str:
    """A text as the TextVQA evaluator compares it (EvalAIAnswerProcessor of github.com/facebookresearch/mmf).

    As `normalise_vqa`, but before that commas and question marks are left out, and a possessive 's is a word.
    """
    return normalise_vqa(clean(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()))


def leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    """Mean over the annotators of min(1, n / 3), where n of the others gave this answer: 0 to 1 (arXiv:1505.00468)."""
    same = [answer == prediction for answer in answers]
    return sum(min(1.0, (sum(same) - own) / 3) for own in same) / len(same)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy by the official script of VQA (github.com/GT-Vision-Lab/VQA, vqaEval.py at a013f00): VQAv2, OK-VQA.

    Where all annotators gave the same answer nothing is normalised, case included, on purpose (its issue 14): answers
    to be read from an image are to be compared as they are.
    """
    prediction, answers = clean(prediction), [clean(answer) for answer in answers]
    if len(set(answers)) == 1:
        return leave_one_out(prediction, answers)
    return leave_one_out(normalise_vqa(prediction), [normalise_vqa(answer) for answer in answers])


def openflamingo_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy as OpenFlamingo 2.0.1 computes it for all its datasets: everything is normalised in any case."""
    return leave_one_out(normalise_vqa(clean(prediction)), [normalise_vqa(clean(answer)) for answer in answers])


def vizwiz_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy by VizWiz's own script (vizwiz.org): the annotators' answers are compared as they are in the file.

    That script has typographic apostrophes in some contractions, which is not followed.
    """
    return leave_one_out(normalise_vqa(clean(prediction)), answers)


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy by TextVQA's evaluator (TextVQAAccuracyEvaluator of github.com/facebookresearch/mmf)."""
    return leave_one_out(normalise_textvqa(prediction), [normalise_textvqa(answer) for answer in answers])


def direct_answer_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """A-OKVQA's accuracy of direct answers: min(1, n / 3) for n equal answers, to the letter, none left out.

    Source: github.com/allenai/aokvqa, evaluation/eval_predictions.py.
    """
    return min(1.0, sum(answer == prediction for answer in answers) / 3)
