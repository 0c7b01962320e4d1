"""What MMEngine needs around it: reading configs, resumable training, small and safe checkpoints, launching."""

from .checkpoint import TrainedCheckpointHook, load_trained, trained_state
from .config import load_config
from .distributed import UnevenDataParallel
from .files import check_files
from .global_batch import StepInfoHook
from .loops import ResumableEpochLoop
from .optim import TrainedOptimWrapperConstructor
from .progress import ProgressBarHook

__all__ = [
    "ProgressBarHook",
    "ResumableEpochLoop",
    "StepInfoHook",
    "TrainedCheckpointHook",
    "TrainedOptimWrapperConstructor",
    "UnevenDataParallel",
    "check_files",
    "load_config",
    "load_trained",
    "trained_state",
]
