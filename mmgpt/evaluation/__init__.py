"""Answers of a model over test data, metrics on them, and a few of them during training."""

from mmgpt.evaluation.answers_hook import AnswersHook
from mmgpt.evaluation.loop import EvaluationLoop
from mmgpt.evaluation.metrics import AnswerAccuracy, BenchmarkScores, Perplexity, VQALeaderboardFile

__all__ = ["AnswerAccuracy", "AnswersHook", "BenchmarkScores", "EvaluationLoop", "Perplexity", "VQALeaderboardFile"]
