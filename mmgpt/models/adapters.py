"""LoRA adapters by peft's names in one model, of which an answer uses one or none."""

from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from mmgpt.cli.adapters import adapter_folders
from mmgpt.cli.config import flamingo_config
from mmgpt.cli.description import ADAPTER, DESCRIPTION, TRAINED
from mmgpt.cli.files import read_settings
from mmgpt.compat.names import with_present_names

from .flamingo import Flamingo
from .lora import LoRAModel, check_separable, lora_config
from .weights.checks import is_finite
from .weights.names import plain_name
from .weights.reader import read_weights

# Fields of an adapter's config that change nothing where it is used.
UNUSED = ("task_type", "inference_mode")


def load_adapters(model: Flamingo | LoRAModel, cfg: Config, adapters: Mapping[str, str | Path]) -> PeftModel:
    """peft's wrapper of a Flamingo with adapters by name; none is active at first (see `use_adapter`).

    1. LoRA updates of the model itself are taken off. What remains is the base, which the adapters share.
    2. Each adapter is read and compared with the base, and its layers are put into it.

    Args:
        model: with its checkpoint loaded; changed in place.
        cfg: the config that it was built from.
        adapters: name -> folder that `export` wrote, or one of peft's own. An adapter of peft says nothing about the
            base that it was trained on, so that only its layers and their shapes are compared.

    Raises:
        FileNotFoundError: a folder has no adapter.
        ValueError: an adapter was trained on another base, has settings that are not supported, or is damaged; names
            it, and what differs.
    """
    if isinstance(model, LoRAModel):
        check_separable(model)
        model = model.peft.unload()
    weights, peft = model.state_dict(), None
    for name, folder in adapter_folders(adapters).items():
        source = f"adapter {name!r} ({folder})"
        check_base(source, Path(adapters[name]), cfg, weights)
        config = PeftConfig.from_pretrained(str(folder))
        if config.peft_type != "LORA":
            raise ValueError(f"{source} is of the kind {config.peft_type.value!r}, not LORA")
        if config.bias != "none":
            raise ValueError(f"{source}: bias={config.bias!r} trains biases of the base, which its adapters share")
        tokens, config.task_type = config.trainable_token_indices, None
        settings = {key: value for key, value in config.to_dict().items() if key not in UNUSED}
        try:
            lora_config({**settings, "trainable_token_indices": None})  # raises for what is not supported
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        config.trainable_token_indices, config.inference_mode = tokens, True
        if peft is None:
            peft = PeftModel(model, config, name)
        else:
            peft.add_adapter(name, config)
        state = read_weights(folder / Path(ADAPTER).name)
        expected = get_peft_model_state_dict(peft, adapter_name=name, save_embedding_layers=False)
        check_tensors(source, state, expected)
        set_peft_model_state_dict(peft, state, adapter_name=name)
    use_adapter(peft, None)
    return peft


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


def check_base(source: str, folder: Path, cfg: Config, weights: Mapping[str, Tensor]) -> None:
    """Raises a ValueError where an exported folder was tuned on another base, as far as its description says.

    Args:
        source: name of the adapter, for messages.
        folder: that the user named.
        cfg: of the base.
        weights: of the base, by their names in a Flamingo.
    """
    if not (folder / DESCRIPTION).is_file():
        return
    described = with_present_names(read_settings(folder / DESCRIPTION), folder / DESCRIPTION)
    theirs, ours = prompting(described), prompting(cfg)
    differing = [key for key in ours if theirs[key] != ours[key]]
    if differing:
        key = differing[0]
        raise ValueError(f"{source} was tuned with {key}={theirs[key]!r:.200}, and the base has {ours[key]!r:.200}")
    if (folder / TRAINED).is_file():
        for name, value in read_weights(folder / TRAINED).items():
            name = plain_name(name)
            if name not in weights or not torch.equal(value.to(weights[name]), weights[name]):
                raise ValueError(
                    f"{source} was tuned beside weights of its own, and the base has another {name}: adapters of one "
                    "model share all that is no LoRA; name the folder or checkpoint with these weights as the base"
                )


def prompting(cfg: Mapping) -> dict:
    """The settings of a config by which a text and its images reach the model, except for paths."""
    steps = {step["type"]: step for step in cfg["chat_pipeline"]}
    prompt, tokens = steps.get("FormatPrompt", {}), steps.get("TokenizeSegments", {})
    return {
        "image_attention": flamingo_config(cfg).get("image_attention", "latest"),
        "prompt_template": prompt.get("template"),
        "system_prompt": prompt.get("system"),
        "tokenization": tokens.get("tokenization", "segments"),
    }


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
