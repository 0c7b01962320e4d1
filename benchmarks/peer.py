"""Peer of a model: transformers' Idefics, which has Flamingo's architecture, at the same sizes."""

import torch
import transformers
from mmengine.config import Config
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, IdeficsConfig

from mmgpt.models import GatedCausalLM, LoRAModel, flamingo_of
from mmgpt.models.media import attended_images

# Names of layers with LoRA in our configs -> regular expressions for the corresponding layers of the peer.
LORA_LAYERS = {
    **{f"{x}_proj": rf"model\.layers\.\d+\.self_attn\.{x}_proj" for x in "qkvo"},
    **{f"{x}_proj": rf"model\.layers\.\d+\.mlp\.{x}_proj" for x in ("gate", "up", "down")},
    "to_q": r"model\.gated_cross_attn_layers\.\d+\.cross_attn\.q_proj",
    "to_kv": r"model\.gated_cross_attn_layers\.\d+\.cross_attn\.[kv]_proj",
    "to_out": r"model\.gated_cross_attn_layers\.\d+\.cross_attn\.o_proj",
    "ff.1": r"model\.gated_cross_attn_layers\.\d+\.mlp\.(gate|up)_proj",
    "ff.3": r"model\.gated_cross_attn_layers\.\d+\.mlp\.down_proj",
}


def build_peer(model: nn.Module, cfg: Config) -> nn.Module:
    """An IdeficsForVisionText2Text of a model's sizes, with random weights, and with LoRA if the model has it.

    The same components are frozen and trainable. The language model (width, layers, heads, feed-forward, vocabulary),
    the image encoder, the resampler and the number of gated blocks are equal, and the parameters of these components
    are equal to 1 %. Gated blocks are Idefics' own: they have as many heads as the language model (ours have their own
    number) and a feed-forward of three matrices (ours has two, of 4 times the text's width). With
    configs/mmgpt/benchmark.py such a block has 1.005 times our parameters, and LoRA 1.03 times; the whole models are
    equal to 0.1 %.

    Args:
        model: a Flamingo, or a LoRAModel around one.
        cfg: config of the model, with the key `lora`.

    Raises:
        ValueError: Idefics has no such model; it combines Llama without grouped keys with open_clip's ViT.
    """
    flamingo = flamingo_of(model)
    language, attention = flamingo.language.model, flamingo.perceiver.layers[0][0]
    config = IdeficsConfig(
        **_language_sizes(flamingo.language),
        vision_config=_image_encoder_sizes(flamingo.vision),
        use_resampler=True,
        perceiver_config=dict(
            resampler_n_latents=len(flamingo.perceiver.latents),
            resampler_depth=len(flamingo.perceiver.layers),
            resampler_n_heads=attention.heads,
            resampler_head_dim=attention.to_q.out_features // attention.heads,
        ),
    )
    with torch.device(language.device):
        peer = AutoModelForImageTextToText.from_config(config, dtype=language.dtype)
    peer.requires_grad_("language" not in flamingo.frozen)
    peer.model.vision_model.requires_grad_("vision" not in flamingo.frozen)
    peer.model.perceiver_resampler.requires_grad_("perceiver" not in flamingo.frozen)
    peer.model.gated_cross_attn_layers.requires_grad_(True)
    if isinstance(model, LoRAModel):
        unknown = set(cfg.lora["target_modules"]) - set(LORA_LAYERS)
        if unknown:
            raise ValueError(
                f"lora.target_modules: a peer has LoRA in {', '.join(LORA_LAYERS)} only, not {sorted(unknown)}"
            )
        fields = {key: value for key, value in cfg.lora.items() if key != "exclude_modules"}
        fields["target_modules"] = "|".join(LORA_LAYERS[name] for name in cfg.lora["target_modules"])
        peer = get_peft_model(peer, LoraConfig(**fields))
    return peer.eval()


def peer_inputs(model: nn.Module, batch: dict) -> dict[str, Tensor]:
    """The arguments of the peer's forward for one of our batches with unpacked rows.

    Idefics also encodes the empty image positions of rows with fewer images than others. It refuses text without
    images: for a batch without images it gets the latents of a zero image, which it need not encode.

    Args:
        model: our model, which determines the image that a token attends to.
        batch: batch of `collate_conversations`, on the model's device.
    """
    flamingo = flamingo_of(model)
    language, pixels = flamingo.language, batch["pixels"]
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels") if key in batch}
    rows, length = batch["input_ids"].shape
    if pixels is None:
        # Before 5.23 transformers expects an axis for the images of a row.
        images = (1,) if Version(transformers.__version__) < Version("5.23") else ()
        shape = rows, *images, *flamingo.perceiver.latents.shape
        inputs["perceiver_embeddings"] = batch["input_ids"].new_zeros(shape, dtype=language.dtype)
        inputs["image_attention_mask"] = torch.zeros_like(batch["input_ids"])[..., None]
        return inputs
    attended = attended_images(
        batch["input_ids"] == language.image_token_id, batch["image_counts"], language.image_attention
    )
    numbers = torch.arange(pixels.shape[1], device=attended.device)
    mask = (attended[..., None] == numbers).long()
    return {**inputs, "pixel_values": pixels, "image_attention_mask": mask}


def peers(row: str) -> str:
    """Name of the peer's row that corresponds to one of ours."""
    return f"peer: {row}"


def _language_sizes(language: GatedCausalLM) -> dict:
    """Fields of IdeficsConfig with the sizes of a language model and its gated blocks."""
    config = language.config
    layers, gated = config.num_hidden_layers, len(language.gated_layers)
    if config.model_type != "llama" or config.num_key_value_heads != config.num_attention_heads or layers % gated:
        raise ValueError(f"a peer needs a Llama with as many keys as heads, gated at even distances, not {config}")
    fields = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
            "rms_norm_eps", "rope_parameters", "bos_token_id", "eos_token_id", "pad_token_id")  # fmt: skip
    vocabulary = language.get_input_embeddings().num_embeddings
    return {name: getattr(config, name) for name in fields} | dict(
        vocab_size=vocabulary,
        cross_layer_interval=layers // gated,
        freeze_text_layers=False,
        freeze_vision_layers=False,
    )


def _image_encoder_sizes(vision: nn.Module) -> dict:
    """Fields of IdeficsVisionConfig with the sizes of an image encoder."""
    encoder = getattr(vision, "tower", None)
    blocks = getattr(getattr(encoder, "transformer", None), "resblocks", None)
    if blocks is None:
        raise ValueError(
            f"a peer needs a Vision Transformer of open_clip as image encoder, not {type(encoder).__name__}"
        )
    return dict(
        embed_dim=encoder.transformer.width,
        image_size=encoder.image_size[0],
        intermediate_size=blocks[0].mlp.c_fc.out_features,
        patch_size=encoder.conv1.kernel_size[0],
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
    )
