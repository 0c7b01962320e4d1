"""The image tower and the resampler against the published implementation."""

import torch

from tests.helpers.parity_models import ACTIVATIONS, assert_close, built, expected_arrays


@torch.no_grad()
def test_visual_tokens_are_those_before_the_last_norm():
    arrays = expected_arrays("visual")
    tokens = arrays["visual_tokens"]
    ours = built("base").vision(arrays["images"][: len(tokens)])
    assert_close(ours, tokens, ACTIVATIONS)
    assert not torch.allclose(ours, arrays["visual_tokens_after_ln_post_NOT_used"], atol=0.1)


@torch.no_grad()
def test_resampled_images():
    arrays = expected_arrays("visual")
    latents = arrays["perceiver_out"]
    assert_close(built("base").encode_images(arrays["images"][: len(latents), None]), latents, ACTIVATIONS)
