"""Attention of packed rows by samples against attention with a mask for each pair of tokens."""

from contextlib import contextmanager

import pytest
import torch
from torch.nn.attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from mmgpt.models import packed_attention
from mmgpt.models.language import load_language_model
from mmgpt.models.memory.compile import compile_layers
from mmgpt.models.packed_attention import BY_SAMPLES, PACKED_MASKS, boundaries, packed_mask, packed_varlen
from mmgpt.models.packing import packed_inputs
from mmgpt.models.transformers_names import set_activation_checkpointing
from tests.helpers.tolerances import TERMS, assert_close
from tests.models.test_gated_lm import FAMILIES, SMALL, VOCABULARY, language_model

# Besides those of FAMILIES.
MORE = {
    "mixtral": dict(num_key_value_heads=2, num_local_experts=2),
    "qwen3_moe": dict(
        num_key_value_heads=2, head_dim=8, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16
    ),
    "gemma3_text": dict(sliding_window=64),
}
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


@contextmanager
def compiled(model):
    """Compiled layers: this backend traces like any other, and runs the traced graph."""
    torch._dynamo.reset()
    compile_layers(model, dict(backend="aot_eager"))
    torch.compiler.set_stance("default")
    yield
    torch._dynamo.reset()


def test_layers_in_one_graph_have_eager_attention():
    model = language_model("llama")
    model.set_attn_implementation("packed_eager")
    compile_layers(model, dict(backend="aot_eager", fullgraph=True))
    assert model.config._attn_implementation == "eager"


@contextmanager
def checkpointed(model):
    """Layers that are computed again in the backward pass."""
    set_activation_checkpointing(model, True)
    yield


def states_and_gradient(model, ids, sample_ids):
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    inputs = packed_inputs(model, sample_ids)
    out = model.base_model(inputs_embeds=embedded, use_cache=False, **inputs).last_hidden_state
    # The square of normalized states, as a loss, would have hardly any gradient.
    out.float()[sample_ids >= 0].cos().sum().backward()
    return inputs["attention_mask"], out.detach()[sample_ids >= 0], embedded.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", BY_SAMPLES)
def test_eager_attention_by_samples_equals_that_with_a_mask_of_pairs(family, dtype, monkeypatch):
    monkeypatch.setattr(packed_attention, "LEAST_SPARED", 0)
    settings = {**SMALL, **FAMILIES.get(family, {}), **MORE.get(family, {})}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings, max_position_embeddings=64, pad_token_id=0, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype).eval()
    ids = torch.randint(6, VOCABULARY, SAMPLES.shape)
    mask, *expected = states_and_gradient(model, ids, SAMPLES)
    assert mask.shape == (2, 1, 13, 13)
    model.set_attn_implementation("packed_eager")
    mask, *ours = states_and_gradient(model, ids, SAMPLES)
    assert mask.shape == (1, 1, 1, 6)
    for x, y in zip(ours, expected, strict=True):
        assert (x - y).float().norm() < (1e-4 if dtype == torch.float32 else 0.1) * y.float().norm()


@pytest.mark.parametrize("way", [compiled, checkpointed])
def test_eager_attention_by_samples_in_compiled_and_checkpointed_layers(way, monkeypatch):
    monkeypatch.setattr(packed_attention, "LEAST_SPARED", 0)
    model, ids = language_model("mistral").train(), torch.randint(6, VOCABULARY, SAMPLES.shape)
    model.set_attn_implementation("packed_eager")
    _, *expected = states_and_gradient(model, ids, SAMPLES)
    with way(model):
        mask, *ours = states_and_gradient(model, ids, SAMPLES)
    assert mask.shape == (1, 1, 1, 6)
    for x, y in zip(ours, expected, strict=True):
        assert_close(x, y)


def test_eager_attention_by_samples_is_chosen_where_it_spares_enough():
    def is_by_samples(*lengths):
        ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
        return packed_mask("packed_eager", ids, heads=8) is not None

    assert is_by_samples(128, 128)  # 2 * 128 * 128 pairs of two samples, 8 scores each
    assert not is_by_samples(64, 64)
    assert not is_by_samples(512)
    assert packed_mask("packed_varlen", torch.arange(256)[None] // 128, heads=8) is None  # on a CPU


def test_other_families_have_eager_attention(tmp_path, monkeypatch):
    monkeypatch.setattr("mmgpt.models.language.only_cpu", lambda: True)
    config = dict(model_type="mpt", vocab_size=60, d_model=32, n_layers=2, n_heads=4)
    model = load_language_model(str(tmp_path), "bfloat16", config=config)
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="'packed_eager': it is for llama, .*, opt, and this is 'mpt'; choose 'eager'"):
        load_language_model(str(tmp_path), config=config, attn_implementation="packed_eager")


@torch.no_grad()
@pytest.mark.parametrize("attention", PACKED_MASKS)
def test_answers_have_fused_or_eager_attention(tiny_llama, attention):
    model = load_language_model(tiny_llama, attn_implementation=attention).eval()
    plain = "eager" if attention == "packed_eager" else "sdpa"
    expected = load_language_model(tiny_llama, attn_implementation=plain).eval()
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
def test_losses_and_gradients_on_a_gpu_equal_those_with_a_mask_of_pairs(attention, monkeypatch):
    monkeypatch.setattr(packed_attention, "LEAST_SPARED", 0)
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
