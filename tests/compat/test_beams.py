"""Beams scored as transformers of 2023 did; the reference's answers are in tests/parity."""

import pytest
import torch

from mmgpt.registry import MODELS
from tests.models.test_flamingo import batch


@pytest.fixture
def model(tiny_flamingo_config):
    torch.manual_seed(3)
    return MODELS.build(tiny_flamingo_config).eval()


def ask(model, **generation):
    data = batch(model)
    inputs = (data["input_ids"], data["attention_mask"], data["pixels"], data["image_counts"])
    return model.generate(*inputs, max_new_tokens=5, **generation)


def test_texts_of_one_length_are_scored_alike(model):
    """While no beam ends early, all are divided by the same length, whichever it is."""
    forbidden = dict(suppress_tokens=[model.tokenizer.eos_token_id], num_beams=3)
    assert torch.equal(ask(model, beam_scores="text", **forbidden), ask(model, **forbidden))
    assert torch.equal(ask(model, beam_scores="text"), ask(model))


def test_beams_without_a_cache_equal_those_with_one(model):
    beams = dict(beam_scores="text", num_beams=3)
    assert torch.equal(ask(model, **beams, use_cache=False), ask(model, **beams))


def test_unknown_scores(model):
    with pytest.raises(ValueError, match="beam_scores='words': choose one of answer, text"):
        ask(model, beam_scores="words")
