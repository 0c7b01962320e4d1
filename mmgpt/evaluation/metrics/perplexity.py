"""Perplexity of right answers."""

import math
from collections.abc import Iterable, Sequence

from mmengine.evaluator import BaseMetric

from mmgpt.registry import METRICS


@METRICS.register_module()
class Perplexity(BaseMetric):
    """Mean loss of the tokens of last answers (natural logarithm), its exponential, their number; by dataset too.

    For samples whose only candidate is the right answer: AddCandidates(answers="answer").

    Args:
        collect_device, prefix, collect_dir: those of MMEngine's BaseMetric.
    """

    default_prefix = "language"

    def check(self, samples: Iterable[dict]) -> None:
        """Raises a ValueError that names a sample whose answer is not its only candidate."""
        for sample in samples:
            _check_single(sample, "candidates")

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Takes the log-likelihoods of a batch's answers from its samples; ``data_batch`` is not used."""
        for sample in data_samples:
            _check_single(sample, "scores")
            self.results.append((sample["dataset"], sample["scores"][0], sample["candidate_tokens"][0]))

    def compute_metrics(self, results: list[tuple[str, float, int]]) -> dict[str, float]:
        """Losses and perplexities."""
        if not results:
            raise ValueError("Perplexity: there is no answer to score; the test data is empty")
        scores = _summary(results)
        for name in dict.fromkeys(name for name, _, _ in results):
            summary = _summary([row for row in results if row[0] == name])
            scores |= {f"{name}/{key}": value for key, value in summary.items()}
        return scores


def _check_single(sample: dict, key: str) -> None:
    """Raises a ValueError that names a sample without exactly one candidate or score."""
    if len(sample.get(key, ())) != 1:
        name = f"sample {sample['id']!r} of dataset {sample['dataset']!r}"
        raise ValueError(
            f'{name} does not have one score, that of its answer: use "${{likelihood_steps}}" in its pipeline'
        )


def _summary(rows: Sequence[tuple[str, float, int]]) -> dict[str, float]:
    tokens = sum(count for _, _, count in rows)
    loss = -sum(score for _, score, _ in rows) / tokens
    return {"loss": loss, "perplexity": math.exp(loss), "tokens": tokens}
