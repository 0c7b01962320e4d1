"""All of this package that a config can name: what imports this module registers it."""

from .checkpoint import TrainedCheckpointHook
from .display import PartsTableHook, ThroughputHook
from .distributed import UnevenDataParallel
from .global_batch import StepInfoHook
from .hooks import StrictLoadingHook
from .loops import ResumableEpochLoop
from .nonfinite import NonFiniteHook
from .optim import TrainedOptimWrapperConstructor
from .progress import ProgressBarHook
from .sharding import ShardedDataParallel
from .signals import StopOnSignalHook
from .zero_gradients import ZeroGradientsHook

__all__ = [
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
