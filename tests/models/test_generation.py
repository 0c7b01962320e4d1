"""What ends an answer, and the settings that its generation has."""

import json
import logging
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mmgpt.inference.sampling import Sampler
from mmgpt.models import generation
from mmgpt.models.generation import answer_ends, generation_arguments
from mmgpt.models.tokenizer import load_tokenizer
from mmgpt.registry import MODELS
from tests.models.test_flamingo import batch

# Settings of a base that would act on each answer.
LEAKING = dict(
    repetition_penalty=5.0,
    no_repeat_ngram_size=1,
    suppress_tokens=[40, 41],
    begin_suppress_tokens=[42],
    bad_words_ids=[[43]],
    sequence_bias=[[[44], 50.0]],
    forced_bos_token_id=45,
    forced_eos_token_id=46,
    min_length=100,
    min_new_tokens=2,
    max_new_tokens=3,
    max_length=7,
    do_sample=True,
    temperature=5.0,
    top_k=3,
    top_p=0.5,
    num_beams=2,
    length_penalty=-3.0,
    early_stopping=True,
    num_return_sequences=2,
    renormalize_logits=True,
    cache_implementation="static",
)


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return load_tokenizer(tiny_llama)


@pytest.fixture
def warned(monkeypatch):
    """The warnings of this module."""
    told = []

    def print_log(text, logger, level):
        assert logger == "current"
        assert level == logging.WARNING
        told.append(text)

    monkeypatch.setattr(generation, "print_log", print_log)
    return told


def built(config, folder, **changes):
    torch.manual_seed(0)
    return MODELS.build({**config, "language": dict(path=folder), **changes}).eval()


def prompts(model):
    data = batch(model)
    return {key: data[key] for key in ("input_ids", "pixels", "image_counts")}


def saying(token):
    """Generation arguments with which a model says nothing but this token."""
    return dict(sequence_bias=[[[token], 1000.0]], max_new_tokens=4)


def test_greedy_and_no_images_unless_asked(tokenizer):
    image, pad = tokenizer.convert_tokens_to_ids(["<image>", "<PAD>"])
    made = generation_arguments(tokenizer, dict(max_new_tokens=3))
    assert made == dict(do_sample=False, pad_token_id=pad, suppress_tokens=sorted([image, pad]), max_new_tokens=3)
    assert generation_arguments(tokenizer, dict(do_sample=True, suppress_tokens=None))["do_sample"]


def test_the_end_of_an_answer_has_a_name(tokenizer):
    made = generation_arguments(tokenizer, dict(end_token="<|endofchunk|>"))
    assert made["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|endofchunk|>")
    assert "eos_token_id" not in generation_arguments(tokenizer, dict(end_token="</s>"))
    # It alone ends an answer, also where the base names further ends.
    assert generation_arguments(tokenizer, dict(end_token="</s>"), [2, 1])["eos_token_id"] == 2
    assert "eos_token_id" not in generation_arguments(tokenizer, dict(end_token=None), [2, 1])
    with pytest.raises(ValueError, match="end_token='stop': choose one of .*</s>"):
        generation_arguments(tokenizer, dict(end_token="stop"))
    with pytest.raises(ValueError, match="end_token='<image>': choose one of"):
        generation_arguments(tokenizer, dict(end_token="<image>"))
    with pytest.raises(ValueError, match="end_token='</s>' and eos_token_id=1: give one of them"):
        generation_arguments(tokenizer, dict(end_token="</s>", eos_token_id=1))


def test_an_end_is_never_suppressed(tokenizer):
    image, pad = tokenizer.convert_tokens_to_ids(["<image>", "<PAD>"])
    assert generation_arguments(tokenizer, {}, [2, pad])["suppress_tokens"] == [image]
    for given in (dict(end_token="<PAD>"), dict(eos_token_id=pad), dict(eos_token_id=[2, pad])):
        assert generation_arguments(tokenizer, given)["suppress_tokens"] == [image]


@pytest.mark.parametrize("ids", [10**6, -1, [2, 10**6], "2", 2.0, True, [[2]]])
def test_ends_that_are_no_ids_of_tokens(tokenizer, base_saying, warned, ids):
    with pytest.raises(ValueError, match=r"generation: eos_token_id=.*choose among the ids of tokens"):
        generation_arguments(tokenizer, dict(eos_token_id=ids))
    for number, settings in enumerate(((dict(eos_token_id=ids), ()), ((), dict(eos_token_id=ids)))):
        folder = base_saying(*settings, folder=str(number))
        file = "config.json" if number else "generation_config.json"
        if ids in (10**6, -1, [2, 10**6]):  # numbers, of another vocabulary
            assert answer_ends(tokenizer, dict(path=folder)) == [2]
            assert any(f"{file}: eos_token_id={ids}: no token of the base has the id" in text for text in warned)
            continue
        with pytest.raises(ValueError, match=rf"{folder}/{file}: eos_token_id=.*choose among"):
            answer_ends(tokenizer, dict(path=folder))


def test_an_id_behind_the_bases_vocabulary_is_none_of_the_added_tokens(tokenizer, base_saying):
    first = tokenizer.convert_tokens_to_ids("<|endofchunk|>")
    for added in (first, first + 1, first + 2):
        assert answer_ends(tokenizer, dict(path=base_saying(dict(eos_token_id=added), folder=str(added)))) == [2]


def test_wrong_ends_show_before_weights_are_loaded(base_saying, tiny_flamingo_config):
    wrong, right = base_saying(dict(eos_token_id="2"), folder="wrong"), base_saying(folder="right")
    for folder in (wrong, right):
        (Path(folder) / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="eos_token_id='2'"):
        built(tiny_flamingo_config, wrong)
    with pytest.raises(ValueError, match="end_token='stop'"):
        built(tiny_flamingo_config, right, generation=dict(end_token="stop"))


@pytest.mark.parametrize(
    ("generation_config", "config", "ends", "named"),
    [
        (dict(eos_token_id=2), {}, [2], ()),
        (dict(eos_token_id=[1, 2]), {}, [2, 1], ()),
        (dict(eos_token_id=1), dict(eos_token_id=1), [2, 1], ("generation_config.json", "config.json")),
        (dict(eos_token_id=1), {}, [2, 1], ("generation_config.json",)),
        ({}, dict(eos_token_id=1), [2], ("config.json",)),
        (dict(eos_token_id=None), dict(eos_token_id=[1, 5]), [2, 1, 5], ("config.json",)),
        (None, dict(eos_token_id=1), [2, 1], ("config.json",)),
        (dict(eos_token_id=None), dict(eos_token_id=None), [2], ()),
        (dict(eos_token_id=[]), {}, [2], ()),
    ],
)
def test_answers_end_where_training_and_where_the_base_end_them(
    tokenizer, base_saying, warned, generation_config, config, ends, named
):
    folder = base_saying(generation_config, config)
    assert answer_ends(tokenizer, dict(path=folder)) == ends
    assert len(warned) == bool(named)
    for name in ("generation_config.json", "config.json"):
        assert any(f"{folder}/{name} with '<s>' (id 1)" in text for text in warned) == (name in named)
    assert all("the tokenizer ends sequences with '</s>' (id 2)" in text for text in warned)
    assert all(text.endswith("answers end with " + " or ".join(NAMES[i] for i in ends)) for text in warned)


NAMES = {1: "'<s>' (id 1)", 2: "'</s>' (id 2)", 5: "'<0x02>' (id 5)"}


def test_the_ends_of_a_described_model(tokenizer, tiny_llama, warned):
    described = dict(path=tiny_llama, config=dict(model_type="llama"))
    assert answer_ends(tokenizer, described) == [2]
    assert not warned
    described["config"]["eos_token_id"] = 1
    assert answer_ends(tokenizer, described) == [2, 1]
    assert "language.config with '<s>' (id 1)" in warned[0]


@pytest.mark.parametrize("beams", [dict(num_beams=1), dict(num_beams=2), dict(num_beams=3, beam_scores="text")])
@pytest.mark.parametrize("end", [1, 2])
def test_every_way_to_generate_ends_at_every_end(tiny_flamingo_config, base_saying, beams, end):
    model = built(tiny_flamingo_config, base_saying(dict(eos_token_id=1), dict(eos_token_id=1)))
    ids = model.generate(**prompts(model), **saying(end), **beams)
    assert ids.shape == (3, 1)
    assert ids[0, 0] in (1, 2)
    given = generation_arguments(model.tokenizer, {**saying(end), **beams}, model.language.ends)
    assert Sampler(model.language, given, torch.tensor([[5, 6]])).ends == {1, 2}


def test_an_end_that_is_no_special_token_is_not_part_of_the_text(tiny_flamingo_config, base_saying):
    word = 270
    model = built(tiny_flamingo_config, base_saying(dict(eos_token_id=[2, word])))
    assert model.tokenizer.decode([word]).strip()
    model.generation = saying(word)
    rows = model(**prompts(model), metas=[{}] * 3, mode="predict")
    assert [row["prediction"] for row in rows] == [""] * 3
    model.generation = {**saying(word), "eos_token_id": 2}
    assert model(**prompts(model), metas=[{}] * 3, mode="predict")[0]["prediction"]


@pytest.mark.parametrize(("pad", "ends"), [("<s>", [2, 1]), ("</s>", 2)])
def test_padding_that_is_an_end(tiny_flamingo_config, base_saying, pad, ends):
    """As in Qwen's folders, whose padding is one of the ends of generation, and in many whose padding is the end."""
    folder = base_saying(dict(eos_token_id=ends))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.pad_token = pad
    tokenizer.save_pretrained(folder)
    model = built(tiny_flamingo_config, folder)
    assert model.tokenizer.pad_token == pad
    for beams in (dict(num_beams=1), dict(num_beams=2), dict(num_beams=3, beam_scores="text")):
        ids = model.generate(**prompts(model), **saying(model.tokenizer.pad_token_id), **beams)
        assert ids.shape == (3, 1)


def test_settings_of_the_base_do_not_act(tiny_flamingo_config, tiny_llama, base_saying):
    plain, leaking = built(tiny_flamingo_config, tiny_llama), built(tiny_flamingo_config, base_saying(LEAKING))
    for given in ({}, dict(num_beams=2), dict(num_beams=3, beam_scores="text"), dict(max_new_tokens=9)):
        expected = plain.generate(**prompts(plain), **given)
        assert torch.equal(leaking.generate(**prompts(leaking), **given), expected)
    prompt = torch.tensor([[5, 6]])
    samplers = [
        Sampler(model.language, generation_arguments(model.tokenizer, dict(do_sample=True, temperature=0.5)), prompt, 1)
        for model in (plain, leaking)
    ]
    assert [type(each) for each in samplers[1].processors] == [type(each) for each in samplers[0].processors]
    assert samplers[1].max_new_tokens == samplers[0].max_new_tokens
    assert samplers[1](prompt, torch.arange(300.0)[None]) == samplers[0](prompt, torch.arange(300.0)[None])
    assert leaking.settings_in_force() == plain.settings_in_force()


def test_settings_in_force(tiny_flamingo_config, base_saying):
    model = built(tiny_flamingo_config, base_saying(dict(LEAKING, eos_token_id=1)), generation={})
    image, pad = model.tokenizer.convert_tokens_to_ids(["<image>", "<PAD>"])
    tokens = {"1": "<s>", "2": "</s>", str(image): "<image>", str(pad): "<PAD>"}
    greedy = dict(do_sample=False, num_beams=1, max_new_tokens=20, eos_token_id=[2, 1], suppress_tokens=[image, pad])
    assert model.settings_in_force() == {**greedy, "tokens": tokens}
    beams = dict(num_beams=3, beam_scores="text", length_penalty=-2.0, end_token="<|endofchunk|>", suppress_tokens=None)
    chunk = model.tokenizer.convert_tokens_to_ids("<|endofchunk|>")
    expected = dict(beams, do_sample=False, early_stopping=False, max_new_tokens=20, suppress_tokens=[])
    expected |= dict(eos_token_id=[chunk], tokens={str(chunk): "<|endofchunk|>"})
    assert model.settings_in_force(beams) == expected
    drawn = model.settings_in_force(dict(do_sample=True, temperature=0.5, repetition_penalty=1.1, max_new_tokens=5))
    assert drawn == {
        **greedy,
        **dict(do_sample=True, temperature=0.5, top_k=50, top_p=1.0, repetition_penalty=1.1, max_new_tokens=5),
        "tokens": tokens,
    }
    assert json.loads(json.dumps(drawn)) == drawn
    with pytest.raises(ValueError, match="unknown generation arguments: temprature"):
        model.settings_in_force(dict(temprature=1))


def test_scores_of_beams(tokenizer):
    assert generation_arguments(tokenizer, dict(beam_scores="text", num_beams=2))["beam_scores"] == "text"
    with pytest.raises(ValueError, match="beam_scores='words': choose one of answer, text"):
        generation_arguments(tokenizer, dict(beam_scores="words"))
