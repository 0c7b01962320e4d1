"""Rules by which benchmarks score predictions, found by name in the registry SCORES."""

import inspect
from collections.abc import Callable, Sequence

from mmgpt.compat.python_names import warn_renamed
from mmgpt.evaluation.metrics.answers import mean
from mmgpt.registry import SCORES


class Rule:
    """Base class of a scoring rule that gives more than the mean of one score per sample.

    For a plain accuracy a function is enough: from a sample, with its `prediction`, to its score from 0 to 1, or to
    None where the benchmark leaves the sample out. Both are registered by name:

        @SCORES.register_module("starts_alike")
        def starts_alike(sample):
            return float(sample["prediction"][:3] == sample["answer"][:3])

    Attributes:
        package: name of the package that the rule needs, or None.
        scores_samples: whether the rows of `score_sample` have a `score`, from 0 to 1.
    """

    package: str | None = None
    scores_samples = True

    def __init_subclass__(cls) -> None:
        if "judge" in vars(cls):
            warn_renamed(f"{cls.__name__}.judge", "score_sample")
            cls.score_sample = cls.judge

    def score_sample(self, sample: dict) -> dict | None:
        """The row of a sample, from which `summarize` computes scores; None when the benchmark leaves the sample out.

        Before anything is answered, each sample is scored with an empty prediction, to find those that lack references.

        Raises:
            ValueError: the sample has no references to score by; names the sample.
        """
        raise NotImplementedError

    def summarize(self, rows: Sequence[dict]) -> dict[str, float]:
        """Scores by name of at least one row of `score_sample`."""
        return {"accuracy": 100 * mean([row["score"] for row in rows])}

    def warn(self) -> None:
        """Log which scores will be missing, if any."""


class AccuracyRule(Rule):
    """Accuracy in percent: the mean of a function's scores.

    Args:
        score: function from a sample to its score from 0 to 1, or to None.
    """

    def __init__(self, score: Callable[[dict], float | None]):
        self.score = score

    def score_sample(self, sample: dict) -> dict | None:
        """The score of a sample."""
        score = self.score(sample)
        return None if score is None else {"score": score}


def find_rule(name: str) -> Rule:
    """The scoring rule of a name.

    Raises:
        ValueError: unknown name; lists the choices.
    """
    SCORES.import_from_location()
    if name not in SCORES.module_dict:
        raise ValueError(
            f"unknown rule {name!r}; choose one of {', '.join(sorted(SCORES.module_dict))} "
            "(a rule from outside the package has to be imported first, by custom_imports, or --custom-imports)"
        )
    registered = SCORES.module_dict[name]
    return AccuracyRule(registered) if inspect.isfunction(registered) else registered()
