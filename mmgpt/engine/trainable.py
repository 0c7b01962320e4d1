"""The trainable tensors of a model and their optimizer states, as checkpoints hold them: whole or as shards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.distributed.tensor import DTensor

from mmgpt.models.weights.sharded import write_shards
from mmgpt.models.weights.trainable import trainable_names

from .parallel.fsdp import ShardedDataParallel, shard_like, unshard


def unwrap_model(runner: Runner) -> nn.Module:
    """The model of a run without its wrapper for distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def is_sharded(runner: Runner) -> bool:
    """Whether the model of a run is sharded over its processes."""
    return isinstance(runner.model, ShardedDataParallel)


@contextmanager
def trainable_state_dicts(runner: Runner, shards: Path | None = None) -> Iterator[None]:
    """Context manager during which the state dicts of model and optimizer hold trainable tensors only.

    The billions of frozen weights are not copied. All processes enter it, then the first one saves alone.
    Sharded tensors are gathered first; or, with a folder for `shards`, each process writes its shards there, and the
    state dicts do not have them.
    """
    model, optimizer = unwrap_model(runner), runner.optim_wrapper.optimizer
    if is_sharded(runner):
        # The first process makes state dicts alone, which works with sharded weights only.
        runner.model.gather_weights(False)
    names, optimizer_state = trainable_names(model), optimizer.state_dict()
    tensors = {name: value.detach() for name, value in model.named_parameters() if name in names}
    if shards is not None:
        # Sharded tensors are taken out of both states, under the names that `merge_shards` expects.
        sharded = {f"state_dict.{name}": tensors.pop(name) for name in [*tensors] if isinstance(tensors[name], DTensor)}
        optimizer_state["state"] = {index: dict(values) for index, values in optimizer_state["state"].items()}
        for index, values in optimizer_state["state"].items():
            dtensors = [name for name, value in values.items() if isinstance(value, DTensor)]
            sharded.update({f"optimizer.{index}.{name}": values.pop(name) for name in dtensors})
        write_shards(shards, sharded)
        names -= {name.removeprefix("state_dict.") for name in sharded}
    tensors, optimizer_state = unshard(tensors), unshard(optimizer_state)

    def keep_trainable(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
        for name in state.keys() - names:
            del state[name]
        state.update(tensors)

    handles = [
        model.register_state_dict_post_hook(keep_trainable),
        optimizer.register_state_dict_post_hook(lambda *_: optimizer_state),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if is_sharded(runner):
            runner.model.gather_weights(not runner.model.training)


def shard_states(state: dict, groups: Sequence[dict]) -> None:
    """Shard the states of an optimizer, which are in the order of its parameters, as the parameters are sharded."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    for index, values in state["state"].items():
        for name, value in values.items():
            if value.ndim:  # The count of steps is a scalar.
                values[name] = shard_like(value, parameters[index])
