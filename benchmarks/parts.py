"""The bare parts of a model, alone, as other libraries compute them or as bare matrix products."""

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
    """The language model alone: of the same sizes and precision, with random weights, in evaluation mode.

    Args:
        model: a Flamingo, or a LoRAModel around one.
        cfg: the model's, whose `lora` is put into the language model's own layers.
        lora: whether it is; without, it is merged, as it were, and all weights are trained or none.
    """
    language = flamingo_of(model).language.model
    with torch.device(language.device):
        bare = AutoModelForCausalLM.from_config(language.config, dtype=language.dtype)
    bare.requires_grad_("language" not in flamingo_of(model).frozen)
    if lora:
        # The excluded modules are those that are not here; others that are not here need not be named.
        fields = {key: value for key, value in cfg.lora.items() if key != "exclude_modules"}
        bare = get_peft_model(bare, LoraConfig(**fields))
    return bare.eval()


def tower(model: nn.Module, images: Tensor) -> Tensor:
    """The image tower alone: (n, 3, H, W) -> (n, P, D), without gradients where it is frozen."""
    vision = flamingo_of(model).vision
    weights = list(vision.parameters())
    trained = any(weight.requires_grad for weight in weights)
    with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
        return vision(images.to(weights[0].dtype))


def resampler(model: nn.Module, features: Tensor) -> Tensor:
    """The resampler alone: patch features (n, P, D) -> latents (n, N, D)."""
    perceiver = flamingo_of(model).perceiver
    return perceiver(features.to(perceiver.latents.dtype)[:, None, None])[:, 0]


class GatedProducts:
    """The matrix products of all gated blocks and their attention; no norms, gates, masks, activations and sums.

    Those of LoRA are among them where it is not merged.

    Args:
        model: a Flamingo, or a LoRAModel around one.
        rows, tokens: B and L of a text.
        latents: how many latents, of all images of a row, its tokens attend to.
        cached: whether keys and values of the latents are there already, as in decoding.
    """

    def __init__(self, model: nn.Module, rows: int, tokens: int, latents: int, cached: bool = False):
        language = flamingo_of(model).language
        self.blocks = [module for module in language.modules() if isinstance(module, GatedCrossAttentionBlock)]
        attention = self.blocks[0].attn
        weight, inner = attention.to_q.weight, attention.to_q.out_features
        # What comes to a gated block has passed layers that are trained.
        self.x = weight.new_ones(rows, tokens, attention.to_q.in_features, dtype=language.dtype).requires_grad_()
        self.latents = self.x.new_ones(rows, latents, attention.to_kv.in_features)
        self.latents.requires_grad_(flamingo_of(model).perceiver.latents.requires_grad)
        self.keys = split_heads(self.x.new_ones(rows, latents, inner), attention.heads) if cached else None

    def __call__(self) -> Tensor:
        """All blocks one after the other, each with the same input: the sum of their outputs (B, L, D)."""
        return sum(self._block(block) for block in self.blocks)

    def _block(self, block: GatedCrossAttentionBlock) -> Tensor:
        attention = block.attn
        k = v = self.keys
        if k is None:
            pair = attention.to_kv(self.latents).chunk(2, dim=-1)
            k, v = (split_heads(each, attention.heads) for each in pair)
        seen = scaled_dot_product_attention(split_heads(attention.to_q(self.x), attention.heads), k, v)
        return block.ff[3](block.ff[1](attention.to_out(merge_heads(seen))))


def learn(work: Callable[[], Tensor]) -> None:
    """A part's output, and its backward pass where anything in it is trained, or comes from what is."""
    out = work()
    if out.requires_grad:
        out.backward(torch.ones_like(out))
    if isinstance(work, GatedProducts):
        work.x.grad = work.latents.grad = None
