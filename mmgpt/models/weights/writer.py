"""Writing the components of a model in the layouts in which published weights come.

A base is a folder of three components: `language/` (Hugging Face, with the tokenizer), `vision/` (open_clip: JSON and
weights) and `flamingo.safetensors` (the resampler and the gated blocks, under the names of our model).
"""

import json
from collections.abc import Collection
from copy import deepcopy
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmgpt.models.gated_lm import GatedDecoderLayer
from mmgpt.models.generation_files import as_setting
from mmgpt.models.lora import short_name
from mmgpt.models.tokenizer import save_tokenizer
from mmgpt.models.vision.open_clip import open_clip_name
from mmgpt.utils.atomic import atomic_write

from .names import GATED, KeyMap, new_tensors

# Fields of peft's LoraConfig that make another model, and that the published layout cannot hold.
NOT_PUBLISHED = (
    "use_rslora",
    "use_dora",
    "use_bdlora",
    "lora_bias",
    "velora_config",
    "rank_pattern",
    "alpha_pattern",
    "target_parameters",
)


def save_components(
    model: nn.Module, path: str, dtype: torch.dtype | None = None, layers: Collection[str] = ()
) -> None:
    """Writes the file that `load_components` reads: resampler, gated blocks, and changed layers of the image encoder.

    Args:
        model: a Flamingo.
        path: safetensors file to write.
        dtype: dtype of the floats in the file; None keeps those of the model.
        layers: names of changed layers; those outside the image encoder are ignored.
    """
    state = new_tensors(model)
    for name, value in model.state_dict().items():
        if name.startswith("vision.") and name.rpartition(".")[0] in layers:
            state[name] = value
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: _stored(value, dtype) for name, value in state.items()}, path)


def save_language(model: nn.Module, folder: str, dtype: torch.dtype | None = None) -> None:
    """Writes the language model without its gated blocks, and the tokenizer, as a Hugging Face folder."""
    language = model.language.model
    wrapped = [name for name, module in language.named_modules() if isinstance(module, GatedDecoderLayer)]
    state = {}
    for name, value in language.state_dict().items():
        if GATED in name:
            continue
        for layer in wrapped:
            name = name.replace(f"{layer}.decoder.", f"{layer}.")
        state[name] = _stored(value, dtype)
    for name in language.all_tied_weights_keys if language.config.tie_word_embeddings else ():
        state.pop(name, None)
    config, generation = deepcopy(language.config), deepcopy(language.generation_config)
    # Other programs are to stop at the same tokens, also those that only the model's generation arguments name.
    ends = list(dict.fromkeys([*model.language.ends, *model.ends(model.generation)]))
    config.eos_token_id = generation.eos_token_id = as_setting(ends)
    Path(folder).mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    generation.save_pretrained(folder)
    save_tokenizer(model.tokenizer, folder)
    save_file(state, str(Path(folder) / "model.safetensors"), metadata={"format": "pt"})


def save_vision(vision: nn.Module, description: str, folder: str, dtype: torch.dtype | None = None) -> None:
    """Writes an OpenCLIPVision built from the JSON file `description` as a folder that open_clip loads.

    The text encoder, which such a folder needs and Flamingo does not use, gets random weights.
    """
    clip = open_clip.create_model(open_clip_name(None, description), pretrained_text=False)
    state = clip.state_dict() | {f"visual.{name}": value for name, value in vision.tower.state_dict().items()}
    Path(folder).mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": json.loads(Path(description).read_text()), "preprocess_cfg": {}}
    (Path(folder) / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: _stored(value, dtype) for name, value in state.items()}
    save_file(state, str(Path(folder) / "open_clip_model.safetensors"))


def save_openflamingo(model: nn.Module, path: str) -> None:
    """Writes resampler, gated blocks and token embedding of a Flamingo, without LoRA, as OpenFlamingo's file."""
    key_map, state = KeyMap(model), model.state_dict()
    table = model.language.get_input_embeddings().weight
    embedding = next(name for name, value in model.named_parameters() if value is table)
    names = [name for name in (*new_tensors(model), embedding) if ".lora_" not in name]
    write_torch({key_map.published(name): state[name].detach().clone() for name in names}, path)


def save_mmgpt_lora(model: nn.Module, path: str) -> None:
    """Writes the LoRA weights of a LoRAModel as MultiModal-GPT's `final_weights.pt`, with a plain tuning config.

    Raises:
        ValueError: other parameters are trainable too, or LoRA is of a kind (DoRA, rsLoRA) or in a component that the
            layout cannot hold.
    """
    key_map, config = KeyMap(model), model.peft.peft_config["default"]
    unusual = [name for name in NOT_PUBLISHED if getattr(config, name)]
    if unusual:
        raise ValueError(f"MultiModal-GPT's layout holds plain LoRA only, this config sets {', '.join(unusual)}")
    others = [name for name, value in model.named_parameters() if value.requires_grad and ".lora_" not in name]
    if others:
        raise ValueError(
            f"MultiModal-GPT's layout holds LoRA only, but {len(others)} other parameters are trainable: {others[0]}"
        )
    layers = model.adapted_layers()
    others = [
        name
        for name, layer in layers.items()
        if not (name.startswith("language.") and isinstance(layer.get_base_layer(), nn.Linear))
    ]
    if others:
        raise ValueError(
            f"MultiModal-GPT's layout holds LoRA of the language model's linear layers only, not of {others[0]}"
        )
    tuning = dict(
        lora=True,
        lora_target_modules=sorted({short_name(name) for name in layers}),
        lora_r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        vis=True,
        unfrozen=[],
    )
    state = model.state_dict()
    updates = [name for name in state if name.endswith((".lora_A.default.weight", ".lora_B.default.weight"))]
    state = {key_map.published(name): state[name].detach().clone() for name in updates}
    write_torch({"model_state_dict": state, "tuning_config": {"tuning_config": tuning}}, path)


def write_torch(content: dict, path: str) -> None:
    """torch.save as an atomic write: the file appears when it is complete."""
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def _stored(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    value = value.detach()
    return (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous()
