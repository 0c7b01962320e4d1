"""Answers beside their components: equally many tokens in all, and ratios of rows that belong together."""

import pytest

from benchmarks.decoding import (
    CACHED,
    ENCODER,
    GATED,
    LANGUAGE,
    RESAMPLER,
    UNCACHED,
    Setting,
    Sides,
    component,
    question,
    ratios,
    rows,
)
from benchmarks.peer import peers
from mmgpt.apis import Chat, build_model
from mmgpt.apis.precision import for_serving
from mmgpt.datasets.instruction import build_pipeline


@pytest.fixture(scope="module")
def small_sides(small_cfg):
    model = for_serving(build_model(small_cfg, device="cpu"), merge=False)
    return Sides(small_cfg, Chat(model, build_pipeline(small_cfg.chat_pipeline), scheduler=dict(cache_bytes=0)))


def test_all_rows_and_their_ratios(small_cfg):
    cases = rows(small_cfg, device="cpu", tokens=2, words=2, beams=(1, 3), batches=(1, 2))
    times = {name: [case()] for name, case in cases.items()}
    assert all(seconds > 0 for (seconds,) in times.values())
    assert len(cases) == 2 * (6 + 4 * 4) + 2
    assert set(ratios(times)) == {
        *(f"{name}{lora}_over_{of}" for name in ("prefill", "decode", "decode_beam3") for lora in ("", "_unmerged")
          for of in ("parts", "peer")),
        "second_turn_over_again",
    }  # fmt: skip


def test_ratios_are_of_corresponding_rows():
    prefill, decode = Setting(True).first, Setting(True, 3, 8).next
    times = {prefill: 8.0, peers(prefill): 16.0, decode: 3.0, peers(decode): 2.0, CACHED: 1.0, UNCACHED: 4.0}
    times |= {component(prefill, name): 1.0 for name in (LANGUAGE, ENCODER, RESAMPLER, GATED)}
    times |= {component(decode, LANGUAGE): 1.0, component(decode, GATED): 0.5}
    assert ratios({name: [seconds] for name, seconds in times.items()}) == {
        "prefill_over_parts": 2.0,
        "prefill_over_peer": 0.5,
        "decode_beam3_batch8_over_parts": 2.0,
        "decode_beam3_batch8_over_peer": 1.5,
        "second_turn_over_again": 0.25,
    }


@pytest.mark.parametrize("beams", [1, 3])
def test_all_sides_generate_equally_many_tokens(small_sides, beams):
    questions = [question(number, 3, 32) for number in range(2)]
    cases = small_sides.decoding(questions, 5, Setting(False, beams, 2))
    models = {
        Setting(False, beams, 2).next: small_sides.chat.flamingo.language,
        component(Setting(False, beams, 2).next, LANGUAGE): small_sides.bare,
        peers(Setting(False, beams, 2).next): small_sides.peer,
    }
    for name, model in models.items():
        shapes = []

        def note(_, args, shapes=shapes):
            shapes.append(args[0].shape)

        hook = model.get_input_embeddings().register_forward_pre_hook(note)
        cases[name]()
        hook.remove()
        # What is timed: one token of each row a step.
        assert shapes[-4:] == [(2 * beams, 1)] * 4
        # Prompts that come together share a prefill.
        assert len(shapes) == 4 + 1


def test_weights_that_a_token_is_multiplied_by(small_sides):
    row = Setting(False, 1, 1).next
    cases = small_sides.decoding([question(0, 3, 32)], 5, Setting(False, 1, 1))
    language = small_sides.chat.flamingo.language
    table = language.get_input_embeddings().weight
    every = sum(weight.nbytes for weight in language.parameters())
    assert cases[row].figures() == {"weight_bytes": every - table.nbytes}
    assert cases[peers(row)].figures() == {}
    alone = sum(weight.nbytes for name, weight in language.named_parameters() if ".gated." not in name)
    assert cases[component(row, LANGUAGE)].figures() == {"weight_bytes": alone - table.nbytes}


def test_questions_have_their_own_images():
    images = [question(number, 2, 32).images[0].tobytes() for number in (0, 1, 256)]
    assert len(set(images)) == 3
