"""What is random in a sample: which answer, turn, image, wording. All of it is drawn from `results['rng']`."""

from collections.abc import Sequence

from mmgpt.datasets.conversation import add_text, question_text
from mmgpt.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PickAnswer:
    """Takes one of the `answers` of a turn as its answer; a turn without `answers` stays."""

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            if turn.get("answers"):
                turn["answer"] = _one(results, turn["answers"])
        return results


@TRANSFORMS.register_module()
class JoinAnswers:
    """Joins some of the `answers` of a turn, in random order, into its answer: many statements about one image.

    Args:
        count: how many at most.
        separator: between them.
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
    """Keeps one of several turns, for formats whose turns do not build on each other (OCR-VQA)."""

    def __call__(self, results: dict) -> dict:
        results["turns"] = [_one(results, results["turns"])]
        return results


@TRANSFORMS.register_module()
class PickImage:
    """Keeps one of several images, for formats with variants of one picture (NLVR: its boxes in six orders).

    A sample without images stays.
    """

    def __call__(self, results: dict) -> dict:
        if results["images"]:
            results["images"] = [_one(results, results["images"])]
        return results


@TRANSFORMS.register_module()
class AskQuestion:
    """Fills an empty question with one of a list.

    Args:
        questions: the wordings.
    """

    def __init__(self, questions: Sequence[str]):
        self.questions = _some(questions, "questions")

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            if not question_text(turn["question"]):
                turn["question"] = add_text(turn["question"], _one(results, self.questions))
        return results


@TRANSFORMS.register_module()
class AddQuestion:
    """Puts one of a list of questions behind a statement: 'There are two dogs. Is that so?'

    Args:
        questions: the wordings.
    """

    def __init__(self, questions: Sequence[str]):
        self.questions = _some(questions, "questions")

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            turn["question"] = add_text(turn["question"], _one(results, self.questions))
        return results


@TRANSFORMS.register_module()
class OfferOptions:
    """Names the choices behind the question: 'Options: a, b, c.'

    Args:
        prob: how often, from 0 to 1.
    """

    def __init__(self, prob: float = 1.0):
        self.prob = _probability(prob)

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            if turn.get("choices") and results["rng"].random() < self.prob:
                turn["question"] = add_text(turn["question"], f"Options: {', '.join(turn['choices'])}.")
        return results


@TRANSFORMS.register_module()
class GiveReason:
    """Asks for the reason too and builds the answer: 'The answer is X. Because R.', R all different rationales.

    The built answer is then the only right one: it replaces `answers`. A turn without answer or rationales stays.

    Args:
        questions: wordings that ask for the reason; put behind the question.
        prob: how often, from 0 to 1.
    """

    def __init__(self, questions: Sequence[str], prob: float = 1.0):
        self.questions, self.prob = _some(questions, "questions"), _probability(prob)

    def __call__(self, results: dict) -> dict:
        for turn in results["turns"]:
            if turn.get("answer") and turn.get("rationales") and results["rng"].random() < self.prob:
                turn["question"] = add_text(turn["question"], _one(results, self.questions))
                turn["answer"] = f"The answer is {turn['answer']}. Because {_sentences(turn['rationales'])}"
                turn["answers"] = [turn["answer"]]
        return results


def _one(results: dict, items: Sequence):
    return items[int(results["rng"].integers(len(items)))]


def _sentences(texts: Sequence[str]) -> str:
    return " ".join(text if text.endswith((".", "!", "?")) else f"{text}." for text in dict.fromkeys(texts))


def _some(items: Sequence[str], name: str) -> list[str]:
    if isinstance(items, str) or not items:
        raise ValueError(f"{name} must be a list with at least one wording, got {items!r}")
    return list(items)


def _probability(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"prob={value}: a probability lies between 0 and 1")
    return value
