"""What MMEngine needs around it: reading configs, resumable training, small and safe checkpoints, launching."""

from .checkpoint import TrainedCheckpointHook, load_trained, trained_state
from .config import load_config
from .display import PartsTableHook, ThroughputHook
from .files import check_files
from .loops import ResumableEpochLoop
from .nonfinite import NonFiniteHook
from .optim import TrainedOptimWrapperConstructor
from .progress import ProgressBarHook
from .signals import StopOnSignalHook

__all__ = [
    "NonFiniteHook",
    "PartsTableHook",
    "ProgressBarHook",
    "ResumableEpochLoop",
    "StopOnSignalHook",
    "ThroughputHook",
    "TrainedCheckpointHook",
    "TrainedOptimWrapperConstructor",
    "check_files",
    "load_config",
    "load_trained",
    "trained_state",
]
