"""Candidate answers as tokens after a prompt."""

from collections.abc import Sequence
from itertools import takewhile

import torch

from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.errors import SampleError, SampleLocation

ANSWER_SOURCES = {"choices": lambda results: results["choices"], "answer": lambda results: [results["answer"]]}


@TRANSFORMS.register_module()
class AddCandidates:
    """Encodes the answers that a model scores by their likelihood, instead of generating one.

    Follows TokenizeSegments, with an open prompt. Adds `candidates`, for each answer what follows `input_ids`: `ids`
    and `labels`, int64 (S,), the latter -100 for tokens that do not count, and the `weight` of its score; `choices`,
    the answers as texts; `candidate_tokens`, the number of tokens of each that count. `input_ids` becomes the common
    prefix of the texts with all answers.

    Args:
        tokenize: config of the pipeline's TokenizeSegments.
        answers: list of texts; or 'choices' for the choices of the question, or 'answer' for its right answer alone
            (see Perplexity).
        per_token: divide the log-likelihood of an answer by the number of its tokens.

    Raises:
        SampleError: no answers to choose from, or one of them is empty, a duplicate, or too long.
    """

    def __init__(self, tokenize: dict, answers: Sequence[str] | str = "choices", per_token: bool = False):
        self.tokenize = TRANSFORMS.build(tokenize)
        if isinstance(answers, str) and answers not in ANSWER_SOURCES:
            raise ValueError(f"answers={answers!r}: choose among {', '.join(ANSWER_SOURCES)}, or give a list of texts")
        self.answers, self.per_token = answers, per_token

    def candidate_answers(self, results: dict) -> list[str]:
        """Answers to choose from, by the results of FormatPrompt. Raises a SampleError as the transform does."""
        answers = ANSWER_SOURCES[self.answers](results) if isinstance(self.answers, str) else self.answers
        if not answers or not all(answers) or len(set(answers)) < len(answers):
            raise SampleError(f"cannot choose among the answers {answers!r}", SampleLocation.of(results))
        return list(answers)

    def __call__(self, results: dict) -> dict:
        answers = self.candidate_answers(results)
        # Answers before the last one, of a dialogue or of examples, are part of the prompt.
        encoded = [self.tokenize.encode(results["with_answer"](answer)) for answer in answers]
        for answer, (ids, _) in zip(answers, encoded, strict=True):
            if len(ids) > self.tokenize.max_length:
                reason = f"{len(ids)} tokens with the answer {answer!r}, the limit is {self.tokenize.max_length}"
                raise SampleError(reason, SampleLocation.of(results))
        # The common prefix ends where the answer of any text begins.
        prompt_length = min(next(i for i, label in enumerate(labels) if label != IGNORE_INDEX) for _, labels in encoded)
        equal = takewhile(lambda column: len(set(column)) == 1, zip(*(ids for ids, _ in encoded), strict=False))
        prefix = min(prompt_length, sum(1 for _ in equal))
        results["choices"], results["candidates"], results["candidate_tokens"] = answers, [], []
        for ids, labels in encoded:
            count = sum(label != IGNORE_INDEX for label in labels)
            weight = 1 / count if self.per_token else 1.0
            ids, labels = torch.tensor(ids[prefix:]), torch.tensor(labels[prefix:])
            results["candidates"].append({"ids": ids, "labels": labels, "weight": weight})
            results["candidate_tokens"].append(count)
        results["input_ids"] = torch.tensor(encoded[0][0][:prefix])
        results["labels"] = torch.full_like(results["input_ids"], IGNORE_INDEX)
        results["image_tokens"] = self.tokenize.count_images(results["input_ids"])
        return results
