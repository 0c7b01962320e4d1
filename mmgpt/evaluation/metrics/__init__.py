"""The metrics that a config can name."""

from mmgpt.evaluation.metrics.answers import AnswerAccuracy
from mmgpt.evaluation.metrics.benchmark import BenchmarkScores
from mmgpt.evaluation.metrics.leaderboard import VQALeaderboardFile
from mmgpt.evaluation.metrics.perplexity import Perplexity

__all__ = ["AnswerAccuracy", "BenchmarkScores", "Perplexity", "VQALeaderboardFile"]
