"""Attention of packed rows by samples against attention with a mask for each pair of tokens."""

import pytest
import torch
from torch.nn.attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from mmgpt.models.language import load_language_model
from mmgpt.models.packed_attention import PACKED_MASKS, boundaries, packed_varlen
from mmgpt.models.packing import packed_inputs
from tests.helpers.tolerances import TERMS, assert_close
from tests.models.test_gated_lm import VOCABULARY, language_model

SAMPLES = torch.tensor([[0] * 3 + [1] * 9 + [2], [3] * 8 + [-1] * 5])


def test_boundaries_are_those_of_samples_rows_and_padding():
    assert boundaries(SAMPLES).flatten().tolist() == [0, 3, 12, 13, 21, 26]
    assert boundaries(SAMPLES).shape == (1, 1, 1, 6)
    assert boundaries(SAMPLES).dtype == torch.int32


def varlen_by_loop(query, key, value, starts, key_starts, longest, longest_key, scale, window_size):
    """torch's varlen_attn for a CPU: one sample after the other."""
    assert torch.equal(starts, key_starts)
    assert window_size == (-1, 0)
    assert longest == longest_key == SAMPLES.shape[1]
    parts = []
    for start, end in zip(starts.tolist(), starts.tolist()[1:], strict=False):
        q, k, v = (x[start:end].transpose(0, 1)[None] for x in (query, key, value))
        parts.append(scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)[0].transpose(0, 1))
    return torch.cat(parts)


@torch.no_grad()
@pytest.mark.parametrize(
    ("attention", "dtype", "terms"), [("packed_flex", torch.float32, TERMS), ("packed_varlen", torch.bfloat16, 8)]
)
def test_samples_in_packed_rows_equal_those_with_a_mask_of_pairs(attention, dtype, terms, monkeypatch):
    """Flex attention uncompiled, since its compiler takes minutes for a CPU; flash attention by a plain loop."""
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr("mmgpt.models.packed_attention.varlen_attn", varlen_by_loop)
    torch.compiler.set_stance("force_eager")
    model = language_model("mistral").to(dtype)  # with fewer heads of keys than of queries
    ids = torch.randint(6, VOCABULARY, SAMPLES.shape)
    inputs = packed_inputs(model, SAMPLES)
    expected = model(ids, use_cache=False, **inputs).logits
    model.set_attn_implementation(attention)
    # On a CPU the mask is that of pairs, which both take too.
    assert torch.equal(packed_inputs(model, SAMPLES)["attention_mask"], inputs["attention_mask"])
    assert torch.equal(model(ids, use_cache=False, **inputs).logits, expected)
    mask = PACKED_MASKS[attention](SAMPLES)
    packed = model(ids, use_cache=False, **{**inputs, "attention_mask": mask}).logits
    torch.compiler.set_stance("default")
    assert_close(packed, expected, terms)


@torch.no_grad()
@pytest.mark.parametrize("attention", PACKED_MASKS)
def test_answers_have_fused_attention(tiny_llama, attention):
    model = load_language_model(tiny_llama, attn_implementation=attention).eval()
    expected = load_language_model(tiny_llama, attn_implementation="sdpa").eval()
    ids, mask = torch.randint(6, 250, (2, 6)), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    generation = dict(attention_mask=mask, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert torch.equal(model.generate(ids, **generation), expected.generate(ids, **generation))


@pytest.mark.parametrize(
    ("dtype", "dropout", "words"),
    [(torch.float32, 0.0, "no torch.float32: set language.dtype"), (torch.bfloat16, 0.1, "no attention dropout .*0.1")],
)
def test_what_flash_attention_does_not_compute_is_refused(dtype, dropout, words):
    heads = torch.randn(2, 4, 13, 16, dtype=dtype)
    with pytest.raises(ValueError, match=f"language.attn_implementation='packed_varlen' computes {words}"):
        packed_varlen(None, heads, heads, heads, boundaries(SAMPLES), dropout=dropout)


def test_a_model_without_flex_attention_is_refused(tmp_path):
    config = dict(model_type="bloom", vocab_size=60, hidden_size=32, n_layer=2, n_head=4)
    with pytest.raises(
        ValueError, match="language.attn_implementation='packed_flex': BloomForCausalLM does not support"
    ):
        load_language_model(str(tmp_path), config=config, attn_implementation="packed_flex")


@pytest.mark.gpu
@pytest.mark.parametrize("attention", PACKED_MASKS)
def test_losses_and_gradients_on_a_gpu_equal_those_with_a_mask_of_pairs(attention):
    # The kernels need heads of 16 at least.
    sizes = dict(vocab_size=VOCABULARY, hidden_size=128, intermediate_size=48, num_hidden_layers=2)
    config = AutoConfig.for_model("mistral", **sizes, num_attention_heads=4, num_key_value_heads=2)
    model = AutoModelForCausalLM.from_config(config).to("cuda", torch.bfloat16)
    samples = SAMPLES.repeat_interleave(16, dim=1).cuda()
    ids = torch.randint(6, VOCABULARY, samples.shape, device="cuda")

    def states():
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        out = model.model(inputs_embeds=embedded, use_cache=False, **packed_inputs(model, samples)).last_hidden_state
        out.float().square().sum().backward()
        return out.detach(), embedded.grad

    expected = states()
    model.set_attn_implementation(attention)
    for ours, theirs in zip(states(), expected, strict=True):
        # Two ways to compute in bfloat16, whose numbers have 8 bits.
        assert (ours - theirs).float().norm() < 0.03 * theirs.float().norm()
