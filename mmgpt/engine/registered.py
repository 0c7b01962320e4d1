"""All of this package that a config can name: what imports this module registers it."""

from .checkpoint import TrainedCheckpointHook
from .evaluation_loop import EvaluationLoop
from .global_batch import StepInfoHook
from .hooks.answers import AnswersHook
from .hooks.dropped_samples import LostAnswersHook
from .hooks.guards import StrictLoadingHook
from .hooks.model_summary import PartsTableHook, ThroughputHook
from .hooks.nonfinite import NonFiniteHook
from .hooks.progress_bar import ProgressBarHook
from .hooks.stop_on_signal import StopOnSignalHook
from .hooks.zero_gradients import ZeroGradientsHook
from .loops import ResumableEpochLoop
from .optim import TrainedOptimWrapperConstructor
from .parallel.ddp import UnevenDataParallel
from .parallel.fsdp import ShardedDataParallel

__all__ = [
    "AnswersHook",
    "EvaluationLoop",
    "LostAnswersHook",
    "NonFiniteHook",
    "PartsTableHook",
    "ProgressBarHook",
    "ResumableEpochLoop",
    "ShardedDataParallel",
    "StepInfoHook",
    "StopOnSignalHook",
    "StrictLoadingHook",
    "ThroughputHook",
    "TrainedCheckpointHook",
    "TrainedOptimWrapperConstructor",
    "UnevenDataParallel",
    "ZeroGradientsHook",
]
