"""Chat requests through the official client, answered by a fake chat."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from mmgpt.server import completions
from tests.server.conftest import (
    RecordingChat,
    data_uri,
    image_bytes,
    image_content,
    request,
    run_server,
    text_content,
    wait_until,
)


def test_an_answer(served):
    answer = served.ask("hello there")
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant",
        "hello there 0 images",
        "stop",
    )
    assert (answer.object, answer.model, choice.logprobs) == ("chat.completion", "tiny", None)
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (2, 4, 6)
    assert usage.prompt_tokens_details.cached_tokens == 0


def test_a_conversation_with_images(served):
    red, blue = (image_content(data_uri(image_bytes(colour, kind="JPEG"))) for colour in ("red", "blue"))
    messages = [
        dict(role="system", content="Be brief."),
        dict(role="user", content=[red, text_content("what?")]),
        served.ask("red").choices[0].message.model_dump(),  # as clients send back an answer
        dict(role="user", content=[text_content("and"), blue, text_content("this?")]),
    ]
    assert served.ask(messages=messages).choices[0].message.content == "andthis? 2 images"
    conversation = served.chat.submitted["conversation"]
    assert conversation.system == "Be brief."
    assert conversation.turns[0]["question"][1:] == [text_content("what?")]
    assert conversation.turns[0]["answer"] == "red 0 images"
    assert [max(range(3), key=image.getpixel((5, 5)).__getitem__) for image in conversation.images] == [0, 2]


def test_arguments_reach_the_chat(served):
    served.ask(temperature=0.5, max_tokens=9, seed=3, stop=["a", "b"], logprobs=True, top_logprobs=2)
    submitted = served.chat.submitted
    assert submitted["generation"] == dict(do_sample=True, temperature=0.5, top_k=0, max_new_tokens=9)
    assert (submitted["seed"], submitted["stop"], submitted["top_logprobs"]) == (3, ("a", "b"), 2)
    served.ask(logprobs=True)
    assert served.chat.submitted["top_logprobs"] == 0
    served.ask()
    assert (served.chat.submitted["generation"], served.chat.submitted["top_logprobs"]) == ({}, None)


def test_a_stream_is_the_answer_in_pieces(served):
    chunks = list(served.ask("grüße 你好", stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == ["grüße", " 你好", " 0", " images"]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 5 + ["stop"]
    assert {(chunk.id, chunk.created, chunk.object, chunk.usage) for chunk in chunks} == {
        (chunks[0].id, chunks[0].created, "chat.completion.chunk", None)
    }


def test_the_wire_format_of_a_stream(served):
    response = served.post(request("line\u2028one", stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end, nothing = response.content.split(b"\n\n")
    assert (end, nothing) == (b"data: [DONE]", b"")
    assert all(event.startswith(b"data: {") and b"\n" not in event for event in events)
    assert "usage" not in json.loads(events[0][6:])


def test_a_stream_with_usage_ends_with_it(served):
    chunks = list(served.ask("hello", stream=True, stream_options={"include_usage": True}))
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 4)
    assert not any(chunk.usage for chunk in chunks[:-1])


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities(served, stream):
    answer = served.ask("a ü", logprobs=True, stream=stream)
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    tokens = [token for choice in choices for token in choice.logprobs.content]
    assert [(token.token, token.logprob) for token in tokens] == [(t, -0.5) for t in ("a", "ü", "0", "images")]
    assert tokens[1].bytes == list("ü".encode())


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_answer_is_a_status(served, stream):
    with pytest.raises(openai.RateLimitError) as busy:
        served.ask("busy", stream=stream)
    assert (busy.value.code, busy.value.response.headers["Retry-After"]) == ("rate_limit_exceeded", "1")
    with pytest.raises(openai.BadRequestError, match="the question is empty"):
        served.ask(" ", stream=stream)
    with pytest.raises(openai.BadRequestError, match="a prompt of 9000 tokens, the limit is 4095") as refused:
        served.ask("too-long", stream=stream)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as refused:
        served.ask(stream=stream, temperature=3)
    assert refused.value.param == "temperature"


def test_an_unexpected_error_is_told_without_its_details(served):
    with pytest.raises(openai.InternalServerError) as caught:
        served.ask("fail")
    assert caught.value.status_code == 500
    assert "broken" not in str(caught.value)
    stream = served.ask("fail", stream=True)
    with pytest.raises(openai.APIError, match="failed to answer"):
        list(stream)
    assert b"[DONE]" not in served.post(request("fail", stream=True)).content
    assert served.ask("hello").choices


def test_a_stream_that_the_client_leaves_stops_the_model(served):
    before = served.metric("mmgpt_cancelled_total"), served.metric('mmgpt_answers_total{end="cancelled"}')
    stream = served.ask("slow " * 20, stream=True)
    assert next(stream).choices
    assert served.metric("mmgpt_running") == 1
    stream.close()
    wait_until(lambda: served.metric("mmgpt_cancelled_total") == before[0] + 1)
    wait_until(lambda: served.metric('mmgpt_answers_total{end="cancelled"}') == before[1] + 1)
    wait_until(lambda: served.metric("mmgpt_running") == 0)


def test_an_answer_that_the_client_does_not_wait_for_stops_the_model(served):
    name = 'mmgpt_http_requests_total{path="/v1/chat/completions",status="499"}'
    before = served.chat.stopped, served.metric(name)
    with pytest.raises(openai.APITimeoutError):
        served.client(timeout=0.3).chat.completions.create(model="tiny", messages=request("slow " * 20)["messages"])
    wait_until(lambda: served.chat.stopped == before[0] + 1)
    wait_until(lambda: served.metric(name) == before[1] + 1)


def test_the_time_limit():
    with run_server(time_limit=0.2) as served:
        with pytest.raises(openai.InternalServerError) as caught:
            served.ask("slow " * 20)
        assert (caught.value.status_code, caught.value.code) == (504, "time_limit")
        stream = served.ask("slow " * 20, stream=True)
        contents = []
        with pytest.raises(openai.APIError, match="longer than 0.2 seconds"):
            contents += [chunk.choices[0].delta.content for chunk in stream]
        wait_until(lambda: served.chat.stopped == 2)
        assert served.metric('mmgpt_answers_total{end="error"}') == 2
        assert served.ask("hello").choices


def test_an_image_from_an_allowed_host(served):
    """The server is the image host itself: it has no images, but gets the request."""
    part = image_content(f"{served.url}/image.png")
    with pytest.raises(openai.BadRequestError, match="fetches no URLs") as caught:
        served.ask([part, text_content("what?")])
    assert caught.value.param == "messages[0].content[0].image_url.url"
    with run_server(allow_hosts=(served.url.removeprefix("http://"),)) as fetching:
        with pytest.raises(openai.BadRequestError, match="status 404"):
            fetching.ask([part, text_content("what?")])


def test_other_requests_are_served_while_images_are_decoded(served, monkeypatch):
    from mmgpt.server import image_urls

    statuses = []

    def slow(data, limits):
        statuses.append(httpx.get(f"{served.url}/health", timeout=20).status_code)
        return real(data, limits)

    real = image_urls.open_image
    monkeypatch.setattr(image_urls, "open_image", slow)
    served.ask([image_content(), text_content("what?")])
    assert statuses == [200]


def test_a_stream_counts_as_an_active_request():
    with run_server(max_requests=1) as served:
        stream = served.ask("slow " * 20, stream=True)
        next(stream)
        with pytest.raises(openai.RateLimitError):
            served.ask("hello")
        stream.close()
        wait_until(lambda: served.post(request()).status_code == 200)


def test_a_client_that_does_not_read_is_dropped(monkeypatch):
    monkeypatch.setattr(completions, "SEND_TIMEOUT", 0.2)
    with run_server() as served, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", int(served.url.rpartition(":")[2])))
        body = json.dumps(request("a " * 40_000, stream=True, logprobs=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        wait_until(lambda: served.server.admission.active)
        wait_until(lambda: not served.server.admission.active)


def test_a_client_that_left_before_the_stream_began_stops_the_model():
    """The framework does not even start the stream then."""

    class Late(RecordingChat):
        def submit(self, *arguments, **more):
            begun.set()
            left.wait(20)
            return super().submit(*arguments, **more)

    begun, left = threading.Event(), threading.Event()
    with run_server(Late()) as served:
        with pytest.raises(openai.APITimeoutError), ThreadPoolExecutor() as pool:
            job = pool.submit(served.client(timeout=0.5).chat.completions.create, **request("slow " * 20), stream=True)
            begun.wait(20)
            job.result()
        time.sleep(0.1)  # until the server has seen it
        left.set()
        wait_until(lambda: served.chat.stopped == 1)
        wait_until(lambda: served.metric('mmgpt_answers_total{end="cancelled"}') == 1)


def test_other_forms_that_the_official_client_sends(served):
    """An answer without text, user messages in a row, and hints."""
    hint = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    image = {"type": "image_url", "image_url": {"url": data_uri(), "detail": "original"}, **hint}
    messages = [
        dict(role="user", content="one"),
        dict(role="assistant", content=None),
        dict(role="user", content=[image]),
        dict(role="user", content=[{**text_content("two"), **hint}]),
    ]
    hints = dict(prompt_cache_options={"mode": "explicit"}, prompt_cache_retention="24h", safety_identifier="a")
    answer = served.ask(messages=messages, service_tier="auto", store=False, metadata={"a": "b"}, **hints)
    assert answer.choices[0].message.content == "two 1 images"
    first, second = served.chat.submitted["conversation"].turns
    assert first == dict(question=[text_content("one")], answer="")
    assert second == dict(question=[{"type": "image"}, text_content("two")])
