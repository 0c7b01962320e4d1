"""The metrics that a config can name."""

from mmgpt.evaluation.metrics.answers import AnswerAccuracy

__all__ = ["AnswerAccuracy"]
