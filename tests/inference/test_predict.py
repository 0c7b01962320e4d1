"""Evaluation batches answered by the scheduler against transformers' generate of the whole batch."""

import pytest
import torch

from mmgpt.inference import prefill
from mmgpt.inference.decoding_batch import DecodingBatch
from mmgpt.registry import MODELS
from tests.helpers.transformers_generate import reference_generate
from tests.models.test_flamingo import batch

LENGTH = 6


@pytest.fixture
def model(tiny_flamingo_config):
    torch.manual_seed(3)
    return MODELS.build(tiny_flamingo_config).eval()


def left_padded(model):
    """Three prompts with 1, 2 and 0 images, of 9, 8 and 6 tokens."""
    data = batch(model)
    ids, mask = data["input_ids"].clone(), torch.ones(3, 9, dtype=torch.long)
    image = model.language.image_token_id
    for row, padding in ((1, 1), (2, 3)):
        assert not (ids[row, :padding] == image).any()
        ids[row, :padding], mask[row, :padding] = model.tokenizer.pad_token_id, 0
    return dict(input_ids=ids, attention_mask=mask, pixels=data["pixels"], image_counts=data["image_counts"])


def predictions(model, inputs, **generation):
    model.generation = generation
    return [row["prediction"] for row in model(**inputs, metas=[{}] * 3, mode="predict")]


def generated(model, inputs, **generation):
    """The same answers by transformers' generate."""
    ids, ends = reference_generate(model, **inputs, **generation).tolist(), model.ends(generation)
    answers = [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in ids]
    return [model.tokenizer.decode(row, skip_special_tokens=True).strip() for row in answers]


SETTINGS = [dict(), dict(repetition_penalty=1.5), dict(num_beams=3), dict(num_beams=3, beam_scores="text")]


@pytest.mark.parametrize("settings", SETTINGS)
def test_predictions_equal_transformers_with_left_padding(model, settings):
    inputs, settings = left_padded(model), dict(settings, max_new_tokens=LENGTH)
    assert predictions(model, inputs, **settings) == generated(model, inputs, **settings)
    assert len(set(predictions(model, inputs, **settings))) == 3


@pytest.mark.parametrize("beams", [1, 3])
def test_models_with_a_recurrent_state_are_answered_in_one_batch(model, beams, monkeypatch):
    monkeypatch.setattr(prefill, "is_attention_only", lambda language: False)
    inputs, settings, rows = left_padded(model), dict(max_new_tokens=LENGTH, num_beams=beams), []
    step = DecodingBatch.step
    monkeypatch.setattr(DecodingBatch, "step", lambda batch, tokens: rows.append(len(tokens)) or step(batch, tokens))
    assert predictions(model, inputs, **settings) == generated(model, inputs, **settings)
    assert rows == [3 * beams] * (LENGTH - 1)


def test_sampling_follows_torchs_seed(model):
    inputs, settings, answers = left_padded(model), dict(max_new_tokens=LENGTH, do_sample=True, temperature=3.0), []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        answers.append(predictions(model, inputs, **settings))
    assert answers[0] == answers[2] != answers[1]


@pytest.mark.parametrize("settings", SETTINGS)
def test_answers_without_sampling_leave_torchs_generator_alone(model, settings):
    inputs, before = left_padded(model), torch.get_rng_state()
    predictions(model, inputs, **settings, max_new_tokens=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_failing_model_fails_the_batch(model, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model.language, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        predictions(model, left_padded(model), max_new_tokens=2)


@pytest.mark.parametrize(("rule", "rows"), [("latest", [1, 2]), ("next", [3])])
def test_what_prompts_begin_with_is_computed_once(tiny_flamingo_config, monkeypatch, rule, rows):
    torch.manual_seed(3)
    model = MODELS.build(dict(tiny_flamingo_config, image_attention=rule)).eval()
    image, text = model.language.image_token_id, [5, 6, 7, 8]
    ids = torch.tensor([[*text, image, 9, 10], [*text, image, 11, 10], [*text, 12, image, 10]])
    inputs = dict(input_ids=ids, pixels=torch.randn(3, 1, 3, 32, 32))
    expected, calls = predictions(model, inputs, max_new_tokens=LENGTH), []
    compute = prefill.prefill
    monkeypatch.setattr(prefill, "SHARED_TOKENS", 8)
    monkeypatch.setattr(
        prefill,
        "prefill",
        lambda language, prompts, *rest: calls.append(len(prompts)) or compute(language, prompts, *rest),
    )
    assert predictions(model, inputs, max_new_tokens=LENGTH) == expected
    assert calls == rows
