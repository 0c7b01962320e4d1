"""Multiple choice: which of the offered choices a free text names (A-OKVQA, ScienceQA, SNLI-VE)."""

import re
from collections.abc import Sequence

from mmgpt.evaluation.metrics.answers import normalise
from mmgpt.utils.errors import SampleError, SampleLocation

LEAD = re.compile(r"the (?:correct )?answer is:?\s+", re.IGNORECASE)
MARK = re.compile(r"(?<=[.:)])\s")
LETTER = re.compile(r"\(?([A-Z])[.:)]?")


def read_choice(text: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that a text names, or None when it names none.

    A text names a choice by being it; by being it but for case, white space and a closing full stop, when that holds
    for one choice only ('Gg' and 'gg' are two choices in ScienceQA); or by being its letter: 'B', 'B.', '(B)'. So does
    the part of a text before the first space behind '.', ':' or ')': 'B. a cat', 'a cat. Because it purrs.' What
    comes before the choice, up to 'The answer is', is not looked at.

    Nothing is guessed: mmpretrain's ScienceQAMetric draws at random where it cannot read an answer.
    """
    text = LEAD.split(text)[-1].strip()
    named = (_named(part, choices) for part in (text, MARK.split(text)[0]))
    return next((index for index in named if index is not None), None)


def _named(text: str, choices: Sequence[str]) -> int | None:
    for form in (str, normalise):
        same = [index for index, choice in enumerate(choices) if form(choice) == form(text)]
        if len(same) == 1:
            return same[0]
    letter = LETTER.fullmatch(text)
    index = ord(letter[1]) - ord("A") if letter else len(choices)
    return index if index < len(choices) else None


def right_choice(sample: dict) -> str:
    """The right one of a sample's choices.

    Raises:
        ValueError: the sample has no choices, or its answer is not one of them.
    """
    choices, answer = sample.get("choices") or [], sample.get("answer")
    if answer not in choices:
        offered = f"not among its choices {choices}" if choices else "but the list of its choices is empty"
        raise SampleError(f"the right answer is {answer!r}, {offered}", SampleLocation.of(sample))
    return answer


def choice_score(sample: dict) -> float:
    """1 when the prediction names the right choice, else 0; a ValueError as from `right_choice`."""
    answer, choices = right_choice(sample), sample["choices"]
    index = read_choice(sample["prediction"], choices)
    return float(index is not None and choices[index] == answer)
