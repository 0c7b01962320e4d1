"""Answers of a model over a data loader, judged, and metrics on them."""

from mmgpt.evaluation.metrics import AnswerAccuracy, BenchmarkScores, VQALeaderboardFile

__all__ = ["AnswerAccuracy", "BenchmarkScores", "VQALeaderboardFile"]
