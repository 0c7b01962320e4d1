"""Writing a tuned model as a folder that transformers opens, with the package mmgpt or without it."""

import json
import logging
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import open_clip
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from mmgpt.apis.export import check_mergeable, new_folder
from mmgpt.cli.adapters import CONFIG
from mmgpt.cli.config import flamingo_config
from mmgpt.cli.description import ADAPTER
from mmgpt.datasets.chat_template import ChatTemplate
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.datasets.segments import IMAGE
from mmgpt.models import Flamingo, GatedCausalLM, GatedCrossAttentionBlock, LoRAModel, PerceiverResampler
from mmgpt.models.adapters import PREFIX, check_separable, trainable_component
from mmgpt.models.gated_lm import gated_layers
from mmgpt.models.generation import generation_arguments
from mmgpt.models.generation_files import as_setting, valid_generation_config
from mmgpt.models.memory.quantization import is_quantized
from mmgpt.models.special_tokens import special_tokens
from mmgpt.models.vision import HFVision, TimmVision
from mmgpt.models.vision.open_clip import open_clip_name
from mmgpt.models.vision.preprocessing import changed_settings, with_settings
from mmgpt.models.vision.timm import timm_arguments
from mmgpt.models.weights.names import plain_name
from mmgpt.utils.json_file import read_json_object

from .card import README, model_card
from .modeling import ENCODERS, MMGPTConfig, MMGPTForConditionalGeneration
from .processing import CHAT, MMGPTImageProcessor, MMGPTProcessor
from .template import jinja_template

STEPS = ("PrepareImages", "FormatPrompt", "TokenizeSegments")
# What timm records about the weights of a model, beside what it needs to build the model.
TIMM_SOURCES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load")


@torch.no_grad()
def export_transformers(cfg: Config, model: nn.Module, out: str | Path, merged: bool, apart: bool = False) -> None:
    """Writes a model as a folder of transformers: config, weights, processor, tokenizer, and their source.

    Args:
        cfg: as `load_config` returns it.
        model: a Flamingo or a LoRAModel, built from it, with its checkpoint loaded; LoRA is taken off in place.
        out: folder that does not exist yet; it appears when it is complete.
        merged: whether LoRA updates are added into the weights. Otherwise the folder has an adapter in peft's format
            beside the weights, which transformers loads with them.
        apart: whether that adapter is in `adapter/` instead, so that the folder itself is the base on which peft loads
            this adapter and others. The components trained in full are in both.

    Raises:
        ValueError: the folder exists, there is no LoRA to be apart or it has biases, or a component or a step of the
            chat pipeline is not one that the source holds.
    """
    check_exportable(cfg, model, merged)
    if apart and not isinstance(model, LoRAModel):
        raise ValueError("there is no adapter to be apart from the base: the model has no LoRA")
    if apart:
        check_separable(model)
    processor = hf_processor(cfg, model.tokenizer)
    with new_folder(out) as folder:
        flamingo, has_adapter = model, isinstance(model, LoRAModel) and not merged
        if has_adapter:
            # Embeddings that LoRA adapts are not saved as a whole: they are the base's.
            model.peft.save_pretrained(folder / "adapter" if apart else folder, save_embedding_layers=False)
            if apart and model.trained_in_full:
                add_components(model, folder / "adapter")
        if isinstance(model, LoRAModel):
            flamingo = model.peft.unload() if has_adapter else model.peft.merge_and_unload()
        with torch.device("meta"):
            converted = MMGPTForConditionalGeneration(model_config(cfg, flamingo, has_adapter and not apart))
        # Buffers that libraries compute anew, but transformers does not, are saved too.
        buffers = {f"vision.{name}": value for name, value in flamingo.vision.named_buffers()}
        converted.load_state_dict(flamingo.state_dict() | buffers, assign=True)
        converted.tie_weights()
        converted.generation_config = hf_generation_config(flamingo)
        converted.save_pretrained(folder, max_shard_size="5GB")
        processor.save_pretrained(folder)
        model_card(cfg, processor.tokenizer, has_adapter and apart).save(folder / README)


def add_components(model: LoRAModel, folder: Path) -> None:
    """Adds the components that were trained in full to a saved adapter, as peft's modules_to_save."""
    file, settings = folder / Path(ADAPTER).name, folder / CONFIG
    state = {plain_name(name): value for name, value in model.state_dict().items()}
    full = {name: value for name, value in state.items() if trainable_component(name) in model.trained_in_full}
    save_file(load_file(file) | {f"{PREFIX}{name}": value.contiguous() for name, value in full.items()}, file)
    config = {**read_json_object(settings), "modules_to_save": list(model.trained_in_full)}
    settings.write_text(json.dumps(config, indent=2) + "\n")


def check_exportable(cfg: Config, model: nn.Module, merged: bool) -> None:
    """Raises a ValueError, before anything is written, for a model that the folder could not describe."""
    flamingo = model.flamingo if isinstance(model, LoRAModel) else model
    if merged and flamingo is not model:
        check_mergeable(model)
    if is_quantized(model):
        raise ValueError("quantized weights are not exported: build the model with language.precision=None")
    components = [
        (flamingo, (Flamingo,)),
        (flamingo.vision, tuple(ENCODERS.values())),
        (flamingo.perceiver, (PerceiverResampler,)),
        (flamingo.language, (GatedCausalLM,)),
        *((layer.gated, (GatedCrossAttentionBlock,)) for layer in gated_layers(flamingo)),
    ]
    for component, kinds in components:
        if type(component) not in kinds:
            choices = ", ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"a {type(component).__name__} cannot be exported for transformers, only: {choices}")
    steps = [step["type"] for step in cfg.chat_pipeline]
    if [step for step in steps if step != "PackInputs"] != list(STEPS):
        raise ValueError(f"chat_pipeline has the steps {steps}: transformers' processor has only those of {STEPS}")


def model_config(cfg: Config, flamingo: Flamingo, has_adapter: bool) -> MMGPTConfig:
    """The configuration of a Flamingo for transformers, without any path of its base."""
    module, language = flamingo_config(cfg), flamingo.language
    gated = {key: value for key, value in (module.get("gated") or {}).items() if key not in ("type", "dtype")}
    perceiver = {key: value for key, value in (module.get("perceiver") or {}).items() if key != "type"}
    text_config = _without_path(language.model.config)
    dtype, float32 = language.model.dtype, []
    blocks = nn.ModuleList(layer.gated for layer in gated_layers(flamingo))
    for name, component in {"vision": flamingo.vision, "perceiver": flamingo.perceiver, "gated": blocks}.items():
        dtypes = {weight.dtype for weight in component.parameters()}
        if dtypes == {torch.float32} != {dtype}:
            float32.append(name)
        elif dtypes != {dtype}:
            print_log(f"{name}: {dtypes} becomes {dtype}, that of the language model", "current", logging.WARNING)
    return MMGPTConfig(
        text_config=text_config,
        vision_config=vision_config(module["vision"], flamingo.vision),
        perceiver_config=perceiver,
        gated_config={"every_n_layers": 4, **gated},
        image_attention=language.image_attention,
        image_token_id=language.image_token_id,
        float32_components=float32,
        has_adapter=has_adapter,
        tie_word_embeddings=text_config.tie_word_embeddings,
        dtype=dtype,
        **{name: getattr(text_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )


def vision_config(config: Mapping, encoder: nn.Module) -> dict:
    """The `vision_config` of MMGPTConfig: an image encoder without its folder.

    Args:
        config: of the encoder in an experiment.
        encoder: built from it.
    """
    settings = {name: value for name, value in vars(encoder).items() if name not in vars(nn.Module())}
    if isinstance(encoder, HFVision):
        network = _without_path(encoder.tower.config).to_dict()
    elif isinstance(encoder, TimmVision):
        network = timm_arguments(config.get("path"), config.get("model"), config.get("image_size"))
        described = network["pretrained_cfg"].items()
        network["pretrained_cfg"] = {key: value for key, value in described if key not in TIMM_SOURCES}
    else:
        name = open_clip_name(config.get("path"), config.get("model"))
        network = {**open_clip.get_model_config(name)}
        if config.get("quick_gelu"):
            network["quick_gelu"] = True
        # Of the text encoder nothing is needed.
        network = {key: network[key] for key in ("embed_dim", "vision_cfg", "quick_gelu") if key in network}
        network["vision_cfg"] = {**network["vision_cfg"], "timm_model_pretrained": False}
    return {"encoder": type(encoder).__name__, "settings": settings, "network": network}


def hf_generation_config(flamingo: Flamingo) -> GenerationConfig:
    """The generation settings of a model, as transformers writes them; those that it does not know are logged."""
    settings = generation_arguments(flamingo.tokenizer, flamingo.generation, flamingo.language.ends)
    ends = as_setting(flamingo.ends(flamingo.generation))
    by_text = settings.pop("beam_scores", "answer") == "text"
    config, invalid = valid_generation_config(
        {"bos_token_id": flamingo.tokenizer.bos_token_id, **settings, "eos_token_id": ends}
    )
    if by_text or invalid:
        names = ", ".join([*invalid, *["beam_scores='text'"] * by_text])
        print_log(f"generation settings left out, which transformers lacks: {names}", "current", logging.WARNING)
    return config


def hf_processor(cfg: Config, tokenizer: PreTrainedTokenizerBase) -> MMGPTProcessor:
    """The processor that does what a config's chat pipeline does; ValueError for one that no processor can follow."""
    images, prompt, tokens = (step for step in with_settings(cfg.chat_pipeline) if step["type"] in STEPS)
    values = [images.get(name) for name in ("mean", "std", "interpolation")]
    tiles, interpolation = images.get("tiles") and dict(images["tiles"]), values[2] or "bicubic"
    if images.get("preprocessing"):
        settings = changed_settings(images["preprocessing"], *values)
        image_processor = MMGPTImageProcessor(preprocessing=settings, interpolation=interpolation, tiles=tiles)
    else:
        size, mode = {"height": images["size"], "width": images["size"]}, images.get("resize_mode") or "shortest"
        image_processor = MMGPTImageProcessor(size, *values[:2], interpolation, resize_mode=mode, tiles=tiles)
    tokenization = tokens.get("tokenization", "segments")
    prompt, tokens = build_pipeline([prompt, tokens])
    data = None
    if isinstance(prompt.template, ChatTemplate):
        tokens.encode(prompt.template.format_turns([{"question": "a"}]))  # refuses a tokenization that does not fit
        template, tokenization = prompt.template.source, CHAT
    else:
        texts = "".join(text for key, text in prompt.template.items() if key != "end")
        spelled = [name for name in special_tokens(tokenizer) if name != IMAGE and name in texts]
        if spelled and not prompt.special:
            raise ValueError(
                f"the prompt template spells {spelled[0]!r} in letters, which transformers' processor cannot: give "
                "FormatPrompt tokenizer='${language_model}'"
            )
        data = prompt.template
        template = jinja_template(data, tokenizer.bos_token if tokens.start else None)
    tokenizer = deepcopy(tokenizer)
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    tokenizer.chat_template = template
    return MMGPTProcessor(image_processor, tokenizer, template, tokenization, bool(tokens.start), prompt.system, data)


def _without_path(config: PreTrainedConfig) -> PreTrainedConfig:
    """Copy of a configuration that does not say where it was read."""
    config = deepcopy(config)
    config._name_or_path = ""
    return config
