"""Texts that grow together against each of them computed again as a whole."""

import pytest
import torch

from mmgpt.inference.decoding_batch import Growing, Known, can_be_known, read, see
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
    """Texts in a `Growing`, each step compared with the whole text computed again."""

    def __init__(self, model):
        self.model, self.growing, self.texts = model, Growing(model), []

    def add(self, ids, latents):
        images = see(self.model, latents) if len(latents) else []
        logits, known = read(self.model, ids, images, Known())
        assert_close(logits, whole(self.model, ids, latents)[:, -1])
        self.growing.add(known, images)
        self.texts.append((ids, latents))

    def step(self):
        tokens = torch.randint(6, VOCABULARY, (len(self.texts),)).tolist()
        logits = self.growing.step(tokens)
        self.texts = [(torch.cat((ids, torch.tensor([[token]])), 1), latents)
                      for (ids, latents), token in zip(self.texts, tokens, strict=True)]  # fmt: skip
        for row, text in zip(logits, self.texts, strict=True):
            assert_close(row, whole(self.model, *text)[0, -1])

    def keep(self, rows):
        self.growing.keep(rows)
        self.texts = [self.texts[row] for row in rows]


@pytest.mark.parametrize("image_attention", ["latest", "next"])
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_come_and_go_are_computed_as_alone(family, image_attention):
    check = Check(gated(family, image_attention))
    made = texts(check.model)
    check.add(*made[0])
    check.step()
    check.add(*made[1])
    check.add(*made[2])
    check.step()
    check.step()
    check.keep([0, 1])
    check.step()
    check.add(*made[3])
    check.step()
    known = check.growing.known(2)
    check.keep([1])
    check.step()
    check.keep([])
    check.add(*made[2])
    check.step()
    assert len(known) == LENGTHS[3] + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_known_beginning_is_not_computed_again(family):
    model = gated(family)
    ids, latents = texts(model)[2]
    images = see(model, latents)
    expected, known = read(model, ids, images, Known())
    for length in (0, 1, 6, 11):
        logits, again = read(model, ids, images, known.cut(length))
        assert torch.allclose(logits, expected, atol=1e-4) and len(again) == len(known) == 12
        for one, other in zip(again.layers, known.layers, strict=True):
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one, other, strict=True))
    assert known.nbytes == sum(x.numel() * 4 for pair in known.layers for x in pair)


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
    both, alone = see(model, latents), see(model, latents[1:])[0]
    assert list(both[1].cache) == list(model.gated_layers)
    for index, (keys, values) in alone.cache.items():
        assert_close((keys, values), both[1].cache[index])
    assert alone.nbytes == latents[1].nbytes + 2 * sum(keys.nbytes for keys, _ in alone.cache.values())


def test_models_with_other_states_are_told_apart():
    assert can_be_known(gated("gemma2")) and can_be_known(gated("bloom"))

    class Holder:
        model = language_model()

    Holder.model.config.layers_block_type = ["attention", "mamba"]
    assert not can_be_known(Holder)
