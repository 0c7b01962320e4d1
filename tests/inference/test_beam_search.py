"""Beam search against transformers' own, and against that of transformers 4.30 where beams are scored by the text."""

import pytest
import torch

from mmgpt.registry import MODELS
from tests.helpers.transformers_generate import reference_generate
from tests.inference.test_predict import left_padded


@pytest.fixture(scope="module")
def model(tiny_flamingo_config):
    torch.manual_seed(3)
    return MODELS.build(tiny_flamingo_config).eval()


def up_to_end(ids, ends):
    """The tokens of each answer before its end."""
    return [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in ids.tolist()]


def both(model, **generation):
    """Answers of beam search and of its reference."""
    inputs, ends = left_padded(model), model.ends(generation)
    search, reference = (
        up_to_end(generate(**inputs, **generation), ends)
        for generate in (model.generate, lambda **kwargs: reference_generate(model, **kwargs))
    )
    return search, reference


ENDS = [2, 40, 41, 42]
# Every end becomes so likely that answers have different lengths.
LIKELY_ENDS = dict(sequence_bias=[[[end], 1.7] for end in ENDS], eos_token_id=ENDS)
SETTINGS = {
    "two": dict(num_beams=2),
    "five": dict(num_beams=5, max_new_tokens=4),
    "one token": dict(num_beams=3, max_new_tokens=1),
    "short": dict(num_beams=3, length_penalty=-2.0),
    "long": dict(num_beams=3, length_penalty=2.0),
    "log-probability": dict(num_beams=4, length_penalty=0.0),
    "early": dict(num_beams=3, early_stopping=True),
    "never": dict(num_beams=3, early_stopping="never", length_penalty=1.5),
    "never, short": dict(num_beams=3, early_stopping="never", length_penalty=-1.0),
    "minimum": dict(num_beams=3, min_new_tokens=3),
    "penalty": dict(num_beams=3, no_repeat_ngram_size=2, renormalize_logits=True),
    "suppressed": dict(num_beams=3, suppress_tokens=list(range(45, 300))),
    "forbidden end": dict(num_beams=3, suppress_tokens=ENDS),
    "words": dict(num_beams=3, bad_words_ids=[[44], [60, 61]]),
}  # fmt: skip


@pytest.mark.parametrize("scores", ["answer", "text"])
@pytest.mark.parametrize("name", SETTINGS)
def test_beam_search_equals_transformers(model, scores, name):
    search, reference = both(model, **{**LIKELY_ENDS, "max_new_tokens": 7, **SETTINGS[name]}, beam_scores=scores)
    assert search == reference


def test_scores_differ_where_beams_end_early(model):
    generation = dict(LIKELY_ENDS, max_new_tokens=7, num_beams=3)
    answers = [both(model, **generation, beam_scores=scores)[0] for scores in ("answer", "text")]
    assert answers[0] != answers[1]


def test_sampled_beams_are_those_of_transformers_with_one_seed(model):
    """Each prompt is answered with a seed of its own, so that the reference answers one prompt at a time."""
    inputs, generation = left_padded(model), dict(max_new_tokens=6, num_beams=3, do_sample=True, temperature=2.0)
    torch.manual_seed(5)
    answers = model.generate(**inputs, **generation)
    torch.manual_seed(5)
    seeds = [int(torch.randint(2**63 - 1, ())) for _ in answers]
    for row, seed in enumerate(seeds):
        kept, count = inputs["attention_mask"][row].bool(), int(inputs["image_counts"][row])
        prompt = dict(input_ids=inputs["input_ids"][row][kept][None])
        if count:
            prompt.update(pixels=inputs["pixels"][row : row + 1, :count], image_counts=torch.tensor([count]))
        torch.manual_seed(seed)
        expected = reference_generate(model, **prompt, **generation)
        assert up_to_end(answers[row : row + 1], [2]) == up_to_end(expected, [2])


def test_several_answers_of_one_prompt(model):
    search, reference = both(model, **LIKELY_ENDS, max_new_tokens=7, num_beams=4, num_return_sequences=3)
    assert search == reference
    assert len(search) == 9
    with pytest.raises(ValueError, match="num_return_sequences=2: set num_beams"):
        model.generate(**left_padded(model), num_return_sequences=2)
