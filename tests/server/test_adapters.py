"""Adapters over HTTP: named in `model`, answered at once as by their merged models, with caches apart."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from mmgpt.apis import Chat
from tests.helpers.adapters import random_tuning
from tests.server.conftest import data_uri, image_bytes, image_content, run_server, text_content

MODELS = ("tiny", "tiny:one", "tiny:two")


@pytest.fixture(scope="module")
def tunings(tiny_base, tmp_path_factory):
    """Checkpoint and exported folder of two tunings, by the model's name; None for the base."""
    folder = tmp_path_factory.mktemp("tunings")
    made = [random_tuning(tiny_base, folder / str(seed), seed) for seed in (1, 2)]
    return dict(zip(MODELS, [(None, None), *made], strict=True))


@pytest.fixture(scope="module")
def served(tiny_base, tunings):
    """A server with both."""
    adapters = {"one": tunings["tiny:one"][1], "two": tunings["tiny:two"][1]}
    with run_server(Chat.from_config(tiny_base, device="cpu", adapters=adapters)) as served:
        yield served


def ask(served, model, messages, **arguments):
    settings = dict(model=model, messages=messages, temperature=0, max_tokens=12, **arguments)
    return served.client().chat.completions.create(**settings)


def conversations():
    for colour in ("red", "blue", "green", "white"):
        image = image_content(data_uri(image_bytes(colour, (64, 64))))
        yield [dict(role="user", content=[image, text_content("what colour is it?")])]
        yield [dict(role="user", content=f"is {colour} a colour?")]
        first = dict(role="user", content=[image, text_content("what is it?")])
        yield [first, dict(role="assistant", content="a circle"), dict(role="user", content="where?")]


def test_concurrent_answers_are_those_of_merged_models(served, tiny_base, tunings):
    asked, expected = list(conversations()), {}
    for model, (checkpoint, _) in tunings.items():
        with run_server(Chat.from_config(tiny_base, checkpoint, "cpu")) as alone:
            answers = [ask(alone, "tiny", messages) for messages in asked]
            expected[model] = [answer.choices[0].message.content for answer in answers]
    assert len({tuple(texts) for texts in expected.values()}) == 3
    with ThreadPoolExecutor(24) as pool:
        jobs = [(model, number) for number in range(len(asked)) for model in MODELS] * 2
        answers = list(pool.map(lambda job: ask(served, job[0], asked[job[1]]), jobs))
    assert [answer.choices[0].message.content for answer in answers] == [expected[m][n] for m, n in jobs]
    assert [answer.model for answer in answers] == [model for model, _ in jobs]
    assert served.metric("mmgpt_failed_total") == 0


def test_the_prefix_cache_is_apart(served):
    messages, cached = [dict(role="user", content=[image_content(), text_content("which cache?")])], []
    for _ in range(2):
        # With a key of its own, nothing that other tests asked is used.
        usages = [ask(served, model, messages, prompt_cache_key="apart").usage for model in MODELS]
        cached.append([usage.prompt_tokens_details.cached_tokens for usage in usages])
    assert cached[0] == [0, 0, 0]
    assert cached[1] == [usage.prompt_tokens - 1 for usage in usages]


def test_a_stream_of_an_adapter(served):
    [first, *_] = conversations()
    chunks = list(ask(served, "tiny:one", first, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == ask(served, "tiny:one", first).choices[0].message.content
    assert {chunk.model for chunk in chunks} == {"tiny:one"}


def test_models_are_listed(served):
    listed = served.get("/v1/models").json()["data"]
    assert [(model["id"], model["parent"]) for model in listed] == [
        (MODELS[0], None),
        *((m, "tiny") for m in MODELS[1:]),
    ]
    assert served.get("/v1/models/tiny:two").json() == listed[2]


def test_an_unknown_adapter_is_refused(served):
    with pytest.raises(openai.NotFoundError, match="this server has 'tiny', 'tiny:one', 'tiny:two'"):
        ask(served, "tiny:three", next(conversations()))
    assert served.get("/v1/models/one").status_code == 404
