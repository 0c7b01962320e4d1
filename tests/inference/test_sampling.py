"""Tokens chosen one at a time against transformers' generate."""

import pytest
import torch

from mmgpt.inference.sampling import Sampler
from mmgpt.models.generation import DEFAULT_LENGTH
from tests.models.test_gated_lm import VOCABULARY, gated

PROMPT = torch.tensor([[7, 8, 9, 7, 8, 9, 7, 8]])


def said(model, arguments, steps, seed=0):
    sampler, ids = Sampler(model, arguments, PROMPT, seed), PROMPT
    with torch.no_grad():
        for _ in range(steps):
            chosen = sampler(ids, model(ids, use_cache=False).logits[:, -1])
            ids = torch.cat((ids, torch.tensor([[chosen.id]])), 1)
    return ids


@pytest.mark.parametrize(
    "arguments",
    [
        dict(do_sample=False),
        dict(do_sample=False, repetition_penalty=1.8, no_repeat_ngram_size=2),
        dict(do_sample=False, suppress_tokens=[5, 6, 7], bad_words_ids=[[8]]),
        dict(do_sample=False, forced_eos_token_id=9),
        dict(do_sample=True, temperature=0.7, top_k=3, top_p=0.9),
    ],
)
def test_the_choices_are_those_of_generate(arguments):
    model = gated()
    torch.manual_seed(5)
    expected = model.generate(
        PROMPT, attention_mask=torch.ones_like(PROMPT), max_new_tokens=6, pad_token_id=0, **arguments
    )
    assert said(model, dict(arguments, max_new_tokens=6), 6, seed=5).tolist() == expected.tolist()


def test_seeds():
    model, arguments = gated(), dict(do_sample=True, temperature=3.0)
    one, again, other = (said(model, arguments, 8, seed).tolist() for seed in (1, 1, 2))
    assert one == again != other
    assert said(model, arguments, 8, None).tolist() != said(model, arguments, 8, None).tolist()


def test_log_probabilities():
    model, logits = gated(), torch.randn(1, VOCABULARY)
    chosen = Sampler(model, dict(do_sample=False, suppress_tokens=[logits.argmax().item()]), PROMPT, top_logprobs=3)(
        PROMPT, logits
    )
    expected = logits[0].log_softmax(-1)
    values, ids = expected.topk(3)
    assert chosen.id == ids[1]
    assert chosen.logprob == pytest.approx(values[1].item())
    assert [each[0] for each in chosen.top] == ids.tolist()


def test_ends_and_length():
    sampler = Sampler(gated(), dict(eos_token_id=[2, 3], max_new_tokens=7), PROMPT)
    assert sampler.ends == {2, 3}
    assert sampler.max_new_tokens == 7
    assert Sampler(gated(), {}, PROMPT).max_new_tokens == DEFAULT_LENGTH


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(temprature=1.0), "temprature"),
        (dict(max_new_tokens=-1), "max_new_tokens=-1"),
        (dict(num_beams=0), "num_beams=0"),
        (dict(num_beams=2, length_penalty="1"), "length_penalty='1': give a number"),
        (dict(num_beams=4, num_beam_groups=2), "ask for group_beam_search, which is not supported: greedy_search, "),
        (dict(do_sample=True, top_p=1.5), "top_p=1.5"),
        (dict(do_sample=True, temperature=float("nan")), "temperature=nan"),
        (dict(do_sample=True, temperature=0.0), "temperature=0.0"),
        (dict(temperature="hot"), "temperature=.hot."),
        (dict(max_new_tokens=2.5), "max_new_tokens=2.5"),
        (dict(num_return_sequences=2), "num_return_sequences=2"),
        (dict(stop_strings=["x"]), "stop_strings"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sampler(gated(), arguments, PROMPT)
