"""Random choice of answers, turns, images and wordings, drawn from `results['rng']`."""

from collections.abc import Sequence

from mmgpt.datasets.conversation import append_text, question_text
from mmgpt.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PickAnswer:
    """Chooses one of the `answers` of a turn as its answer; a turn without `answers` stays the same."""

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            if turn.get("answers"):
                turn["answer"] = _choose(results, turn["answers"])
        return results


@TRANSFORMS.register_module()
class JoinAnswers:
    """Joins several `answers` of a turn, in random order, into its answer: many statements about one image.

    Args:
        count: largest number of answers.
        separator: text between them.
    """

    def __init__(self, count: int, separator: str = " "):
        if count < 1:
            raise ValueError(f"count={count}: at least one answer must be joined")
        self.count, self.separator = count, separator

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            answers = turn.get("answers")
            if answers:
                order = results["rng"].permutation(len(answers))[: self.count]
                turn["answer"] = self.separator.join(answers[i] for i in order)
        return results


@TRANSFORMS.register_module()
class PickTurn:
    """Chooses one of several turns, for formats whose turns are independent (OCR-VQA)."""

    def __call__(self, results: dict) -> dict:
        results["turns"] = [_choose(results, results["turns"])]
        return results


@TRANSFORMS.register_module()
class SeparateTurns:
    """Makes each of several turns a question of its own about the images, which sees nothing of the other turns.

    It learns what PickTurn learns in as many epochs as there are turns, and images, system text and resampler are
    computed once for all turns. The length limit is that of each turn, so that a row can be longer. For training, and
    for formats whose turns are independent.
    """

    def __call__(self, results: dict) -> dict:
        results["separate_turns"] = True
        return results


@TRANSFORMS.register_module()
class PickImage:
    """Chooses one of several images, for formats with variants of one image (NLVR: its boxes in six orders).

    A sample without images stays the same.
    """

    def __call__(self, results: dict) -> dict:
        if results["images"]:
            results["images"] = [_choose(results, results["images"])]
        return results


@TRANSFORMS.register_module()
class AskQuestion:
    """Replaces an empty question by one of a list.

    Args:
        questions: wordings.
    """

    def __init__(self, questions: Sequence[str]):
        self.questions = _check_wordings(questions)

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            if not question_text(turn["question"]):
                turn["question"] = append_text(turn["question"], _choose(results, self.questions))
        return results


@TRANSFORMS.register_module()
class AddQuestion:
    """Adds one of a list of questions to a statement: 'There are two dogs. Is that so?'

    Args:
        questions: wordings.
    """

    def __init__(self, questions: Sequence[str]):
        self.questions = _check_wordings(questions)

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            turn["question"] = append_text(turn["question"], _choose(results, self.questions))
        return results


@TRANSFORMS.register_module()
class OfferOptions:
    """Adds the choices to the question: 'Options: a, b, c.'

    Args:
        prob: probability of the addition, from 0 to 1.
    """

    def __init__(self, prob: float = 1.0):
        self.prob = _probability(prob)

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            if turn.get("choices") and results["rng"].random() < self.prob:
                turn["question"] = append_text(turn["question"], f"Options: {', '.join(turn['choices'])}.")
        return results


@TRANSFORMS.register_module()
class GiveReason:
    """Asks for the reason and extends the answer: 'The answer is X. Because R.', where R are all different rationales.

    The new answer is the only right one and replaces `answers`. A turn without answer or rationales stays the same.

    Args:
        questions: wordings that ask for the reason, added to the question.
        prob: probability of the addition, from 0 to 1.
    """

    def __init__(self, questions: Sequence[str], prob: float = 1.0):
        self.questions, self.prob = _check_wordings(questions), _probability(prob)

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            if turn.get("answer") and turn.get("rationales") and results["rng"].random() < self.prob:
                turn["question"] = append_text(turn["question"], _choose(results, self.questions))
                reasons = dict.fromkeys(turn["rationales"])
                sentences = (text if text.endswith((".", "!", "?")) else f"{text}." for text in reasons)
                turn["answer"] = f"The answer is {turn['answer']}. Because {' '.join(sentences)}"
                turn["answers"] = [turn["answer"]]
        return results


def _choose(results: dict, items: Sequence):
    return items[int(results["rng"].integers(len(items)))]


def _check_wordings(questions: Sequence[str]) -> list[str]:
    if isinstance(questions, str) or not questions:
        raise ValueError(f"questions must be a list with at least one wording, got {questions!r}")
    return list(questions)


def _probability(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"prob={value}: a probability lies between 0 and 1")
    return value
