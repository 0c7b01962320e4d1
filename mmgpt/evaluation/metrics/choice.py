"""Multiple choice: the choice that a generated answer names (A-OKVQA, ScienceQA, SNLI-VE)."""

import re
from collections.abc import Sequence

from mmgpt.evaluation.metrics.answers import normalize
from mmgpt.registry import SCORES
from mmgpt.utils.errors import SampleError, SampleLocation

ANSWER_PHRASE = re.compile(r"the (?:correct )?answer is:?\s+", re.IGNORECASE)
FIRST_CLAUSE_END = re.compile(r"(?<=[.:)])\s")
LETTER = re.compile(r"\(?([A-Z])[.:)]?")


def read_choice(text: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that a text names, or None when it names none.

    A text names a choice when it equals the choice literally; when it equals exactly one choice after `normalize` ('Gg'
    and 'gg' are two choices in ScienceQA); or when it is the choice's letter: 'B', 'B.', '(B)'. If the whole text names
    no choice, its beginning up to the first space after '.', ':' or ')' is tried: 'B. a cat', 'a cat. Because it
    purrs.' Everything up to 'The answer is' is ignored.

    An unreadable answer counts as wrong; mmpretrain's ScienceQAMetric draws a random choice instead.
    """
    text = ANSWER_PHRASE.split(text)[-1].strip()
    for candidate in (text, FIRST_CLAUSE_END.split(text)[0]):
        for form in (str, normalize):
            matches = [index for index, choice in enumerate(choices) if form(choice) == form(candidate)]
            if len(matches) == 1:
                return matches[0]
        letter = LETTER.fullmatch(candidate)
        if letter and ord(letter[1]) - ord("A") < len(choices):
            return ord(letter[1]) - ord("A")
    return None


def right_choice(sample: dict) -> str:
    """The correct choice of a sample.

    Raises:
        ValueError: the sample has no choices, or its answer is not one of them.
    """
    choices, answer = sample.get("choices") or [], sample.get("answer")
    if answer not in choices:
        problem = f"not among its choices {choices}" if choices else "but the list of its choices is empty"
        raise SampleError(f"the right answer is {answer!r}, {problem}", SampleLocation.of(sample))
    return answer


@SCORES.register_module("choice")
def choice_score(sample: dict) -> float:
    """Score of a multiple-choice answer: 1 when the prediction names the correct choice, else 0.

    Raises:
        ValueError: see `right_choice`.
    """
    answer, choices = right_choice(sample), sample["choices"]
    index = read_choice(sample["prediction"], choices)
    return float(index is not None and choices[index] == answer)
