"""Schema of chat requests: accepted values, and errors for others."""

import json

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from mmgpt.server.errors import ApiError
from mmgpt.server.schema import MAX_MARKS, ChatRequest, read_request
from tests.server.conftest import image_content, request, text_content


def read(body):
    return read_request(body if isinstance(body, bytes) else json.dumps(body).encode(), ["tiny"], 100)


def refusal(body):
    with pytest.raises(ApiError) as caught:
        read(body)
    return caught.value.status, caught.value.body["error"]


def test_a_string_is_one_text_content():
    contents = [text_content("what is"), image_content("data:"), text_content("this?")]
    messages = read(
        request(messages=[dict(role="user", content=contents), dict(role="assistant", content="a")])
    ).messages
    assert [message.model_dump(include={"role", "content"}, exclude_unset=True) for message in messages] == [
        dict(role="user", content=contents),
        dict(role="assistant", content=[text_content("a")]),
    ]


@pytest.mark.parametrize(
    "more, arguments",
    [
        ({}, {}),
        ({"temperature": 0}, {"do_sample": False}),
        ({"temperature": 1e-9}, {"do_sample": False}),
        ({"temperature": 0.5, "top_p": 0.9}, {"do_sample": True, "temperature": 0.5, "top_k": 0, "top_p": 0.9}),
        ({"max_tokens": 7}, {"max_new_tokens": 7}),
        ({"max_completion_tokens": 7}, {"max_new_tokens": 7}),
        ({"max_tokens": 7, "max_completion_tokens": 7}, {"max_new_tokens": 7}),
    ],
)
def test_generation_arguments(more, arguments):
    assert read(request(**more)).generation() == arguments


@pytest.mark.parametrize("stop, stops", [("a", ["a"]), (["a", "b"], ["a", "b"]), (None, None), ([], [])])
def test_stop_is_a_text_or_a_list(stop, stops):
    assert read(request(stop=stop)).stop == stops


WITHOUT_EFFECT = dict(
    user="me", metadata={"a": "b"}, store=True, service_tier="auto", parallel_tool_calls=True, prediction=None,
    n=1, frequency_penalty=0, presence_penalty=0.0, logit_bias={}, response_format={"type": "text"}, tools=[],
    tool_choice="none", modalities=["text"], reasoning_effort=None, audio=None, safety_identifier="a",
    prompt_cache_options={"mode": "explicit", "ttl": "30m"}, prompt_cache_retention="24h", moderation=None,
)  # fmt: skip


def test_parameters_without_effect_are_accepted():
    assert read(request(**WITHOUT_EFFECT)).generation() == {}


def test_every_parameter_of_the_official_client_is_known():
    official = set(CompletionCreateParamsBase.__annotations__) | {"stream"}
    assert official - set(ChatRequest.model_fields) == set()


@pytest.mark.parametrize("detail", ["auto", "low", "high", "original", None])
def test_hints_of_contents_are_accepted(detail):
    hint = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    image = {"type": "image_url", "image_url": {"url": "data:", "detail": detail}}
    (message,) = read(request([{**image, **hint}, {**text_content("what?"), **hint}])).messages
    assert [part.type for part in message.content] == ["image_url", "text"]


@pytest.mark.parametrize("more", [{"content": None}, {}])
def test_an_assistant_message_may_have_no_content(more):
    messages = [dict(role="user", content="a"), dict(role="assistant", **more), dict(role="user", content="b")]
    assert [len(message.content) for message in read(request(messages=messages)).messages] == [1, 0, 1]


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": -0.1}, {"temperature": 2.1}, {"temperature": "1"}, {"temperature": True},
        {"temperature": float("nan")}, {"temperature": float("inf")}, {"temperature": 1e999},
        {"top_p": 0}, {"top_p": 1.1}, {"top_p": float("nan")},
        {"max_tokens": 0}, {"max_tokens": -1}, {"max_tokens": 101}, {"max_tokens": 1.5}, {"max_tokens": 10**30},
        {"max_tokens": "5"}, {"max_completion_tokens": 101}, {"seed": 2**63}, {"seed": 0.5}, {"seed": -(10**40)},
        {"stop": ""}, {"stop": ["a"] * 5}, {"stop": [""]}, {"stop": 3}, {"stop": "x" * 201},
        {"n": 2}, {"n": 0}, {"n": True}, {"logit_bias": {"5": 1}}, {"frequency_penalty": 0.1},
        {"presence_penalty": float("nan")}, {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"tool_choice": "required"},
        {"moderation": {"model": "omni-moderation-latest"}},
        {"functions": [{"name": "f"}]}, {"modalities": ["audio"]}, {"reasoning_effort": "high"},
        {"stream": "yes"}, {"logprobs": 3}, {"messages": []}, {"messages": "hello"}, {"messages": None},
    ],
)  # fmt: skip
def test_values_that_are_refused(more):
    status, error = refusal(request(**more))
    assert (status, error["type"], error["param"].split("[")[0]) == (400, "invalid_request_error", next(iter(more)))
    assert error["message"].startswith((f"{error['param']}: ", "answers have at most 100 tokens here"))


@pytest.mark.parametrize(
    "more, param",
    [
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    ],
)
def test_values_that_do_not_fit_each_other(more, param):
    status, error = refusal(request(**more))
    assert (status, error["param"]) == (400, param)


@pytest.mark.parametrize(
    "message, param",
    [
        (dict(role="tool", content="x"), "role"),
        (dict(role="User", content="x"), "role"),
        (dict(role="user"), "content"),
        (dict(role="user", content=None), "content"),
        (dict(role="system", content=None), "content"),
        (dict(role="developer"), "content"),
        (dict(role="user", content=[dict(text_content("x"), cache_control={})]), "content[0].cache_control"),
        (
            dict(role="user", content=[dict(type="image_url", image_url=dict(url="x", detail="huge"))]),
            "content[0].image_url.detail",
        ),
        (dict(role="user", content=3), "content"),
        (dict(role="user", content=[text_content(3)]), "content[0].text"),
        (dict(role="user", content=["x"]), "content[0]"),
        (dict(role="user", content=[text_content("x"), dict(type="input_audio", input_audio={})]), "content[1]"),
        (dict(role="user", content=[dict(type="image_url", image_url="x")]), "content[0].image_url"),
        (dict(role="user", content=[dict(type="image_url", image_url={})]), "content[0].image_url.url"),
        (dict(role="assistant", content="x", tool_calls=[{}]), "tool_calls"),
        (dict(role="user", content="x", weight=1), "weight"),
    ],
)
def test_messages_that_are_refused(message, param):
    status, error = refusal(request(messages=[dict(role="user", content="a"), message]))
    assert (status, error["param"]) == (400, f"messages[1].{param}")


def test_an_unknown_parameter_is_named():
    _, error = refusal(request(top_k=3))
    assert (error["code"], error["param"]) == ("unknown_parameter", "top_k")


def test_another_model_is_404():
    status, error = refusal(request(model="gpt-4o"))
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "'gpt-4o'" in error["message"]
    assert "'tiny'" in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"text"', b"{", b"\xff\xfe", b"{'model': 'tiny'}", b"[" * 100_000,
        b'{"a":' * 100_000, b'{"model": "\\ud800", "messages": [{"role": "user", "content": "a"}]}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\\udc00"}]}',
        b'{"max_tokens": ' + b"9" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_invalid_bodies_are_refused(body):
    assert refusal(body)[0] == 400


def test_a_body_that_would_take_much_memory_is_not_parsed():
    status, error = refusal(b'{"model":"tiny","messages":[' + b"{}," * MAX_MARKS + b"{}]}")
    assert status == 400
    assert "too complex" in error["message"]


def test_validation_ends_at_the_first_wrong_message():
    with pytest.raises(ApiError) as caught:
        read(request(messages=[{}] * 50_000))
    assert {error["loc"][:2] for error in caught.value.__cause__.errors()} == {("messages", 0)}
