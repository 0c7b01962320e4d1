"""Answers of a model over a data loader, judged, and metrics on them."""

from mmgpt.evaluation.metrics import AnswerAccuracy

__all__ = ["AnswerAccuracy"]
