"""All of this package that a config can name: what imports this module registers it."""

from .checkpoint import TrainableCheckpointHook
from .evaluation_loop import EvaluationLoop
from .global_batch import StepInfoHook
from .hooks.answers import AnswersHook
from .hooks.dropped_samples import DroppedSamplesHook
from .hooks.guards import StrictLoadingHook
from .hooks.model_summary import ModelSummaryHook
from .hooks.nonfinite import NonFiniteHook
from .hooks.progress_bar import ProgressBarHook
from .hooks.stop_on_signal import StopOnSignalHook
from .hooks.throughput import ThroughputHook
from .hooks.zero_gradients import ZeroGradientsHook
from .loops import ResumableEpochLoop
from .optim import TrainableOptimWrapperConstructor
from .parallel.ddp import UnusedParamsDDP
from .parallel.fsdp import ShardedDataParallel

__all__ = [
    "AnswersHook",
    "EvaluationLoop",
    "DroppedSamplesHook",
    "NonFiniteHook",
    "ModelSummaryHook",
    "ProgressBarHook",
    "ResumableEpochLoop",
    "ShardedDataParallel",
    "StepInfoHook",
    "StopOnSignalHook",
    "StrictLoadingHook",
    "ThroughputHook",
    "TrainableCheckpointHook",
    "TrainableOptimWrapperConstructor",
    "UnusedParamsDDP",
    "ZeroGradientsHook",
]
