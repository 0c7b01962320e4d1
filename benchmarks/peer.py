"""A peer of a model: transformers' Idefics, which is built like Flamingo, at the same sizes."""

import torch
import transformers
from mmengine.config import Config
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, IdeficsConfig

from mmgpt.models import GatedCausalLM, LoRAModel
from mmgpt.models.media import images_read

from .parts import flamingo_of

# Where our config's names of layers with LoRA are in the peer.
LORA_PLACES = {
    **{f"{x}_proj": rf"model\.layers\.\d+\.self_attn\.{x}_proj" for x in "qkvo"},
    **{f"{x}_proj": rf"model\.layers\.\d+\.mlp\.{x}_proj" for x in ("gate", "up", "down")},
    "to_q": r"model\.gated_cross_attn_layers\.\d+\.cross_attn\.q_proj",
    "to_kv": r"model\.gated_cross_attn_layers\.\d+\.cross_attn\.[kv]_proj",
    "to_out": r"model\.gated_cross_attn_layers\.\d+\.cross_attn\.o_proj",
    "ff.1": r"model\.gated_cross_attn_layers\.\d+\.mlp\.(gate|up)_proj",
    "ff.3": r"model\.gated_cross_attn_layers\.\d+\.mlp\.down_proj",
}


def build_peer(model: nn.Module, cfg: Config) -> nn.Module:
    """An IdeficsForVisionText2Text of a model's sizes, with random weights, and LoRA where the model has it.

    The same parts are frozen and trained. Equal are the language model (width, layers, heads, feed-forward,
    vocabulary), the tower, the resampler and the number of gated blocks, and so are the parameters of these parts to a
    hundredth. A gated block is Idefics' own: as many heads as the language model (ours have a number of their own),
    and its feed-forward of three matrices (ours has two, 4 times as wide as the text). With configs/mmgpt/benchmark.py
    a block of it has 1.005 times our parameters, and all LoRA 1.03 times; the whole models are equal to a thousandth.

    Args:
        model: a Flamingo, or a LoRAModel around one.
        cfg: the model's, for `lora`.

    Raises:
        ValueError: Idefics has no such model: it is made of Llama, without grouped keys, and of open_clip's ViT.
    """
    flamingo = flamingo_of(model)
    language = flamingo.language.model
    config = IdeficsConfig(
        **_language_sizes(flamingo.language),
        vision_config=_tower_sizes(flamingo.vision),
        use_resampler=True,
        perceiver_config=_resampler_sizes(flamingo.perceiver),
    )
    with torch.device(language.device):
        peer = AutoModelForImageTextToText.from_config(config, dtype=language.dtype)
    peer.requires_grad_("language" not in flamingo.frozen)
    peer.model.vision_model.requires_grad_("vision" not in flamingo.frozen)
    peer.model.perceiver_resampler.requires_grad_("perceiver" not in flamingo.frozen)
    peer.model.gated_cross_attn_layers.requires_grad_(True)
    if isinstance(model, LoRAModel):
        peer = get_peft_model(peer, LoraConfig(**_lora_fields(cfg.lora)))
    return peer.eval()


def peer_inputs(model: nn.Module, batch: dict) -> dict[str, Tensor]:
    """The arguments of the peer's forward for one of our batches, of rows that are not packed.

    Idefics looks at the empty places of rows with fewer images than others, too. Of a batch without images it is given
    one of zeros, and its latents at once, so that it need not look at it: it refuses to read text alone.

    Args:
        model: ours, for its reading rule.
        batch: as `collate_conversations` makes it, on the model's device.
    """
    flamingo = flamingo_of(model)
    language, pixels = flamingo.language, batch["pixels"]
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels") if key in batch}
    rows, length = batch["input_ids"].shape
    if pixels is None:
        # Until 5.23 transformers wants an axis for the images of a row.
        images = (1,) if Version(transformers.__version__) < Version("5.23") else ()
        shape = rows, *images, *flamingo.perceiver.latents.shape
        inputs["perceiver_embeddings"] = batch["input_ids"].new_zeros(shape, dtype=language.dtype)
        inputs["image_attention_mask"] = torch.zeros_like(batch["input_ids"])[..., None]
        return inputs
    read = images_read(batch["input_ids"] == language.image_token_id, batch["image_counts"], language.reading)
    places = torch.arange(pixels.shape[1], device=read.device)
    return {**inputs, "pixel_values": pixels, "image_attention_mask": (read[..., None] == places).long()}


def peers(row: str) -> str:
    """The name of the peer's row beside one of ours."""
    return f"peer: {row}"


def _language_sizes(language: GatedCausalLM) -> dict:
    config = language.config
    layers, gated = config.num_hidden_layers, len(language.gated_layers)
    if config.model_type != "llama" or config.num_key_value_heads != config.num_attention_heads or layers % gated:
        raise ValueError(f"a peer needs a Llama with as many keys as heads, gated at even distances, not {config}")
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
            "rms_norm_eps", "rope_parameters", "bos_token_id", "eos_token_id", "pad_token_id")  # fmt: skip
    vocabulary = language.get_input_embeddings().num_embeddings
    return {name: getattr(config, name) for name in same} | dict(
        vocab_size=vocabulary,
        cross_layer_interval=layers // gated,
        freeze_text_layers=False,
        freeze_vision_layers=False,
    )


def _tower_sizes(vision: nn.Module) -> dict:
    tower = getattr(vision, "tower", None)
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    if blocks is None:
        raise ValueError(f"a peer needs a Vision Transformer of open_clip as its tower, not {type(tower).__name__}")
    return dict(
        embed_dim=tower.transformer.width,
        image_size=tower.image_size[0],
        intermediate_size=blocks[0].mlp.c_fc.out_features,
        patch_size=tower.conv1.kernel_size[0],
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
    )


def _resampler_sizes(perceiver: nn.Module) -> dict:
    attention = perceiver.layers[0][0]
    return dict(
        resampler_n_latents=len(perceiver.latents),
        resampler_depth=len(perceiver.layers),
        resampler_n_heads=attention.heads,
        resampler_head_dim=attention.to_q.out_features // attention.heads,
    )


def _lora_fields(lora: dict) -> dict:
    unknown = set(lora["target_modules"]) - set(LORA_PLACES)
    if unknown:
        raise ValueError(
            f"lora.target_modules: a peer has LoRA in {', '.join(LORA_PLACES)} only, not {sorted(unknown)}"
        )
    places = "|".join(LORA_PLACES[name] for name in lora["target_modules"])
    return {**{key: value for key, value in lora.items() if key != "exclude_modules"}, "target_modules": places}
