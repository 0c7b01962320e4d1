"""Attention layers against the formulas of the paper, written out."""

import pytest
import torch

from mmgpt.models.attention import MaskedCrossAttention, Media, PerceiverAttention, attend, merge_heads, split_heads


def written_out(q, k, v, mask=None):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def test_perceiver_attention_reads_features_and_latents():
    torch.manual_seed(0)
    layer, features, latents = PerceiverAttention(16, dim_head=4, heads=2), torch.randn(3, 5, 16), torch.randn(3, 2, 16)
    x, y = layer.norm_media(features), layer.norm_latents(latents)
    k, v = layer.to_kv(torch.cat((x, y), 1)).chunk(2, -1)
    expected = written_out(*(split_heads(t, 2) for t in (layer.to_q(y), k, v)))
    torch.testing.assert_close(layer(features, latents), layer.to_out(merge_heads(expected)))


def test_masked_cross_attention_opens_only_the_mask():
    torch.manual_seed(0)
    layer = MaskedCrossAttention(16, 8, 0, dim_head=4, heads=2)
    x, features = torch.randn(1, 3, 16), torch.randn(1, 2, 2, 8)
    mask = torch.tensor([[[False] * 4, [True, True, False, False], [False, False, True, True]]])
    out = layer(x, Media(features, mask, torch.tensor([[True]])))
    assert torch.equal(out[0, 0], torch.zeros(16))
    k, v = layer.to_kv(features.flatten(1, 2)).chunk(2, -1)
    q, k, v = (split_heads(t, 2) for t in (layer.to_q(layer.norm(x)), k, v))
    expected = layer.to_out(merge_heads(written_out(q[:, :, 1:], k, v, mask[:, None, 1:])))
    torch.testing.assert_close(out[:, 1:], expected)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_bfloat16_and_its_gradients_are_those_of_float32(masked):
    torch.manual_seed(0)
    mask = torch.rand(2, 1, 5, 7) > 0.3 if masked else None
    exact = [torch.randn(2, 3, rows, 8).bfloat16().float().requires_grad_() for rows in (5, 7, 7)]
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    for function, heads in ((written_out, exact), (attend, rounded)):
        function(*heads, mask).square().sum().backward()
    assert attend(*rounded, mask).dtype == torch.bfloat16
    torch.testing.assert_close(attend(*rounded, mask).float(), written_out(*exact, mask), atol=0.02, rtol=0.02)
    for x, y in zip(rounded, exact, strict=True):
        assert (x.grad.float() - y.grad).norm() < 0.02 * y.grad.norm()


def test_tokens_that_attend_to_nothing_have_finite_gradients():
    layer = MaskedCrossAttention(16, 8, 0, dim_head=4, heads=2)
    media = Media(torch.randn(1, 1, 2, 8), torch.zeros(1, 3, 2, dtype=torch.bool), torch.tensor([[True]]))
    layer(torch.randn(1, 3, 16), media).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_bfloat16_stays_close_to_float32():
    torch.manual_seed(0)
    layer = MaskedCrossAttention(16, 8, 0, dim_head=4, heads=2)
    x, features, mask = torch.randn(2, 3, 16), torch.randn(2, 1, 2, 8), torch.ones(2, 3, 2, dtype=torch.bool)
    has_image = torch.tensor([[True], [True]])
    expected = layer(x, Media(features, mask, has_image))
    out = layer.bfloat16()(x.bfloat16(), Media(features.bfloat16(), mask, has_image))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, atol=0.05, rtol=0.05)
