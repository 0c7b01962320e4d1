"""What MMEngine needs around it: reading configs, resumable training, small and safe checkpoints, launching."""

from .checkpoint import TrainedCheckpointHook, load_trained
from .config import load_config
from .display import PartsTableHook, ThroughputHook
from .distributed import UnevenDataParallel
from .files import check_files
from .global_batch import StepInfoHook
from .loops import ResumableEpochLoop
from .nonfinite import NonFiniteHook
from .optim import TrainedOptimWrapperConstructor
from .progress import ProgressBarHook
from .sharding import ShardedDataParallel
from .signals import StopOnSignalHook
from .trained import trained_state

__all__ = [
    "NonFiniteHook",
    "PartsTableHook",
    "ProgressBarHook",
    "ResumableEpochLoop",
    "ShardedDataParallel",
    "StepInfoHook",
    "StopOnSignalHook",
    "ThroughputHook",
    "TrainedCheckpointHook",
    "TrainedOptimWrapperConstructor",
    "UnevenDataParallel",
    "check_files",
    "load_config",
    "load_trained",
    "trained_state",
]
