"""What a checkpoint holds of a model and its optimizer: what was trained, whole or in shards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mmgpt.models.weights.sharded import write_shards

from .parallel.fsdp import ShardedDataParallel, shard_like, whole


def bare_model(runner: Runner) -> nn.Module:
    """The model of a run without what distributed training wraps it in."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def trained_names(model: nn.Module) -> set[str]:
    """Names in ``model.state_dict()`` of what training changes: the parameters that require gradients, the persistent
    buffers of the modules that own such a parameter (running statistics), and all that LoRA put beside the weights, of
    which some variants train a part only (MiCA, VeLoRA)."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    # Without a state dict: the frozen weights of some precisions are put together for one.
    updates = {name for name, _ in model.named_parameters(remove_duplicate=False) if ".lora_" in name}
    for prefix, module in model.named_modules():
        buffers = (name for name, _ in module.named_buffers(recurse=False))
        kept = {name for name in buffers if name not in module._non_persistent_buffers_set}
        kept = {f"{prefix}.{name}" if prefix else name for name in kept}
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            names |= kept
        updates |= {name for name in kept if ".lora_" in name}
    return names | updates if names & updates else names


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The part of ``model.state_dict()`` that a checkpoint holds, see `trained_names`."""
    names = trained_names(model)
    return {name: value for name, value in model.state_dict().items() if name in names}


def is_sharded(runner: Runner) -> bool:
    """Whether the model of a run is shared between its processes."""
    return isinstance(runner.model, ShardedDataParallel)


@contextmanager
def saving_trained(runner: Runner, shards: Path | None = None) -> Iterator[None]:
    """Within it state dicts hold what was trained: the frozen billions are not copied to save a few.

    All processes enter it, then the first one saves alone. What is sharded is put together before; or, with a folder
    for `shards`, each process has written its part there, and the state dicts do without.
    """
    model, optimizer = bare_model(runner), runner.optim_wrapper.optimizer
    if is_sharded(runner):  # state dicts, which the first process makes alone, are of shards
        runner.model.hold_whole(False)
    names, learned = trained_names(model), optimizer.state_dict()
    tensors = {name: value.detach() for name, value in model.named_parameters() if name in names}
    if shards is not None:
        taken = _take_sharded(tensors, learned)
        write_shards(shards, taken)
        names -= {name.removeprefix("state_dict.") for name in taken}
    tensors, learned = whole(tensors), whole(learned)

    def trained(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
        for name in state.keys() - names:
            del state[name]
        state.update(tensors)

    handles = [
        model.register_state_dict_post_hook(trained),
        optimizer.register_state_dict_post_hook(lambda *_: learned),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if is_sharded(runner):
            runner.model.hold_whole(not runner.model.training)


def _take_sharded(tensors: dict[str, Tensor], learned: dict) -> dict[str, DTensor]:
    """Take the sharded tensors out of a model's and an optimizer's state, and name them as `merge_shards` expects."""
    found = {f"state_dict.{name}": tensors.pop(name) for name in [*tensors] if isinstance(tensors[name], DTensor)}
    learned["state"] = {place: dict(values) for place, values in learned["state"].items()}
    for place, values in learned["state"].items():
        own = [name for name, value in values.items() if isinstance(value, DTensor)]
        found.update({f"optimizer.{place}.{name}": values.pop(name) for name in own})
    return found


def shard_states(state: dict, groups: Sequence[dict]) -> None:
    """Let the states of an optimizer, which are in the order of its parameters, be sharded where those are."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    for place, values in state["state"].items():
        for name, value in values.items():
            if value.ndim:  # no count of steps
                values[name] = shard_like(value, parameters[place])
