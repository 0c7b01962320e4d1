"""Exporting a tuned model as a folder with a description: `export` writes an adapter, `merge` merged weights."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import floor
from pathlib import Path

import torch
from mmengine.config import Config
from safetensors.torch import save_file
from torch import nn

from mmgpt.apis.build import build_model
from mmgpt.cli import load_config
from mmgpt.cli.description import ADAPTER, HERE, TRAINED, write_description
from mmgpt.cli.files import SECTIONS
from mmgpt.datasets.transforms.images import prepared_size
from mmgpt.models import LoRAModel
from mmgpt.models.memory.quantization import is_quantized
from mmgpt.models.special_tokens import starts_texts
from mmgpt.models.tokenizer import IMAGE_TOKEN, save_tokenizer
from mmgpt.models.vision.preprocessing import PIL_FILTERS, changed_settings, with_settings
from mmgpt.models.weights.names import plain_name
from mmgpt.models.weights.trainable import trainable_state
from mmgpt.models.weights.writer import save_components, save_language
from mmgpt.utils.atomic import atomic_write

DESCRIBED_KEYS = ("model", "chat_pipeline", "sources")  # keys of the config that the description holds too
# The note is written to preprocessor_config.json, whose readers keep unknown keys as attributes.
NOTE = (
    "The settings of mmgpt's image preprocessing, which CLIPImageProcessor does not compute exactly: where the longer "
    "side, resized, is 3, 7, 11, ... pixels longer than the crop (an image of 640 x 427, for one), its crop begins one "
    "pixel beside mmgpt's; transparency is treated differently by its versions, and images are not turned upright by "
    "their EXIF orientation. mmgpt itself reads mmgpt.json instead."
)
BOUNDS = {4: 1e-4, 2: 0.05}  # of a merged model's logits, relative to the largest, by the bytes of a weight
RESERVED = ("here", *SECTIONS)  # names that a description cannot have as variables


def export(cfg: Config, model: nn.Module, out: str | Path) -> None:
    """Writes a tuned model as one folder, which can be used wherever its config or checkpoint can.

    The folder holds `mmgpt.json` (the model and the chat pipeline; the base's folders are variables of it), `adapter/`
    (the LoRA weights in peft's own format), `trained.safetensors` (every other trainable tensor, if there is one),
    `tokenizer/`, and `preprocessor_config.json` (the image preprocessing, in transformers' layout where it has one).

    Args:
        cfg: as `load_config` returns it.
        model: built from it, with its checkpoint loaded.
        out: folder that does not exist yet; it appears when it is complete.

    Raises:
        ValueError: the folder exists, or the model has no trainable parameters.
    """
    state = trainable_state(model)
    if not state:
        raise ValueError("the model has no trainable parameters: there is nothing to export")
    with new_folder(out) as folder:
        if isinstance(model, LoRAModel):
            # Embeddings that LoRA adapts are not saved as a whole: they are the base's.
            model.peft.save_pretrained(folder / Path(ADAPTER).parent, save_embedding_layers=False)
            markers = (".lora_", ".token_adapter.")
            state = {name: value for name, value in state.items() if not any(marker in name for marker in markers)}
        if state:
            save_file({name: value.detach().contiguous() for name, value in state.items()}, folder / TRAINED)
        _write_metadata(cfg, model, folder, cfg.model)


@torch.no_grad()
def merge(cfg: Config, model: LoRAModel, out: str | Path, bound: float | None = None) -> float:
    """Writes a tuned model with its LoRA updates merged into the weights: plain files, and faster answers.

    The folder holds `language/` (Hugging Face), `flamingo.safetensors` (with the layers of the image encoder that LoRA
    changed), the tokenizer, image preprocessing and description; the image encoder's other weights stay where they
    are. Every weight keeps its dtype.

    Args:
        cfg, model, out: as for `export`. The model gives its memory up to the one loaded from the written files.
        bound: the largest accepted difference of any logit, relative to the largest logit, between the model and the
            one loaded from the written files, on random inputs. None: 1e-4 in float32, 0.05 where weights have 16 bits.

    Returns: the largest difference, relative to the largest logit.

    Raises:
        ValueError: the difference is above `bound` (then no files stay), the weights are quantized, a layer has no
            bias that the bias of its update could be added to, or see `export`.
    """
    if not isinstance(model, LoRAModel):
        raise ValueError(f"a {type(model).__name__} has no LoRA updates to merge")
    check_mergeable(model)
    # 1. The logits before, of two sequences of random tokens with an image each.
    generator = torch.Generator().manual_seed(0)
    image = model.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    text = torch.tensor(sorted({*model.tokenizer.get_vocab().values()} - {image}))
    input_ids = text[torch.randint(len(text), (2, 32), generator=generator)]
    input_ids[:, 1] = image
    pixels = torch.randn(2, 1, 3, *prepared_size(_prepare_images(cfg)), generator=generator)
    inputs = dict(input_ids=input_ids, pixels=pixels, image_counts=torch.ones(2, dtype=torch.long))
    inputs = {name: value.to(next(model.parameters()).device) for name, value in inputs.items()}
    before = model(**inputs, mode="tensor")
    if bound is None:
        bound = BOUNDS[min(p.dtype.itemsize for p in model.parameters() if p.is_floating_point())]
    # 2. Merge, and write.
    changed = changed_layers(model)
    flamingo = model.peft.merge_and_unload()
    # The keys `config` and `pretrained` are left out: they would initialize the language model at random.
    left_out = ("config", "pretrained", "precision")
    language = {key: value for key, value in cfg.model.module.language.items() if key not in left_out}
    merged = {**cfg.model.module, "language": language, "weights": f"{HERE}/flamingo.safetensors"}
    if "gated" in model.trained_in_full:
        merged["gated"] = {**(cfg.model.module.get("gated") or {}), "dtype": "float32"}
    with new_folder(out) as folder:
        save_language(flamingo, str(folder / "language"))
        save_components(flamingo, str(folder / "flamingo.safetensors"), layers=changed)
        _write_metadata(cfg, flamingo, folder, merged, {merged["language"]["path"]: f"{HERE}/language"})
        flamingo.to("meta")
        # 3. Compare with the logits of the model in the written files.
        reloaded = build_model(load_config(folder, trust=True), device=str(before.device))
        difference = ((reloaded(**inputs, mode="tensor") - before).abs().max() / before.abs().max()).item()
        if not difference <= bound:
            raise ValueError(
                f"merged, a logit differs by {difference:.2e} of the largest logit, more than the bound of {bound:.2e}"
            )
    return difference


def check_mergeable(model: LoRAModel) -> None:
    """Raises a ValueError where LoRA updates cannot be added into the weights: quantized ones, or a missing bias."""
    if is_quantized(model):
        raise ValueError("LoRA updates are not merged into quantized weights: build it with language.precision=None")
    layers = model.unmergeable_layers()
    if layers:
        raise ValueError(
            f"lora.lora_bias=True: {layers[0]} ({len(layers)} in all) has no bias that the bias of its update could be "
            "added to; export the model instead"
        )


def changed_layers(model: nn.Module) -> set[str]:
    """Names, in a Flamingo, of the layers that have trainable tensors or LoRA updates."""
    layers = {plain_name(name).rpartition(".")[0] for name in trainable_state(model)}
    return layers | model.adapted_layers().keys() if isinstance(model, LoRAModel) else layers


def _write_metadata(
    cfg: Config, model: nn.Module, folder: Path, model_config: Mapping, moved: Mapping[str, str] | None = None
) -> None:
    """Writes tokenizer, image preprocessing and description of an exported folder, next to its weights.

    Args:
        model_config: of the exported model.
        moved: paths in the config -> the paths that replace them.
    """
    save_tokenizer(model.tokenizer, folder / "tokenizer")
    preprocessing = preprocessor_config(_prepare_images(cfg))
    if preprocessing is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n")
    values = {**{key: cfg[key] for key in DESCRIBED_KEYS if key in cfg}, "model": model_config}
    values["chat_pipeline"] = with_settings(cfg.chat_pipeline)
    # The description says whether texts begin with the start of sequence, as they did in training.
    for step in values["chat_pipeline"]:
        if step["type"] == "TokenizeSegments" and step.get("add_bos_token") is None:
            step["add_bos_token"] = starts_texts(model.tokenizer)
    values = _replaced(values, moved or {})
    # A path that is a variable of the experiment's config stays one, so that one option moves the base.
    used = set(_strings(values))
    texts = {name: value for name, value in cfg.items() if isinstance(value, str) and name not in RESERVED}
    bases = {name: value for name, value in texts.items() if "/" in value and value in used}
    values = _replaced(values, {value: f"${{{name}}}" for name, value in bases.items()})
    weights = sorted(str(file.relative_to(folder).as_posix()) for file in folder.rglob("*.safetensors"))
    imports = cfg.get("custom_imports", {}).get("imports", [])
    imports = [imports] if isinstance(imports, str) else imports
    write_description(folder, {**bases, **values}, weights, imports)


def _replaced(value: object, new: Mapping[str, str]) -> object:
    """Copy of a config with some of its strings replaced."""
    if isinstance(value, Mapping):
        return {key: _replaced(item, new) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, new) for item in value]
    return new.get(value, value) if isinstance(value, str) else value


def _strings(value: object) -> Iterator[str]:
    """Yields all strings among the values of a config."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
    if isinstance(value, str):
        yield value


def _prepare_images(cfg: Config) -> Mapping:
    """Config of the chat's PrepareImages, with settings in place of the image encoder that it may name."""
    steps = [step for step in cfg.chat_pipeline if step["type"] == "PrepareImages"]
    if len(steps) != 1:
        raise ValueError(f"{cfg.filename}: its chat_pipeline has {len(steps)} PrepareImages, expected one")
    return with_settings(steps[0])


def preprocessor_config(step: Mapping) -> dict | None:
    """Content of preprocessor_config.json, as transformers reads it; None where it has no image processor of that kind.

    Args:
        step: config of PrepareImages; its `preprocessing`, if there is one, holds settings.
    """
    if (step.get("tiles") or {"max": 1})["max"] > 1:
        return None
    resize_mode = step.get("resize_mode") or "shortest"
    settings = step.get("preprocessing") or {"library": "open_clip", "resize_mode": resize_mode, "size": step["size"]}
    values = (step.get(name) for name in ("mean", "std", "interpolation"))
    settings = {"interpolation": "bicubic", **changed_settings(settings, *values)}
    if settings["library"] == "transformers":
        return {key: value for key, value in settings.items() if key not in ("library", "interpolation")}
    if settings["library"] == "timm":
        sides, mode = settings["input_size"][1:], settings["crop_mode"]
        resized = [floor(side / settings["crop_pct"]) for side in sides]
    else:
        sides, mode = settings["size"], settings["resize_mode"]
        sides = resized = [sides, sides] if isinstance(sides, int) else sides
    height, width = sides
    if mode == "squash":
        size = {"height": resized[0], "width": resized[1]}
    elif mode in ("center", "shortest") and height == width:
        size = {"shortest_edge": resized[0]}
    else:  # borders are added
        return None
    return {
        "_note": NOTE,
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": PIL_FILTERS[settings["interpolation"]],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(settings["mean"]),
        "image_std": list(settings["std"]),
    }


@contextmanager
def new_folder(out: str | Path):
    """Context manager that yields a temporary folder beside `out`, which becomes `out` at the end."""
    if Path(out).exists():
        raise ValueError(f"{out} exists already: choose a new folder")
    with atomic_write(out) as folder:
        folder.mkdir()
        yield folder
