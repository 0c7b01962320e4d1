"""Several LoRA adapters in one chat: each answers as its own merged model, and they share no forward pass or cache."""

import threading
from contextlib import closing
from itertools import groupby

import pytest
import torch
from PIL import Image

from mmgpt.apis import Chat, MMGPTInferencer
from mmgpt.inference import scheduler
from mmgpt.inference.answer import Piece
from mmgpt.models.adapters import use_adapter
from tests.helpers.adapters import random_tuning

NAMES = (None, "one", "two")
GENERATION = dict(max_new_tokens=12)


@pytest.fixture(scope="module")
def tunings(tiny_base, tmp_path_factory):
    """Checkpoint and exported folder of two tunings, by name."""
    folder = tmp_path_factory.mktemp("tunings")
    return {name: random_tuning(tiny_base, folder / name, seed) for seed, name in enumerate(NAMES[1:], 1)}


@pytest.fixture(scope="module")
def merged(tiny_base, tunings):
    """A chat of its own for each tuning, merged, and for the base."""
    checkpoints = {name: checkpoint for name, (checkpoint, _) in tunings.items()}
    return {name: Chat.from_config(tiny_base, checkpoints.get(name), "cpu") for name in NAMES}


@pytest.fixture
def chat(tiny_base, tunings):
    """One chat with both."""
    adapters = {"one": tunings["one"][1], "two": tunings["two"][1] / "adapter"}
    with closing(Chat.from_config(tiny_base, device="cpu", adapters=adapters)) as chat:
        yield chat


def questions(chat):
    texts = ["what colour?", "what shape is it?", "is the circle red or blue?"]
    images = [[], [Image.new("RGB", (70, 70), "red")], [Image.new("RGB", (64, 90), c) for c in ("blue", "green")]]
    return [chat.start().with_question(text, some) for text in texts for some in images]


def test_mixed_requests_are_answered_as_by_merged_models(chat, merged, monkeypatch):
    asked = questions(chat)
    expected = [merged[name].answer_all(asked, GENERATION) for name in NAMES]
    assert len({tuple(answers) for answers in expected}) == 3
    switches = []
    monkeypatch.setattr(scheduler, "use_adapter", lambda model, name: switches.append(name) or use_adapter(model, name))
    with chat.scheduler.paused():  # so that all of them wait
        requests = [[chat.submit(each, GENERATION, adapter=name) for name in NAMES] for each in asked]
    texts = [[answer.text().strip() for answer in row] for row in requests]
    assert texts == [list(row) for row in zip(*expected, strict=True)]
    assert set(switches) == set(NAMES)
    for number, name in enumerate(NAMES):
        assert chat.answer_all(asked[:2], {**GENERATION, "num_beams": 3}, name) == merged[name].answer_all(
            asked[:2], {**GENERATION, "num_beams": 3}
        )
        assert chat.ask(chat.start(), "what colour?", generation=GENERATION, adapter=name) == expected[number][0]


def test_the_prefix_cache_is_apart(chat):
    asked = questions(chat)[1]
    cached = {}
    for turn in range(2):
        for name in NAMES:
            answer = chat.submit(asked, GENERATION, adapter=name)
            answer.text()
            cached[name, turn] = answer.cached_tokens
    assert {cached[name, 0] for name in NAMES} == {0}
    assert {cached[name, 1] for name in NAMES} == {answer.prompt_tokens - 1}
    assert len(chat.scheduler.prefiller.cache._images) == len(NAMES)


def test_adapters_take_turns(chat):
    """Each answer gets tokens while the other one is under way."""
    order, both = [], dict(max_new_tokens=40, min_new_tokens=40)
    ended = threading.Semaphore(0)

    def listener(name):
        return lambda event: order.append(name) if isinstance(event, Piece) else ended.release()

    with chat.scheduler.paused():
        for name in ("one", "two"):
            asked = chat.start().with_question("what colour?")
            chat.submit(asked, both, adapter=name, top_logprobs=0, listener=listener(name))
    for _ in range(2):
        ended.acquire(timeout=60)
    assert order[:2] == ["one", "two"]  # both first tokens come from prefill
    runs = [len([*run]) for _, run in groupby(order[2:])]
    assert runs[:8] == [scheduler.TURN] * 8


def test_an_error_in_one_adapters_batch_ends_only_its_answers(chat, merged, monkeypatch):
    asked, settings = chat.start().with_question("what colour?"), dict(max_new_tokens=30, min_new_tokens=30)
    step = scheduler.DecodingBatch.step

    def failing(batch, tokens):
        if chat.model.active_adapter == "two":
            raise RuntimeError("out of memory")
        return step(batch, tokens)

    monkeypatch.setattr(scheduler.DecodingBatch, "step", failing)
    with chat.scheduler.paused():
        one, two = (chat.submit(asked, settings, adapter=name) for name in ("one", "two"))
    with pytest.raises(RuntimeError, match="out of memory"):
        two.text()
    assert one.text() == merged["one"].ask(chat.start(), "what colour?", generation=settings)
    assert chat.stats()["failed"] == 1


def test_an_unknown_adapter_is_refused(chat, merged):
    with pytest.raises(ValueError, match="unknown adapter 'three'; adapters: 'one', 'two'"):
        chat.ask(chat.start(), "what?", adapter="three")
    with pytest.raises(ValueError, match="adapters: none was loaded"):
        merged["one"].ask(chat.start(), "what?", adapter="one")


def test_the_base_has_no_lora_of_its_checkpoint(tiny_base, tunings, merged):
    checkpoint, folder = tunings["one"]
    for config, weights in ((tiny_base, checkpoint), (folder, None)):
        chat = Chat.from_config(config, weights, "cpu", adapters={"one": folder})
        asked = questions(chat)
        for name in (None, "one"):
            assert chat.answer_all(asked, GENERATION, name) == merged[name].answer_all(asked, GENERATION)


def test_bfloat16(tiny_base, tunings):
    chat = Chat.from_config(tiny_base, device="cpu", precision="bfloat16", adapters={"one": tunings["one"][1]})
    assert {weight.dtype for weight in chat.model.parameters()} == {torch.bfloat16}
    answers = [chat.ask(chat.start(), "what colour is the circle?", adapter=name) for name in (None, "one", None)]
    assert answers[0] == answers[2] != answers[1]


def test_the_inferencer(tiny_base, tunings, merged):
    adapters = {"one": tunings["one"][1]}
    inferencer = MMGPTInferencer(tiny_base, device="cpu", show_progress=False, adapters=adapters)
    for name in ("one", None):
        [row] = inferencer([(None, "what colour?")], adapter=name)["predictions"]
        assert row["prediction"] == merged[name].ask(inferencer.chat.start(), "what colour?")
        assert inferencer.about["adapter"] == (name or "none")
