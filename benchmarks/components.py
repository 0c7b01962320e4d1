"""The bare components of a model: as other libraries compute them, or as bare matrix products."""

from collections.abc import Callable

import torch
from mmengine.config import Config
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM

from mmgpt.models import GatedCrossAttentionBlock, flamingo_of
from mmgpt.models.attention import merge_heads, split_heads


def bare_language(model: nn.Module, cfg: Config, lora: bool) -> nn.Module:
    """The language model without gated blocks: same sizes and precision, random weights, in evaluation mode.

    Args:
        model: a Flamingo, or a LoRAModel around one.
        cfg: config of the model, with the key `lora`.
        lora: whether the layers have LoRA; otherwise all weights are trainable, or all are frozen.
    """
    language = flamingo_of(model).language.model
    with torch.device(language.device):
        bare = AutoModelForCausalLM.from_config(language.config, dtype=language.dtype)
    bare.requires_grad_("language" not in flamingo_of(model).frozen)
    if lora:
        # The excluded modules do not exist in the bare model, and peft refuses unknown names.
        fields = {key: value for key, value in cfg.lora.items() if key != "exclude_modules"}
        bare = get_peft_model(bare, LoraConfig(**fields))
    return bare.eval()


def image_encoder(model: nn.Module, images: Tensor) -> Tensor:
    """Patch features (n, P, D) of images (n, 3, H, W), without gradients if the image encoder is frozen."""
    vision = flamingo_of(model).vision
    weights = list(vision.parameters())
    trainable = any(weight.requires_grad for weight in weights)
    with torch.set_grad_enabled(torch.is_grad_enabled() and trainable):
        return vision(images.to(weights[0].dtype))


def resampler(model: nn.Module, features: Tensor) -> Tensor:
    """Latents (n, N, D) of patch features (n, P, D)."""
    perceiver = flamingo_of(model).perceiver
    return perceiver(features.to(perceiver.latents.dtype)[:, None, None])[:, 0]


class GatedProducts:
    """The matrix products and the attention of all gated blocks, without norms, gates, masks, activations and sums.

    Products of LoRA are included unless it is merged.

    Args:
        model: a Flamingo, or a LoRAModel around one.
        rows, tokens: B and L of the text.
        latents: number of latents, of all images of a row, that its tokens attend to.
        cached: whether keys and values of the latents are cached, as in decoding.
    """

    def __init__(self, model: nn.Module, rows: int, tokens: int, latents: int, cached: bool = False):
        language = flamingo_of(model).language
        self.blocks = [module for module in language.modules() if isinstance(module, GatedCrossAttentionBlock)]
        attention = self.blocks[0].attn
        weight, inner = attention.to_q.weight, attention.to_q.out_features
        # The input of a gated block comes from layers with trainable parameters.
        self.x = weight.new_ones(rows, tokens, attention.to_q.in_features, dtype=language.dtype).requires_grad_()
        self.latents = self.x.new_ones(rows, latents, attention.to_kv.in_features)
        self.latents.requires_grad_(flamingo_of(model).perceiver.latents.requires_grad)
        self.keys = split_heads(self.x.new_ones(rows, latents, inner), attention.heads) if cached else None

    def __call__(self) -> Tensor:
        """The sum (B, L, D) of the outputs of all blocks for the same input."""
        outputs = []
        for block in self.blocks:
            attention = block.attn
            k = v = self.keys
            if k is None:
                pair = attention.to_kv(self.latents).chunk(2, dim=-1)
                k, v = (split_heads(tensor, attention.heads) for tensor in pair)
            attended = scaled_dot_product_attention(split_heads(attention.to_q(self.x), attention.heads), k, v)
            outputs.append(block.ff[3](block.ff[1](attention.to_out(merge_heads(attended)))))
        return sum(outputs)


def forward_backward(work: Callable[[], Tensor]) -> None:
    """Forward pass of a component, and its backward pass if its output has a gradient."""
    out = work()
    if out.requires_grad:
        out.backward(torch.ones_like(out))
    if isinstance(work, GatedProducts):
        work.x.grad = work.latents.grad = None
