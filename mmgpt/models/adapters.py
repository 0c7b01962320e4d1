"""LoRA adapters by peft's names in one model, of which an answer uses one or none."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from mmgpt.cli.adapters import CONFIG, adapter_folders
from mmgpt.cli.config import flamingo_config
from mmgpt.cli.description import ADAPTER, DESCRIPTION, TRAINED
from mmgpt.cli.files import read_settings
from mmgpt.compat.names import with_present_names

from .flamingo import Flamingo
from .lora import TRAINABLE, LoRAModel, lora_config
from .weights.checks import is_finite
from .weights.names import GATED, plain_name
from .weights.reader import read_weights

PREFIX = "base_model.model."  # of names in peft's files
# Settings of an adapter that lora_config refuses for training, or that change nothing where it is used.
UNCHECKED = ("task_type", "inference_mode", "trainable_token_indices", "modules_to_save")


def load_adapters(model: Flamingo | LoRAModel, cfg: Config, adapters: Mapping[str, str | Path]) -> PeftModel:
    """peft's wrapper of a Flamingo with adapters by name; none is active at first (see `use_adapter`).

    1. LoRA updates of the model itself are taken off. What remains is the base, which the adapters share.
    2. Each adapter is read and compared with the base, and put into it: updates, token rows, and the components that
       were trained in full beside them, unless the base has the same ones.

    Args:
        model: with its checkpoint loaded; changed in place.
        cfg: the config that it was built from.
        adapters: name -> folder that `export` wrote, or one of peft's own. An adapter of peft says nothing about the
            base that it was trained on, so that only names and shapes of its tensors are compared.

    Raises:
        FileNotFoundError: a folder has no adapter.
        ValueError: an adapter was trained on another base, has settings that are not supported, cannot be beside
            another one, or is damaged; names it, and what differs.
    """
    for name in adapters:
        if hasattr(nn.ModuleDict(), name):  # peft keeps the modules of adapters in one.
            raise ValueError(f"adapter {name!r}: torch uses this name itself; choose another one")
    trained_in_full = set(getattr(model, "trained_in_full", ()))
    if isinstance(model, LoRAModel):
        check_separable(model)
        model = model.peft.unload()
    weights, peft = model.state_dict(), None
    for name, folder in adapter_folders(adapters).items():
        source = f"adapter {name!r} ({folder})"
        # peft does not read the file: it would take other settings from it as well. Empty ones are defaults.
        settings = read_settings(folder / CONFIG)
        settings = {k: v for k, v in settings.items() if v is not None and v is not False and v not in ("", [], {})}
        state = read_weights(folder / Path(ADAPTER).name)
        if settings.get("peft_type", "LORA") != "LORA":
            raise ValueError(f"{source} is of the kind {settings['peft_type']!r}, not LORA")
        if settings.get("bias", "none") != "none":
            raise ValueError(f"{source}: bias={settings['bias']!r} trains biases of the base, which its adapters share")
        try:
            config = lora_config({key: value for key, value in settings.items() if key not in UNCHECKED})
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        config.trainable_token_indices = settings.get("trainable_token_indices")
        config.modules_to_save, config.inference_mode = settings.get("modules_to_save"), True
        exported, trained = Path(adapters[name]), {}
        if (exported / TRAINED).is_file():
            trained = {plain_name(key): value for key, value in read_weights(exported / TRAINED).items()}
        if (exported / DESCRIPTION).is_file():
            check_prompting(source, exported / DESCRIPTION, cfg)
            missing = trained_in_full - {trainable_component(key) for key in trained}
            if missing:
                raise ValueError(
                    f"{source} was tuned beside other weights of {', '.join(sorted(missing))}, which the base has "
                    "trained in full: give the config of the plain base without a checkpoint"
                )
        if trained:
            own = {
                trainable_component(key)
                for key, value in trained.items()
                if key not in weights or not torch.equal(value.to(weights[key]), weights[key])
            }
            config.modules_to_save = sorted(own)
            state |= {f"{PREFIX}{key}": value for key, value in trained.items() if trainable_component(key) in own}
        other = set(config.modules_to_save or ()) - {*TRAINABLE}
        if other:
            raise ValueError(f"{source}: {min(other)!r} was trained in full; choose among {', '.join(TRAINABLE)}")
        try:
            if peft is None:
                peft = PeftModel(model, config, name)
            else:
                peft.add_adapter(name, config)
        except (ValueError, LookupError) as error:
            raise ValueError(f"{source} does not belong to this base: {error}") from error
        tensors = peft.state_dict()
        if any(".lora_" in key and re.search(r"\.(original_module|modules_to_save)\.", key) for key in tensors):
            raise ValueError(f"{source}: of two adapters, one has LoRA in a component that the other trained in full")
        # peft's own functions fail for an adapter without token rows beside one that has some.
        names = {in_file: key for key in tensors if (in_file := file_name(key, name)) != key}
        check_tensors(source, state, {key: tensors[names[key]] for key in names})
        peft.load_state_dict({names[key]: value for key, value in state.items()}, strict=False)
    use_adapter(peft, None)
    return peft


def file_name(key: str, adapter: str) -> str:
    """The name in a file of peft of an adapter's tensor in a model; that of any other tensor is unchanged."""
    name = re.sub(rf"(\.(?:lora_|trainable_tokens_)\w+|\.modules_to_save)\.{adapter}(?=\.|$)", r"\1", key)
    return key if name == key else re.sub(r"\.modules_to_save|(?<=lora_magnitude_vector)\.weight$", "", name)


def check_separable(model: LoRAModel) -> None:
    """Raises a ValueError where a model without its LoRA updates is not the base that they were trained on."""
    bias = model.peft.peft_config["default"].bias
    if bias != "none":
        raise ValueError(f"lora.bias={bias!r}: biases of the base are trained, so that LoRA cannot be taken off it")


def trainable_component(name: str) -> str:
    """The name in TRAINABLE of the component that a tensor of a Flamingo belongs to."""
    return "gated" if GATED in name else name.partition(".")[0]


def use_adapter(model: PeftModel, name: str | None) -> None:
    """Makes a model compute with the adapter of this name alone; None: without any."""
    layer = next(module for module in model.modules() if isinstance(module, BaseTunerLayer))
    if name == (None if layer.disable_adapters else model.active_adapter):
        return
    if name is None:
        model.base_model.disable_adapter_layers()
    else:
        model.base_model.enable_adapter_layers()
        model.set_adapter(name, inference_mode=True)


def check_prompting(source: str, file: Path, cfg: Config) -> None:
    """Raises a ValueError where the description of an exported folder names another prompt than the base's config."""
    theirs, ours = prompting(with_present_names(read_settings(file), file)), prompting(cfg)
    for key, value in ours.items():
        if theirs[key] != value:
            raise ValueError(f"{source} was tuned with {key}={theirs[key]!r:.200}, and the base has {value!r:.200}")


def prompting(cfg: Mapping) -> dict:
    """The settings of a config by which a text and its images reach the model, except for paths."""
    steps = {step["type"]: step for step in cfg["chat_pipeline"]}
    prompt, tokens = steps.get("FormatPrompt", {}), steps.get("TokenizeSegments", {})
    images = steps.get("PrepareImages", {})
    images = {**images, "resize_mode": images.get("resize_mode") or "shortest"}
    return {
        "image_attention": flamingo_config(cfg).get("image_attention", "latest"),
        "prompt_template": prompt.get("template"),
        "system_prompt": prompt.get("system") or None,
        "tokenization": tokens.get("tokenization", "segments"),
        **{f"prepare_images.{key}": _as_list(images.get(key)) for key in ("mean", "std", "resize_mode", "tiles")},
    }


def _as_list(value: object) -> object:
    """A tuple as a list, as JSON has it; other values as they are."""
    return list(value) if isinstance(value, tuple) else value


def check_tensors(source: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises a ValueError unless the tensors of a file have these names and shapes, and finite values."""
    for problem, names in {
        "lacks": expected.keys() - state.keys(),
        "has a tensor that its config does not name,": state.keys() - expected.keys(),
        "has another shape of": {n for n in state.keys() & expected if state[n].shape != expected[n].shape},
        "has NaN or infinite values in": {n for n, value in state.items() if not is_finite(value)},
    }.items():
        if names:
            raise ValueError(f"{source} does not belong to this base: it {problem} {min(names)} ({len(names)} in all)")
