"""Answers to choose from, as tokens behind a prompt."""

from collections.abc import Sequence
from itertools import takewhile

import torch

from mmgpt.datasets.prompts import answer_segments
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.errors import SampleError, SampleLocation

from .tokens import IGNORE_INDEX

OWN = {"choices": lambda results: results["choices"], "answer": lambda results: [results["answer"]]}


@TRANSFORMS.register_module()
class AddCandidates:
    """Encodes the answers that a model is to choose among by their likelihood, instead of generating one.

    Stands behind TokenizeSegments, in an open prompt. Gives `candidates`, for each answer what follows `input_ids`:
    `ids` and `labels`, int64 (S,), the latter -100 where nothing counts, and the `weight` of its score. `choices` are
    the answers as texts, `candidate_tokens` how many tokens of each count. `input_ids` is what the texts with each of
    the answers have in common.

    Args:
        tokenize: config of TokenizeSegments, the same.
        answers: the texts; or 'choices', those of the question; or 'answer', its right one alone (see Perplexity).
        per_token: divide the log-likelihood of an answer by the number of its tokens.

    Raises:
        ValueError: no answers to choose from, or one of them is empty, twice there, or too long.
    """

    def __init__(self, tokenize: dict, answers: Sequence[str] | str = "choices", per_token: bool = False):
        self.tokenize = TRANSFORMS.build(tokenize)
        if isinstance(answers, str) and answers not in OWN:
            raise ValueError(f"answers={answers!r}: choose among {', '.join(OWN)}, or give a list of texts")
        self.answers, self.per_token = answers, per_token

    def offered(self, results: dict) -> list[str]:
        """The answers to choose from, of what FormatPrompt gives. Raises a ValueError as the whole step does."""
        answers = OWN[self.answers](results) if isinstance(self.answers, str) else self.answers
        if not answers or not all(answers) or len(set(answers)) < len(answers):
            raise SampleError(f"cannot choose among the answers {answers!r}", SampleLocation.of(results))
        return list(answers)

    def __call__(self, results: dict) -> dict:
        answers = self.offered(results)
        # Answers before the last one, of a dialogue or of examples, are part of the prompt.
        prompt = [segment._replace(learned=False) for segment in results["segments"]]
        template = results["template"]
        encoded = [self.tokenize.encode([*prompt, *answer_segments(template, answer)]) for answer in answers]
        self._check_length(results, answers, encoded)
        shared = _shared(encoded)
        results["choices"], results["candidates"] = answers, [self._candidate(*each, shared) for each in encoded]
        results["candidate_tokens"] = [int((each["labels"] != IGNORE_INDEX).sum()) for each in results["candidates"]]
        results["input_ids"] = torch.tensor(encoded[0][0][:shared])
        results["labels"] = torch.full_like(results["input_ids"], IGNORE_INDEX)
        results["image_tokens"] = self.tokenize.count_images(results["input_ids"])
        return results

    def _candidate(self, ids: list[int], labels: list[int], shared: int) -> dict:
        learned = sum(label != IGNORE_INDEX for label in labels)
        weight = 1 / learned if self.per_token else 1.0
        return {"ids": torch.tensor(ids[shared:]), "labels": torch.tensor(labels[shared:]), "weight": weight}

    def _check_length(self, results: dict, answers: Sequence[str], encoded: Sequence[tuple[list, list]]) -> None:
        for answer, (ids, _) in zip(answers, encoded, strict=True):
            if len(ids) > self.tokenize.max_length:
                limit = f"{len(ids)} tokens with the answer {answer!r}, the limit is {self.tokenize.max_length}"
                raise SampleError(limit, SampleLocation.of(results))


def _shared(encoded: Sequence[tuple[list[int], list[int]]]) -> int:
    """How many tokens all encoded texts begin with, before any of them has an answer."""
    before = min(next(i for i, label in enumerate(labels) if label != IGNORE_INDEX) for _, labels in encoded)
    same = takewhile(lambda column: len(set(column)) == 1, zip(*(ids for ids, _ in encoded), strict=False))
    return min(before, sum(1 for _ in same))
