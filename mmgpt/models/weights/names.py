"""Weights of a model from files in any known layout: names, strict loading, and a report of what was loaded.

Layouts: our own names (`flamingo.safetensors`, the checkpoints of tools/train.py), OpenFlamingo v1 and v2, and
MultiModal-GPT's LoRA files.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmgpt.models.gated_lm import GatedDecoderLayer

from .reader import TARGETS, TUNING, is_finite, kind_of, read_weights, state_and_tuning

GATED = ".gated."
# What peft puts into names, differently in a model and in a file.
WRAPPERS = (
    (re.compile(r"^(peft\.)?base_model\.model\."), ""),
    # Of a layer inside an update; where two parameters of one module have updates, the inner one's name keeps it.
    (re.compile(r"\.base_layer(?=\.)(?!\.(base_layer\.)*lora_)"), ""),
    (re.compile(r"(\.(lora_|trainable_tokens_)\w+)\.default(?=\.|$)"), r"\1"),
    (re.compile(r"(lora_magnitude_vector)\.weight$"), r"\1"),
)
# What OpenFlamingo and MultiModal-GPT call the language model, its decoder layers and the gated blocks between them.
PUBLISHED = (
    (re.compile(r"^lang_encoder\.(base_model\.model\.)?"), "language.model."),
    (re.compile(r"\.gated_cross_attn_layer\."), ".gated."),
    (re.compile(r"(\.\d+)\.decoder_layer\."), r"\1."),
)
# Both lists also stand beside the decoder layers in files of the published code.
LISTED = re.compile(r"^language\.model\.(gated_cross_attn_layers|old_decoder_blocks)\.(\d+)\.")
BLOCK = re.compile(r"\.(\d+)\.gated(?:_cross_attn_layer)?\.|\.gated_cross_attn_layers\.(\d+)\.")


def plain_name(name: str) -> str:
    """A tensor's name in one of our models, without what LoRA and the gated blocks put around a frozen layer."""
    for pattern, instead in WRAPPERS:
        name = pattern.sub(instead, name)
    return name


class Names:
    """The names of a model's tensors, to be found under any layout's name.

    Args:
        model: a Flamingo, or a LoRAModel around one.
    """

    def __init__(self, model: nn.Module):
        wrapped = [name for name, module in model.named_modules() if isinstance(module, GatedDecoderLayer)]
        self.wrapped = [plain_name(f"{name}.") for name in wrapped]
        # 'language.model.model.layers' from 'language.model.model.layers.3.'
        self.layers = self.wrapped[0].rsplit(".", 2)[0] if wrapped else None
        self.own = {self._unwrapped(plain_name(name)): name for name in model.state_dict()}

    @property
    def gated(self) -> list[int]:
        """Numbers of the decoder layers that have a gated block before them."""
        return [int(name.split(".")[-2]) for name in self.wrapped]

    def find(self, name: str) -> str:
        """Our name of a file's tensor; the name itself where there is none."""
        plain = plain_name(name)
        for pattern, instead in PUBLISHED:
            plain = pattern.sub(instead, plain)
        listed = LISTED.match(plain)
        if listed:
            block = "gated." if listed[1].startswith("gated") else ""
            plain = f"{self.layers}.{listed[2]}.{block}{plain[listed.end() :]}"
        return self.own.get(self._unwrapped(plain), name)

    def _unwrapped(self, plain: str) -> str:
        for layer in self.wrapped:
            if plain.startswith(f"{layer}decoder."):
                return layer + plain.removeprefix(f"{layer}decoder.")
        return plain


def published_name(name: str, names: Names) -> str:
    """The name of one of our tensors in OpenFlamingo v1 and MultiModal-GPT, which wrap every decoder layer."""
    inner = name.removeprefix("peft.base_model.model.").replace(".base_layer.", ".")
    root = "lang_encoder.base_model.model." if ".lora_" in name else "lang_encoder."
    layer = re.match(rf"{re.escape(names.layers)}\.\d+\.", inner)
    if layer:
        rest = inner[layer.end() :]
        block = "gated_cross_attn_layer." if rest.startswith("gated.") else "decoder_layer."
        inner = layer[0] + block + rest.removeprefix("gated.").removeprefix("decoder.")
    return inner.replace("language.model.", root, 1) if inner.startswith("language.model.") else inner


def our_names(model: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A file's tensors under the model's names; unknown ones keep theirs.

    Raises:
        ValueError: two names of the file mean one tensor and differ in it (a file with both of OpenFlamingo's names for
            the gated blocks is fine when they agree).
    """
    names, given = Names(model), {}
    for name, value in state.items():
        ours = names.find(name)
        if ours in given and not torch.equal(given[ours], value):
            raise ValueError(f"{source} holds two different tensors for {ours}, one of them as {name}")
        given[ours] = value
    return given


def check_fit(
    model: nn.Module, given: Mapping[str, Tensor], needed: Iterable[str], known: Iterable[str], source: str
) -> None:
    """Raises a ValueError naming `source` unless `given` has all that is needed, nothing unknown, and every shape.

    Neither are values taken that a model cannot hold: integers for floats, or the reverse, NaN and infinity. Floats of
    16, 32 and 64 bits are cast into each other.

    Args:
        model: whose tensors have the shapes.
        given: the file's tensors under the model's names.
        needed: names that the file must have.
        known: names that it may have: those, and more.
        source: the file.
    """
    state, known, needed = model.state_dict(), set(known), set(needed)
    shapes = [
        f"{name} {tuple(value.shape)} instead of {tuple(state[name].shape)}"
        for name, value in given.items()
        if name in known and state[name].shape != value.shape
    ]
    fitting = {name: value for name, value in given.items() if name in known and state[name].shape == value.shape}
    kinds = [
        f"{name} {_kind(value)} instead of {kind_of(state[name].dtype)}"
        for name, value in fitting.items()
        if _kind(value) != kind_of(state[name].dtype)
    ]
    problems = {
        "are missing in it": sorted(needed - given.keys()),
        "are in it but not known here": sorted(given.keys() - known),
        "have another shape": sorted(shapes),
        "hold another kind of numbers": sorted(kinds),
    }
    if not any(problems.values()):  # as the model will hold them: a dtype may be too narrow for a value
        problems["hold NaN or infinite values"] = sorted(
            name for name, value in fitting.items() if not is_finite(value.to(state[name].dtype))
        )
    lines = [
        f"  {len(names)} {what}: {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
        for what, names in problems.items()
        if names
    ]
    if lines:
        hint = _interval_hint(model, given)
        raise ValueError("\n".join([f"{source} does not belong to the model of this config:", *lines, *hint]))


def _kind(value: Tensor) -> str:
    """As `kind_of`, of a file's tensor, which may also hold no values, or some only."""
    if value.is_meta or value.layout != torch.strided:
        return "no values" if value.is_meta else f"{value.layout} values"
    return kind_of(value.dtype)


def _interval_hint(model: nn.Module, given: Iterable[str]) -> list[str]:
    ours, found = Names(model).gated, filter(None, map(BLOCK.search, given))
    theirs = sorted({int(match[1] or match[2]) for match in found})
    if not theirs or theirs == ours:
        return []
    return [f"  its gated blocks stand before the layers {theirs}, the model's before {ours}: see gated.every_n_layers"]


def check_tuning(model: nn.Module, tuning: Mapping | None, source: str) -> None:
    """Raises a ValueError unless a LoRAModel has the rank, the scale and the layers that weights were trained with.

    Files of MultiModal-GPT, checkpoints and exported folders say rank and scale. The scale is in no tensor: with
    another lora_alpha the same tensors mean another model. Exported folders say the layers, which are compared by what
    their lists reach.
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

    told = {field: tuning[field] for field in TARGETS if field in tuning}
    try:
        differ = sorted(model.layers_taken() ^ model.layers_taken(**told))
    except (TypeError, re.error) as error:
        raise ValueError(f"{source}: {told} names no layers: {error}") from error
    if differ:
        field = next(field for field in told if _listed(told[field]) != _listed(getattr(config, field)))
        theirs, own = _listed(told[field]), _listed(getattr(config, field))
        raise ValueError(f"{source} was trained with {field}={theirs}, this config has {own} ({differ[0]} differs)")


def _listed(value: object) -> object:
    """A set, or another collection of names, as a sorted list, for comparison and for people."""
    return sorted(value) if isinstance(value, (set, list, tuple)) else value


def load_state(model: nn.Module, given: Mapping[str, Tensor], source: str) -> None:
    """Puts checked tensors into the model, which keeps its other ones, and logs what was loaded."""
    model.load_state_dict(given, strict=False)
    log_loaded(model, given, source)


def log_loaded(model: nn.Module, given: Iterable[str], source: str) -> None:
    """One line: how many tensors of each part came from `source`, which are frozen, and which start anew."""
    rest = [name for name in model.state_dict() if name not in given]
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    new = [name for name in rest if name in trained]
    print_log(
        f"{source}: loaded {_parts(given)}; not in it: frozen, with their own weights {_parts(set(rest) - trained)}; "
        f"trained, as they were initialised {_parts(new)}",
        "current",
    )


def _parts(names: Iterable[str]) -> str:
    """'12 of the resampler, 40 of gated blocks': how many tensors of each part."""
    counts = Counter(part_of(name) for name in names)
    return ", ".join(f"{count} of {part}" for part, count in sorted(counts.items())) or "none"


def part_of(name: str) -> str:
    """The part of a model that a tensor belongs to: 'LoRA', 'gated blocks', or as its first module is called."""
    name = plain_name(name)
    if ".lora_" in name:
        return "LoRA"
    return "gated blocks" if GATED in name else name.split(".")[0]


def new_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What Flamingo adds to its two pretrained models, by name: the resampler and the gated blocks."""
    state = model.state_dict()
    return {name: value for name, value in state.items() if name.startswith("perceiver.") or GATED in name}


def load_parts(model: nn.Module, path: str) -> None:
    """Loads the resampler and the gated blocks (and the token embedding, where the file holds it).

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
    given = our_names(model, state, path)
    check_fit(model, given, new_tensors(model), model.state_dict(), path)
    load_state(model, given, path)
