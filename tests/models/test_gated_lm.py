"""The gated language model against plain loops and the language model alone."""

from functools import partial
from threading import Barrier, Thread

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mmgpt.models.gated_lm import GatedCausalLM, GatedCrossAttentionBlock, forward_call
from mmgpt.models.media import media_mask, only_tokens_with_images
from mmgpt.models.transformers_names import set_activation_checkpointing
from tests.helpers.tolerances import assert_close

IMAGE, VOCABULARY = 5, 60
SMALL = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4)
FAMILIES = {
    "llama": {},
    "mistral": dict(num_key_value_heads=2),
    "qwen2": dict(num_key_value_heads=2),
    "qwen3": dict(num_key_value_heads=2, head_dim=8),
    "gemma2": dict(num_key_value_heads=2, head_dim=8, sliding_window=64, final_logit_softcapping=2.0),
    "gemma3_text": dict(num_key_value_heads=2, head_dim=8, sliding_window=4),
    "phi3": dict(num_key_value_heads=2),
    "olmo2": dict(num_key_value_heads=2),
    "granite": dict(num_key_value_heads=2, logits_scaling=2.0, residual_multiplier=0.5),
    "cohere": dict(num_key_value_heads=2, logit_scale=0.25),
    "gpt_neox": {},
    "opt": dict(ffn_dim=48, word_embed_proj_dim=32),
    "mpt": {},
    "bloom": {},
    "gptj": dict(rotary_dim=4),
}
# A hybrid of attention and state space whose head reads an attribute of the stack of its layers.
HYBRID = {"falcon_h1": dict(num_key_value_heads=2, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=1)}
# These do not hand keyword arguments on to their layers.
WITHOUT_KEYWORDS = ("mpt", "bloom", "gptj")
# The language models under the published weights.
PUBLISHED = ("llama", "gpt_neox", "mpt")


def language_model(family="llama"):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, **SMALL, **{**FAMILIES, **HYBRID}[family], max_position_embeddings=64, pad_token_id=0
    )
    config.bos_token_id, config.eos_token_id, config.initializer_range = 1, None, 0.3
    return AutoModelForCausalLM.from_config(config).eval()


def gated(family="llama", image_attention="latest", gate_init=0.7, every_n_layers=2):
    block = partial(GatedCrossAttentionBlock, dim_head=8, heads=2, gate_init=gate_init)
    model = GatedCausalLM(language_model(family), 16, IMAGE, every_n_layers, image_attention, block).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".gated." in name and "gate" not in name.rsplit(".", 1)[-1]:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch(seed=2):
    """Three left-padded rows with 1, 2 and 0 images."""
    torch.manual_seed(seed)
    ids = torch.randint(6, VOCABULARY, (3, 10))
    ids[0, 4] = ids[1, 2] = ids[1, 6] = IMAGE
    attention = torch.ones_like(ids)
    ids[0, :3], attention[0, :3] = 0, 0
    return ids, attention, torch.randn(3, 2, 4, 16), torch.tensor([1, 2, 0])


def positions(attention):
    return (attention.cumsum(1) - 1).clamp(min=0)


def greedy(model, ids, attention, features, counts, steps):
    """The plain loop: everything computed again for every token."""
    for _ in range(steps):
        media = model.media(ids, features, counts)
        logits = model(ids, attention, media=media, use_cache=False, position_ids=positions(attention)).logits
        ids = torch.cat((ids, logits[:, -1:].argmax(-1)), 1)
        attention = torch.cat((attention, attention.new_ones(len(ids), 1)), 1)
    return ids


@pytest.mark.parametrize(
    ("image_attention", "expected"),
    [("latest", [-1, 0, 0, 1, 1]), ("next", [0, 0, 1, 1, -1])],
)
def test_image_attention_says_which_image_a_token_attends_to(image_attention, expected):
    """Text, image, text, image, text."""
    is_image = torch.tensor([[False, True, False, True, False]])
    mask = media_mask(is_image, torch.tensor([2]), images=2, latents=3, image_attention=image_attention)
    assert mask.shape == (1, 5, 6)
    for token, image in enumerate(expected):
        row = [image == t for t in range(2) for _ in range(3)]
        assert mask[0, token].tolist() == row


def test_no_token_attends_to_padding_images():
    is_image = torch.tensor([[True, True, False]])
    mask = media_mask(is_image, torch.tensor([1]), images=2, latents=1, image_attention="latest")
    assert mask.tolist() == [[[True, False], [False, False], [False, False]]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("image_attention", ["latest", "next"])
def test_cached_greedy_generation_equals_the_plain_loop(family, image_attention):
    model = gated(family, image_attention)
    ids, attention, features, counts = batch()
    expected = greedy(model, ids, attention, features, counts, 6)
    arguments = dict(attention_mask=attention, media_features=features, image_counts=counts)
    arguments.update(max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert torch.equal(model.generate(ids, **arguments), expected)
    assert torch.equal(model.generate(ids, **arguments, use_cache=False), expected)
    seen, other = (model(ids, media=model.media(ids, f, counts)).logits for f in (features, features.roll(1, 0)))
    assert not torch.allclose(seen[:2], other[:2], atol=1e-3), "the images are not seen"


@pytest.mark.parametrize("family", ["llama", "gpt_neox", *WITHOUT_KEYWORDS])
def test_cached_beams_equal_uncached_beams(family):
    model = gated(family)
    ids, attention, features, counts = batch()
    arguments = dict(attention_mask=attention, media_features=features, image_counts=counts, num_beams=3)
    arguments.update(max_new_tokens=6, do_sample=False, pad_token_id=0)
    cached = model.generate(ids, **arguments)
    assert torch.equal(cached, model.generate(ids, **arguments, use_cache=False))
    assert not torch.equal(cached, greedy(model, ids, attention, features, counts, 6)), "beams changed nothing"


@pytest.mark.parametrize("family", PUBLISHED)
def test_a_padded_batch_equals_its_rows(family):
    model = gated(family)
    ids, attention, features, counts = batch()
    arguments = dict(max_new_tokens=6, do_sample=False, pad_token_id=0)
    together = model.generate(ids, attention_mask=attention, media_features=features, image_counts=counts, **arguments)
    for row in range(3):
        start = int((attention[row] == 0).sum())
        images = int(counts[row])
        alone = model.generate(
            ids[row : row + 1, start:],
            attention_mask=attention[row : row + 1, start:],
            media_features=features[row : row + 1, :images] if images else None,
            image_counts=counts[row : row + 1] if images else None,
            **arguments,
        )
        assert torch.equal(alone[0], together[row, start:])


@pytest.mark.parametrize("family", FAMILIES)
def test_closed_gates_equal_the_language_model(family):
    ids, attention, features, counts = batch()
    model = gated(family, gate_init=0.0)
    expected = language_model(family)(ids, attention_mask=attention).logits
    out = model(ids, attention, media=model.media(ids, features, counts)).logits
    assert torch.equal(out, expected)


@pytest.mark.parametrize("family", PUBLISHED)
def test_text_rows_of_a_mixed_batch_equal_the_language_model_alone(family):
    ids, attention, features, counts = batch()
    model, plain = gated(family), language_model(family)
    out = model(ids, attention, media=model.media(ids, features, counts)).logits
    assert_close(out[2:], plain(ids[2:], attention_mask=attention[2:]).logits)
    assert not torch.allclose(out[:2], plain(ids[:2], attention_mask=attention[:2]).logits)
    no_media = model(ids, attention, media=None).logits
    assert_close(no_media, plain(ids, attention_mask=attention).logits)


@pytest.mark.parametrize("family", PUBLISHED)
def test_logits_are_made_at_chosen_positions_only(family):
    ids, attention, features, counts = batch()
    model, keep = gated(family), torch.tensor([3, 5, 8])
    media = model.media(ids, features, counts)
    every, some = model(ids, attention, media=media), model(ids, attention, media=media, logits_to_keep=keep)
    assert_close(some.logits, every.logits[:, keep])


@pytest.mark.parametrize("family", ["llama", "gemma2", *HYBRID])
def test_hidden_states_and_head_give_the_logits_of_forward(family):
    ids, attention, features, counts = batch()
    model = gated(family)
    media = model.media(ids, features, counts)
    states, head = model.hidden_states(ids, media, attention_mask=attention)
    assert_close(head(states[1]), model(ids, attention, media=media, use_cache=False).logits[1])


@pytest.mark.parametrize("family", PUBLISHED)
def test_gradient_checkpointing_gives_equal_gradients(family):
    ids, attention, features, counts = batch()
    model = gated(family).train()
    media = model.media(ids, features, counts)
    grads = []
    for checkpointing in (False, True):
        if checkpointing:
            set_activation_checkpointing(model, True)
        model.zero_grad()
        model(ids, attention, media=media, use_cache=False).logits.square().mean().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert any(".gated.attn.to_kv" in name for name in grads[0])
    assert_close(grads[1], grads[0])


def test_float32_blocks_beside_a_bfloat16_language_model_compute_as_it_does():
    ids, attention, features, counts = batch()
    block, outs, grads = partial(GatedCrossAttentionBlock, dim_head=8, heads=2, gate_init=0.7), [], []
    for dtype in (None, "float32"):
        torch.manual_seed(0)
        model = GatedCausalLM(language_model().bfloat16(), 16, IMAGE, 2, "latest", block, dtype).train()
        weights = [p for name, p in model.named_parameters() if ".gated." in name]
        assert {p.dtype for p in weights} == {torch.float32 if dtype else torch.bfloat16}
        for weight in weights:
            weight.data = weight.data.bfloat16().to(weight.dtype)
        out = model(ids, attention, media=model.media(ids, features, counts)).logits
        out.float().square().mean().backward()
        outs.append(out)
        grads.append(torch.cat([weight.grad.flatten() for weight in weights]))
    assert outs[1].dtype == torch.bfloat16
    assert grads[1].dtype == torch.float32
    torch.testing.assert_close(*outs, rtol=0.05, atol=0.05 * outs[0].abs().max().item())
    assert (grads[0] - grads[1]).norm() < 0.05 * grads[1].norm()
    model.eval()
    made = model.generate(ids, media_features=features, image_counts=counts, attention_mask=attention, max_new_tokens=3)
    assert made.shape == (3, 13)


def test_gated_blocks_stand_before_every_nth_layer():
    layers = gated(every_n_layers=2).model.model.layers
    assert [hasattr(layer, "gated") for layer in layers] == [False, True, False, True]
    with pytest.raises(ValueError, match="every_n_layers=5 for a language model of 4 layers"):
        gated(every_n_layers=5)


def test_unknown_image_attention_names_the_choices():
    with pytest.raises(ValueError, match="image_attention='previous': choose one of latest, next"):
        gated(image_attention="previous")


@pytest.mark.parametrize("family", ["llama", "mpt"])
def test_a_failed_forward_leaves_no_state(family):
    model = gated(family)
    ids, attention, features, counts = batch()
    media = model.media(ids, features, counts)
    expected = model(ids, attention, media=media).logits
    plain = language_model(family)(ids, attention_mask=attention).logits
    with pytest.raises(RuntimeError):
        model(ids, attention, media=media._replace(features=features[..., :3]))
    assert_close(model(ids, attention, media=None).logits, plain)
    assert torch.equal(model(ids, attention, media=media).logits, expected)


@pytest.mark.parametrize("family", ["llama", "mpt"])
def test_threads_do_not_see_each_others_images(family):
    """Each of two threads waits for the other in the middle of its forward, so that both are under way at once."""
    model, barrier, out = gated(family), Barrier(2, timeout=30), {}
    ids, attention, features, counts = batch()
    medias = [model.media(ids, f, counts) for f in (features, features.roll(1, 0))]
    expected = [model(ids, attention, media=media).logits for media in medias]
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)

    def wait(*_):
        barrier.wait()

    model.get_input_embeddings().register_forward_hook(wait)

    def run(i):
        out[i] = model(ids, attention, media=medias[i]).logits

    threads = [Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(out[i], expected[i]) for i in range(2))


@pytest.mark.parametrize("family", WITHOUT_KEYWORDS)
def test_a_layer_without_its_media_is_refused(family):
    model = gated(family)
    ids, attention, features, counts = batch()
    media = model.media(ids, features, counts)
    with pytest.raises(ValueError, match="images would never reach it"):
        model.model(ids, attention_mask=attention)
    with forward_call(media, model.gated_layers), pytest.raises(ValueError, match="calls it twice"):
        for _ in range(2):
            model.model(ids, attention_mask=attention)


def test_a_model_that_leaves_a_gated_layer_out_is_refused():
    model = gated("mpt")
    ids, attention, features, counts = batch()
    blocks = model.model.transformer.blocks
    model.model.transformer.blocks = blocks[:3]
    with pytest.raises(ValueError, match=r"did not call its layers \[3\]"):
        model(ids, attention, media=model.media(ids, features, counts))


def test_torch_compile_sees_one_graph():
    model = gated()
    ids, attention, features, counts = batch()
    arguments = dict(attention_mask=attention, media=model.media(ids, features, counts), use_cache=False)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_close(compiled(ids, **arguments).logits, model(ids, **arguments).logits)


def test_a_compiled_model_without_keywords_sees_its_images_or_is_refused():
    """torch 2.11 to 2.14 compile the error; later versions do not compile a forward that ends in one."""
    model = gated("mpt")
    ids, attention, features, counts = batch()
    media = model.media(ids, features, counts)
    try:
        logits = torch.compile(model, backend="eager")(ids, attention, media=media).logits
    except ValueError as refusal:
        assert "is compiled" in str(refusal)
    else:
        assert_close(logits, model(ids, attention, media=media).logits)


@pytest.mark.parametrize("packed", [False, True])
def test_gated_blocks_compute_for_tokens_of_samples_with_an_image_only(packed):
    """Rows with and without images, or packed rows of such samples: outputs and gradients as of all tokens."""
    model = gated().requires_grad_(False)
    ids, attention, features, counts = batch()
    samples = torch.tensor([[0] * 3 + [1] * 7, [2] * 4 + [3] * 4 + [4] * 2, [5] * 10]) if packed else None
    media = model.media(ids, features, counts, samples)
    few, seen = only_tokens_with_images(media, ids.shape[1]), []
    assert few.mask.shape[:2] == (2, 8 if packed else 10)
    for name, layer in model.named_modules():
        if name.endswith(".gated"):
            layer.requires_grad_(True).ff.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[:2]))
    made = []
    for each in (media, few):
        model.zero_grad()
        logits = model(ids, attention, media=each).logits
        logits.square().mean().backward()
        made.append((logits, {name: value.grad for name, value in model.named_parameters() if value.requires_grad}))
    for ours, theirs in zip(*made, strict=True):  # logits, gradients
        assert_close(ours, theirs)
    assert seen == 2 * [ids.shape] + 2 * [few.mask.shape[:2]]


def test_out_gain_scales_what_a_new_block_adds_to_the_hidden_states():
    weights = []
    for gain in (1.0, 10.0):
        torch.manual_seed(0)
        weights.append(GatedCrossAttentionBlock(32, 16, 0, dim_head=8, heads=2, out_gain=gain).state_dict())
    scaled = {name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])}
    assert scaled == {"attn.to_out.weight"}
    assert torch.equal(weights[1]["attn.to_out.weight"], 10 * weights[0]["attn.to_out.weight"])
