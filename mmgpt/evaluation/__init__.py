"""Metrics on the answers that a model gave, and the breakdown of a report."""

from mmgpt.evaluation.metrics import AnswerAccuracy

__all__ = ["AnswerAccuracy"]
