"""Weights of Flamingo's parts on disk, in the layouts that the real ones come in.

A base is a folder of three: `language/` (Hugging Face, with the tokenizer), `vision/` (open_clip: JSON and weights) and
`flamingo.safetensors` (the resampler and the gated blocks, under the names of our model). OpenFlamingo's own file is
read as it is.
"""

import json
import re
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .vision import open_clip_name

GATED = ".gated."
# OpenFlamingo v1's names; the gated blocks are found under either of two.
PUBLISHED = (
    (
        re.compile(r"^lang_encoder\.model\.layers\.(\d+)\.gated_cross_attn_layer\."),
        r"language.model.model.layers.\1.gated.",
    ),
    (re.compile(r"^lang_encoder\.gated_cross_attn_layers\.(\d+)\."), r"language.model.model.layers.\1.gated."),
    (re.compile(r"^lang_encoder\."), "language.model."),
)


def our_name(name: str) -> str:
    """Our name of a tensor that an OpenFlamingo v1 checkpoint names; ours stay."""
    for pattern, replacement in PUBLISHED:
        name, found = pattern.subn(replacement, name)
        if found:
            break
    return name


def new_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What Flamingo adds to its two pretrained models, by name: the resampler and the gated blocks."""
    state = model.state_dict()
    return {name: value for name, value in state.items() if name.startswith("perceiver.") or GATED in name}


def load_parts(model: nn.Module, path: str) -> None:
    """Loads the resampler and the gated blocks (and the token embedding, where the file holds it).

    Args:
        model: a Flamingo.
        path: our `flamingo.safetensors`, or OpenFlamingo v1's `checkpoint.pt` (weights-only loading).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a tensor is missing, unknown or of another shape; names the file and the tensors.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights {path!r} for the resampler and the gated blocks")
    state = load_file(path) if path.endswith(".safetensors") else torch.load(path, "cpu", weights_only=True)
    given, known = {our_name(name): value for name, value in state.items()}, model.state_dict()
    problems = [f"missing {name}" for name in new_tensors(model) if name not in given]
    problems += [f"unknown {name}" for name in given if name not in known]
    problems += [
        f"{name} is {tuple(value.shape)}, the model has {tuple(known[name].shape)}"
        for name, value in given.items()
        if name in known and known[name].shape != value.shape
    ]
    if problems:
        raise ValueError(f"{path} does not fit the model: {'; '.join(problems[:8])} ({len(problems)} in all)")
    model.load_state_dict(given, strict=False)


def save_parts(model: nn.Module, path: str, dtype: torch.dtype = torch.float16) -> None:
    """Writes what `load_parts` reads."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: _stored(value, dtype) for name, value in new_tensors(model).items()}, path)


def save_language(model: nn.Module, folder: str, dtype: torch.dtype = torch.float16) -> None:
    """Writes the language model without its gated blocks, and the tokenizer, as a Hugging Face folder."""
    language = model.language.model
    state = {
        name.replace(".decoder.", "."): _stored(value, dtype)
        for name, value in language.state_dict().items()
        if GATED not in name
    }
    for name in language.all_tied_weights_keys if language.config.tie_word_embeddings else ():
        state.pop(name, None)
    Path(folder).mkdir(parents=True, exist_ok=True)
    language.config.save_pretrained(folder)
    language.generation_config.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    save_file(state, str(Path(folder) / "model.safetensors"), metadata={"format": "pt"})


def save_vision(vision: nn.Module, description: str, folder: str, dtype: torch.dtype = torch.float16) -> None:
    """Writes an OpenCLIPVision built from the JSON file `description` as a folder that open_clip loads.

    The text tower, which such a folder needs and Flamingo does not use, gets random weights.
    """
    clip = open_clip.create_model(open_clip_name(None, description), pretrained_text=False)
    state = clip.state_dict() | {f"visual.{name}": value for name, value in vision.tower.state_dict().items()}
    Path(folder).mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": json.loads(Path(description).read_text()), "preprocess_cfg": {}}
    (Path(folder) / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: _stored(value, dtype) for name, value in state.items()}
    save_file(state, str(Path(folder) / "open_clip_model.safetensors"))


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach()
    return (value.to(dtype) if value.is_floating_point() else value).contiguous()
