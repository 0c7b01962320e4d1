"""Strict loading of tensors into a model, with a log line of what was loaded."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .checks import is_finite, kind_of
from .names import KeyMap, component_of, new_tensors, our_names
from .reader import TARGETS, TUNING, read_weights, state_and_tuning

FRAME_EMBEDDINGS = "perceiver.frame_embs"
GATED_LAYER = re.compile(r"\.(\d+)\.gated(?:_cross_attn_layer)?\.|\.gated_cross_attn_layers\.(\d+)\.")


def check_fit(
    model: nn.Module, state: Mapping[str, Tensor], required: Iterable[str], allowed: Iterable[str], source: str
) -> None:
    """Raises a ValueError naming `source` unless a file's tensors are exactly those that a model can load.

    All required names must be there, no other than the allowed ones, and with the model's shapes. The model must be
    able to hold their values: integers for floats, or the reverse, are refused, and so are NaN and infinity. Floats of
    16, 32 and 64 bits are cast into each other.

    Args:
        model: model whose tensors have the shapes.
        state: the file's tensors under the model's names.
        required: names that the file must have.
        allowed: all names that it may have, the required ones among them.
        source: name of the file.
    """
    ours, required, allowed = model.state_dict(), set(required), set(allowed)
    common = {name: value for name, value in state.items() if name in allowed}
    fitting = {name: value for name, value in common.items() if ours[name].shape == value.shape}
    kinds = {}
    for name, value in fitting.items():
        # A file's tensor may be without values, or sparse.
        has_values = not value.is_meta and value.layout == torch.strided
        kind = kind_of(value.dtype) if has_values else "no values" if value.is_meta else f"{value.layout} values"
        kinds[name] = kind, kind_of(ours[name].dtype)
    problems = {
        "are missing in it": sorted(required - state.keys()),
        "are in it but not in the model": sorted(state.keys() - allowed),
        "have another shape": sorted(
            f"{name} {tuple(value.shape)} instead of {tuple(ours[name].shape)}"
            for name, value in common.items()
            if name not in fitting
        ),
        "hold another kind of numbers": sorted(
            f"{name} {kind} instead of {expected}" for name, (kind, expected) in kinds.items() if kind != expected
        ),
    }
    if not any(problems.values()):
        # The values are checked in the model's dtype, which may be too narrow for them.
        problems["hold NaN or infinite values"] = sorted(
            name for name, value in fitting.items() if not is_finite(value.to(ours[name].dtype))
        )
    lines = [
        f"  {len(names)} {problem}: {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
        for problem, names in problems.items()
        if names
    ]
    if not lines:
        return
    matches = filter(None, map(GATED_LAYER.search, state))
    theirs, gated = sorted({int(match[1] or match[2]) for match in matches}), KeyMap(model).gated
    if theirs and theirs != gated:
        lines.append(
            f"  its gated blocks stand before the layers {theirs}, the model's before {gated}: see gated.every_n_layers"
        )
    raise ValueError("\n".join([f"{source} does not belong to the model of this config:", *lines]))


def check_tuning(model: nn.Module, tuning: Mapping | None, source: str) -> None:
    """Raises a ValueError unless a LoRAModel has the rank, the scale and the layers that weights were trained with.

    The scale is in no tensor: with another lora_alpha the same tensors mean another model. Files of MultiModal-GPT,
    checkpoints and exported folders state rank and scale. Exported folders state the layers too, which are compared by
    the modules that their patterns match.
    """
    if not tuning:
        return
    if not hasattr(model, "peft"):
        raise ValueError(f"{source} holds LoRA weights, but the model of this config has no LoRA")
    config = model.peft.peft_config["default"]
    for key, field in TUNING.items():
        if key in tuning and (tuning[key] or None) != (getattr(config, field) or None):
            raise ValueError(
                f"{source} was trained with {key}={tuning[key]}, this config has lora.{field}={getattr(config, field)}"
            )

    targets = {field: tuning[field] for field in TARGETS if field in tuning}
    try:
        differing = sorted(model.layers_taken() ^ model.layers_taken(**targets))
    except (TypeError, re.error) as error:
        raise ValueError(f"{source}: {targets} names no layers: {error}") from error
    if differing:
        field = next(field for field in targets if _sorted(targets[field]) != _sorted(getattr(config, field)))
        theirs, ours = _sorted(targets[field]), _sorted(getattr(config, field))
        raise ValueError(f"{source} was trained with {field}={theirs}, this config has {ours} ({differing[0]} differs)")


def _sorted(value: object) -> object:
    """A set, or another collection of names, as a sorted list, for comparison and for messages."""
    return sorted(value) if isinstance(value, (set, list, tuple)) else value


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads checked tensors into a model, whose other tensors stay, and logs what was loaded."""
    model.load_state_dict(state, strict=False)
    log_loaded(model, state, source)


def log_loaded(model: nn.Module, names: Iterable[str], source: str) -> None:
    """Logs in one line how many tensors of each component came from `source`, and where the others come from."""
    others = [name for name in model.state_dict() if name not in names]
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    initial = [name for name in others if name in trainable]
    print_log(
        f"{source}: loaded {_counts(names)}; not in it: frozen, with pretrained weights "
        f"{_counts(set(others) - trainable)}; trainable, with initial weights {_counts(initial)}",
        "current",
    )


def _counts(names: Iterable[str]) -> str:
    """Number of tensors of each component: '40 of gated blocks, 12 of perceiver'."""
    counts = Counter(component_of(name) for name in names)
    return ", ".join(f"{count} of {component}" for component, count in sorted(counts.items())) or "none"


def load_components(model: nn.Module, path: str) -> None:
    """Loads the resampler and the gated blocks (and the token embedding, where the file holds it).

    Embeddings of frames that the file lacks begin at zero, so that tiles can be added to weights without them.

    Args:
        model: a Flamingo.
        path: our `flamingo.safetensors`, or OpenFlamingo's `checkpoint.pt` (weights-only loading).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a tensor is missing, unknown or of another shape; names the file and the tensors.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights {path!r} for the resampler and the gated blocks")
    state, _ = state_and_tuning(read_weights(path), path)
    state = our_names(model, state, path)
    required = new_tensors(model)
    if FRAME_EMBEDDINGS in required and FRAME_EMBEDDINGS not in state:
        required.pop(FRAME_EMBEDDINGS).zero_()
    check_fit(model, state, required, model.state_dict(), path)
    load_state(model, state, path)
