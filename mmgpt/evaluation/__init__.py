"""Answers of a model over test data, metrics on them, and a few of them during training."""

from mmgpt.evaluation.metrics import AnswerAccuracy, BenchmarkScores, Perplexity, VQALeaderboardFile

__all__ = ["AnswerAccuracy", "BenchmarkScores", "Perplexity", "VQALeaderboardFile"]
