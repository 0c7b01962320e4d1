"""Sequences decoded in one batch against each of them computed again as a whole."""

import pytest
import torch

from mmgpt.inference.decoding_batch import DecodingBatch
from mmgpt.inference.kv_cache import PrefixKV
from mmgpt.inference.prefill import encode_images, prefill
from mmgpt.models.packing import is_attention_only
from tests.helpers.tolerances import assert_close
from tests.models.test_gated_lm import FAMILIES, IMAGE, VOCABULARY, gated, language_model

LENGTHS, PLACES = (9, 5, 12, 7), ((3,), (), (1, 6), (0,))


def texts(model, latents=4):
    """Four texts of different lengths with 1, 0, 2 and 1 images: ids (1, L) and latents (T, N, D)."""
    torch.manual_seed(3)
    made = []
    for length, places in zip(LENGTHS, PLACES, strict=True):
        ids = torch.randint(6, VOCABULARY, (1, length))
        ids[0, list(places)] = IMAGE
        made.append((ids, torch.randn(len(places), latents, 16)))
    return made


@torch.no_grad()
def whole(model, ids, latents):
    """Logits (1, L, vocabulary) of a text, without a cache."""
    media = model.media(ids, latents[None] if len(latents) else None, torch.tensor([len(latents)]))
    return model(ids, media=media, use_cache=False).logits


class Check:
    """Sequences in a batch, by default a `DecodingBatch`; each step is compared with the whole sequences."""

    def __init__(self, model, batch=None):
        self.model, self.batch, self.texts = model, batch or DecodingBatch(model), []

    def add(self, ids, latents):
        images = encode_images(self.model, latents) if len(latents) else []
        [(logits, prefix)] = prefill(self.model, [ids], [images], [PrefixKV()])
        assert_close(logits, whole(self.model, ids, latents)[:, -1])
        self.batch.add([prefix], [images])
        self.texts.append((ids, latents))

    def step(self):
        tokens = torch.randint(6, VOCABULARY, (len(self.texts),)).tolist()
        logits = self.batch.step(tokens)
        self.texts = [(torch.cat((ids, torch.tensor([[token]])), 1), latents)
                      for (ids, latents), token in zip(self.texts, tokens, strict=True)]  # fmt: skip
        for row, text in zip(logits, self.texts, strict=True):
            assert_close(row, whole(self.model, *text)[0, -1])

    def select(self, rows):
        self.batch.select(rows)
        self.texts = [self.texts[row] for row in rows]


@pytest.mark.parametrize("image_attention", ["latest", "next"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sequences_that_join_and_leave_equal_single_ones(family, image_attention):
    check = Check(gated(family, image_attention))
    made = texts(check.model)
    check.add(*made[0])
    check.step()
    check.add(*made[1])
    check.add(*made[2])
    check.step()
    check.step()
    check.select([0, 1])
    check.step()
    check.add(*made[3])
    check.step()
    prefix = check.batch.prefix(2)
    check.select([1])
    check.step()
    check.select([])
    check.add(*made[2])
    check.step()
    assert len(prefix) == LENGTHS[3] + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_from_a_prefix_equals_prefill_of_the_whole_prompt(family):
    model = gated(family)
    ids, latents = texts(model)[2]
    images = encode_images(model, latents)
    [(expected, prefix)] = prefill(model, [ids], [images], [PrefixKV()])
    for length in (0, 1, 6, 11):
        [(logits, again)] = prefill(model, [ids], [images], [prefix.cut(length)])
        assert torch.allclose(logits, expected, atol=1e-4)
        assert len(again) == len(prefix) == 12
        for pair, other in zip(again.layers, prefix.layers, strict=True):
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(pair, other, strict=True))
    assert prefix.nbytes == sum(x.numel() * 4 for pair in prefix.layers for x in pair)


def test_the_head_gets_the_last_states_in_a_tensor_of_their_own():
    """For a slice of longer states, torch copies bfloat16 weights at each call."""
    model = gated()
    strides = []
    head = model.get_output_embeddings()
    head.register_forward_pre_hook(lambda module, inputs: strides.append(inputs[0].stride()))
    for ids, latents in texts(model)[:2]:
        prefill(model, [ids], [encode_images(model, latents) if len(latents) else []], [PrefixKV()])
    assert strides == [(head.in_features, head.in_features, 1)] * 2


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("image_attention", ["latest", "next"])
@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_of_a_batch_equals_prefill_of_each_prompt(family, image_attention, start):
    """Prompts of several lengths and numbers of images, also behind prefixes of equal length."""
    model = gated(family, image_attention)
    ids, latents = zip(*texts(model), strict=True)
    images = [encode_images(model, each) if len(each) else [] for each in latents]
    alone = [prefill(model, [row], [own], [PrefixKV()])[0] for row, own in zip(ids, images, strict=True)]
    together = prefill(model, ids, images, [prefix.cut(start) for _, prefix in alone])
    for (logits, prefix), (expected, expected_prefix) in zip(together, alone, strict=True):
        assert torch.allclose(logits, expected, atol=1e-4)
        for pair, other in zip(prefix.layers, expected_prefix.layers, strict=True):
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(pair, other, strict=True))


def test_sequences_that_join_together_equal_single_ones():
    check = Check(gated())
    made = texts(check.model)
    check.add(*made[0])
    check.step()
    images = [encode_images(check.model, latents) if len(latents) else [] for _, latents in made[1:]]
    prefixes = [prefix for _, prefix in prefill(check.model, [ids for ids, _ in made[1:]], images, [PrefixKV()] * 3)]
    check.batch.add(prefixes, images)
    check.texts += made[1:]
    check.step()
    check.select([1, 3])
    check.step()


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_a_window_shorter_than_the_text(family):
    model = gated(family)
    config = model.model.config
    for each in (config, getattr(config, "text_config", config)):
        each.sliding_window = 4
    for layer in model.modules():
        if getattr(layer, "sliding_window", None) is not None and not isinstance(layer, type(config)):
            layer.sliding_window = 4
    check = Check(model)
    for text in texts(model)[:3]:
        check.add(*text)
    check.step()
    check.step()


def test_the_keys_and_values_of_images_are_their_own():
    model = gated()
    _, latents = texts(model)[2]
    both, alone = encode_images(model, latents), encode_images(model, latents[1:])[0]
    assert list(both[1].cache) == list(model.gated_layers)
    for index, (keys, values) in alone.cache.items():
        assert_close((keys, values), both[1].cache[index])
    assert alone.nbytes == latents[1].nbytes + 2 * sum(keys.nbytes for keys, _ in alone.cache.values())


def test_models_with_a_recurrent_state_are_recognised():
    assert is_attention_only(gated("gemma2").model)
    assert is_attention_only(gated("bloom").model)

    model = language_model()
    model.config.layers_block_type = ["attention", "mamba"]
    assert not is_attention_only(model)
