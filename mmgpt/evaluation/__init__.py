"""Evaluation: answering the test data, metrics, and reading and comparing saved results."""

from mmgpt.evaluation.metrics import AnswerAccuracy, BenchmarkScores, Perplexity, VQALeaderboardFile

__all__ = ["AnswerAccuracy", "BenchmarkScores", "Perplexity", "VQALeaderboardFile"]
