"""A model's tensors by name and shape, without weights: built on torch's meta device from the base's config files."""

import inspect
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.logging import print_log
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

from mmgpt.cli.config import flamingo_config
from mmgpt.cli.files import TOKENIZER, read_settings
from mmgpt.models.components import build_encoder
from mmgpt.registry import MODELS
from mmgpt.utils.hub import local_folder

# Text encoder of open_clip's models, as small as possible, since Flamingo drops it.
SMALL_TEXT = dict(context_length=4, vocab_size=8, width=16, heads=1, layers=1)


def build_without_weights(cfg: Mapping) -> nn.Module:
    """The model of an experiment's config, with tensors that have a shape and no values.

    Its sizes are those of the base's own small files: config.json of the language model, and what describes the image
    encoder. Where a file is missing whose content can be assumed, a warning says what is assumed.

    Args:
        cfg: as `load_config` gives it; its `model` is a Flamingo or a LoRAModel around one.

    Raises:
        FileNotFoundError: a file is missing, by its path and where to get it.
    """
    flamingo, sources = flamingo_config(cfg), cfg.get("sources") or {}
    with tempfile.TemporaryDirectory() as folder, torch.device("meta"):
        vision = _vision(flamingo["vision"], sources, folder)
        language = _language(flamingo["language"], sources, folder)
        flamingo = {**flamingo, "vision": vision, "language": language, "weights": None}
        # A cache is compared with an encoder that has weights (see `Sizes.features`).
        flamingo["feature_cache"] = None
        return MODELS.build({**cfg["model"], "module": flamingo} if "module" in cfg["model"] else flamingo)


def vision_without_weights(vision: Mapping) -> nn.Module:
    """The image encoder of a config, see `build_without_weights`."""
    with tempfile.TemporaryDirectory() as folder, torch.device("meta"):
        return build_encoder(_vision(vision, {}, folder))


def image_side(vision: nn.Module) -> tuple[int, int]:
    """Height and width of an image encoder's images, in pixels."""
    if not hasattr(vision, "image_size"):
        raise ValueError(f"{type(vision).__name__}: the size of its images is unknown (no image_size)")
    return tuple(vision.image_size)


def _vision(vision: Mapping, sources: Mapping, folder: str) -> dict:
    """The config of the same image encoder without its weights."""
    kind = vision["type"] if isinstance(vision["type"], str) else vision["type"].__name__
    if kind.rpartition(".")[2] != "OpenCLIPVision":
        own = dict(vision)
        dtype = own.pop("dtype", None)
        return dict(type=_build_encoder, vision=own, sources=sources, dtype=dtype)
    settings = {key: value for key, value in vision.items() if key not in ("path", "pretrained")}
    if vision.get("path") is None:
        return settings
    path = Path(local_folder(vision["path"], weights=False))
    file = path / "open_clip_config.json"
    if file.is_file():
        description = {**read_settings(file)["model_cfg"], "text_cfg": SMALL_TEXT}
        description.pop("multimodal_cfg", None)
        # open_clip knows a description by the name of its file.
        model = Path(folder) / f"{path.name}-{abs(hash(str(path.resolve())))}.json"
        model.write_text(json.dumps(description))
        return {**settings, "model": str(model)}
    import open_clip

    if path.name not in open_clip.list_models():
        raise FileNotFoundError(_missing(file, "the image encoder", sources.get(str(path))))
    _warn(f"{file} is missing: open_clip's own description of {path.name} is assumed")
    # OpenAI's weights have the quick form of GELU, which takes as much memory.
    return {**settings, "model": path.name}


def _build_encoder(vision: Mapping, sources: Mapping) -> nn.Module:
    """An image encoder of another kind on the meta device, built on the CPU: some constructors run the encoder."""
    path = vision.get("path")
    constructor = MODELS.get(vision["type"]) if isinstance(vision["type"], str) else vision["type"]
    if "pretrained" in inspect.signature(constructor).parameters:
        vision = {**vision, "pretrained": False}
        file = Path(local_folder(path, weights=False)) / "config.json" if path else None
        if file and not file.is_file():
            raise FileNotFoundError(_missing(file, "the image encoder", sources.get(path)))
    elif path:
        vision = {key: value for key, value in vision.items() if key != "path"}
    with torch.device("cpu"):
        return MODELS.build(vision).to("meta")


def _language(language: Mapping, sources: Mapping, folder: str) -> dict:
    """The arguments of the same language model without its weights, which are not quantized either."""
    path = Path(local_folder(language["path"], weights=False))
    settings = language.get("config") or read_settings(path / "config.json")
    if not settings:
        raise FileNotFoundError(_missing(path / "config.json", "the language model", sources.get(str(path))))
    if not any((path / name).is_file() for name in TOKENIZER):
        vocabulary = settings.get("vocab_size") or settings.get("text_config", {}).get("vocab_size")
        if vocabulary is None:
            raise FileNotFoundError(_missing(path / TOKENIZER[0], "the tokenizer", sources.get(str(path))))
        _warn(f"{path} has no tokenizer: one of {vocabulary} tokens is assumed, as many as the model's vocab_size")
        path, special = Path(folder), {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        words = [*special.values(), *(f"word{i}" for i in range(len(special), vocabulary))]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(path)
        # The ids of special tokens in the settings are those of the missing tokenizer.
        settings = {key: value for key, value in settings.items() if not key.endswith("_token_id")}
        (path / "config.json").write_text(json.dumps(settings))
    language = {**language, "path": str(path), "pretrained": False, "precision": None}
    if language.get("attn_implementation") == "packed_eager":
        language["attn_implementation"] = "eager"  # It takes no less memory.
    elif (language.get("attn_implementation") or "").startswith(("flash", "packed")):
        language["attn_implementation"] = "sdpa"  # It takes no less memory, and needs no GPU.
    return language


def _missing(file: Path, component: str, source: str | None) -> str:
    """Message about a missing file of a component, with its source where there is one."""
    return (
        f"{file} is missing: the sizes of {component} are read from it. Only the small files of its folder are needed"
        + (f" ({source})" if source else "")
    )


def _warn(text: str) -> None:
    print_log(text, "current", logging.WARNING)
