"""Answers of a model over test data, and metrics on them."""

from mmgpt.evaluation.loop import EvaluationLoop
from mmgpt.evaluation.metrics import AnswerAccuracy, BenchmarkScores, Perplexity, VQALeaderboardFile

__all__ = ["AnswerAccuracy", "BenchmarkScores", "EvaluationLoop", "Perplexity", "VQALeaderboardFile"]
