"""Hook for runs that write no checkpoints, but load one."""

from mmengine.hooks import Hook

from mmgpt.registry import HOOKS

from .checkpoint import TrainableCheckpointHook


@HOOKS.register_module()
class StrictLoadingHook(Hook):
    """The strict loading of TrainableCheckpointHook, for a run that writes no checkpoints.

    A checkpoint that a user's code saves all the same holds the trainable tensors as plain data.
    """

    after_load_checkpoint = TrainableCheckpointHook.after_load_checkpoint
    before_save_checkpoint = TrainableCheckpointHook.before_save_checkpoint
