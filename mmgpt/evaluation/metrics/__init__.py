"""The metrics that a config can name, and the scoring rules of benchmarks."""

from mmgpt.evaluation.metrics import caption, choice, vqa, yes_no  # noqa: F401 (they register their scoring rules)
from mmgpt.evaluation.metrics.answers import AnswerAccuracy
from mmgpt.evaluation.metrics.benchmark import BenchmarkScores
from mmgpt.evaluation.metrics.leaderboard import VQALeaderboardFile
from mmgpt.evaluation.metrics.perplexity import Perplexity

__all__ = ["AnswerAccuracy", "BenchmarkScores", "Perplexity", "VQALeaderboardFile"]
