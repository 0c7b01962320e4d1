"""All components of this package that a config can name: importing this module registers them."""

from .evaluation_loop import EvaluationLoop
from .hooks.answers import AnswersHook
from .hooks.checkpoint import TrainableCheckpointHook
from .hooks.compile import CompileHook
from .hooks.dropped_samples import DroppedSamplesHook
from .hooks.model_summary import ModelSummaryHook
from .hooks.nonfinite import NonFiniteHook
from .hooks.progress_bar import ProgressBarHook
from .hooks.step_info import StepInfoHook
from .hooks.stop_on_signal import StopOnSignalHook
from .hooks.strict_loading import StrictLoadingHook
from .hooks.throughput import ThroughputHook
from .hooks.zero_gradients import ZeroGradientsHook
from .loops import ResumableEpochLoop
from .optim import TrainableOptimWrapperConstructor
from .parallel.ddp import UnusedParamsDDP
from .parallel.fsdp import ShardedDataParallel

__all__ = [
    "AnswersHook",
    "CompileHook",
    "DroppedSamplesHook",
    "EvaluationLoop",
    "ModelSummaryHook",
    "NonFiniteHook",
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
