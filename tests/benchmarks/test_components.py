"""The bare components are those of the model."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.components import GatedProducts, bare_language, forward_backward, image_encoder, resampler
from mmgpt.models import GatedCrossAttentionBlock
from mmgpt.models.media import Media
from tests.helpers.tolerances import assert_close


def parameters(model, trainable=None):
    return sum(
        weight.numel() for weight in model.parameters() if trainable is None or weight.requires_grad is trainable
    )


def test_the_language_model_has_the_sizes_and_the_lora_of_its_own_layers(small_model, small_cfg):
    language = small_model.module.language
    gated = [module for module in language.modules() if isinstance(module, GatedCrossAttentionBlock)]
    bare = bare_language(small_model, small_cfg, lora=True)
    for trainable in (None, True):
        inside = sum(parameters(block, trainable) for block in gated)
        assert parameters(bare, trainable) == parameters(language, trainable) - inside > 0
    assert not bare.training
    merged = bare_language(small_model, small_cfg, lora=False)
    assert parameters(merged) == parameters(bare, trainable=False)
    assert parameters(merged, trainable=True) == 0


def test_image_encoder_and_resampler_equal_encode_images(small_model):
    images = torch.randn(3, 3, 32, 32)
    features = image_encoder(small_model, images)
    assert features.shape == (3, 16, 16)
    assert not features.requires_grad
    latents = resampler(small_model, features)
    assert_close(latents, small_model.module.encode_images(images[None])[0])


def test_a_partly_frozen_image_encoder_keeps_its_gradients(small_model):
    """With LoRA in it, say."""
    weight = next(small_model.module.vision.parameters())
    weight.requires_grad_(True)
    try:
        assert image_encoder(small_model, torch.randn(1, 3, 32, 32)).requires_grad
    finally:
        weight.requires_grad_(False)


def test_gated_products_have_all_operations_of_the_blocks(small_model):
    rows, tokens, latents = 2, 5, 8
    blocks = [m for m in small_model.module.language.modules() if isinstance(m, GatedCrossAttentionBlock)]
    x, features = torch.randn(rows, tokens, 32, requires_grad=True), torch.randn(rows, 2, 4, 16)
    for backward in (False, True):
        with FlopCounterMode(display=False) as real, torch.set_grad_enabled(backward):
            for block in blocks:
                out = block(x, Media(features, None, None))
                out.sum().backward() if backward else None
        with FlopCounterMode(display=False) as products, torch.set_grad_enabled(backward):
            forward_backward(GatedProducts(small_model, rows, tokens, latents))
        assert products.get_total_flops() == real.get_total_flops() > 0
    small_model.zero_grad()


def test_cached_keys_are_not_projected_again(small_model):
    with FlopCounterMode(display=False) as new, torch.no_grad():
        GatedProducts(small_model, 1, 1, 4)()
    with FlopCounterMode(display=False) as cached, torch.no_grad():
        out = GatedProducts(small_model, 1, 1, 4, cached=True)()
    assert out.shape == (1, 1, 32)
    # Two blocks; 4 latents of width 16; keys and values of width 32, by the weights and by LoRA of rank 2.
    assert new.get_total_flops() - cached.get_total_flops() == 2 * 2 * 4 * (16 * 64 + 2 * 16 + 2 * 64)


def test_backward_only_with_trainable_parameters():
    weight = torch.ones(3, requires_grad=True)
    forward_backward(lambda: weight * 2)
    assert weight.grad.tolist() == [2, 2, 2]
    forward_backward(lambda: weight.detach() * 2)
    assert weight.grad.tolist() == [2, 2, 2]
