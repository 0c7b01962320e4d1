"""How a server ends."""

import threading

import httpx
import openai
import pytest

from mmgpt.inference.answer import Answer
from tests.server.conftest import KnownChat, request, run_server, until


class HeldChat(KnownChat):
    """Its one answer ends when the test ends it."""

    answer = None

    def submit(self, conversation, generation=None, *, listener=None, **_):
        self.answer = Answer("", listener)
        return self.answer


def ask_in_thread(served, **more):
    """A question that is being answered; what comes of it is put into the list."""
    results = []

    def ask():
        try:
            answer = served.ask("hello", **more)
            results.append([chunk for chunk in answer][-1].choices[0] if more else answer.choices[0])
        except openai.APIError as error:
            results.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: served.chat.answer)
    return thread, results


def test_what_is_under_way_is_finished_and_nothing_new_begun():
    with run_server(HeldChat(), shutdown_limit=60) as served:
        thread, results = ask_in_thread(served)
        served.server.should_exit = True
        until(lambda: served.get("/health").status_code == 503)
        refused = served.post(request())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert refused.headers["Retry-After"] == "5"
        assert not served.chat.answer.cancelled and not served.chat.closed
        served.chat.answer.end("stop")
        thread.join()
        assert results[0].finish_reason == "stop"
    assert served.chat.closed
    with pytest.raises(httpx.ConnectError):
        served.get("/health")


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_what_takes_too_long_is_cut(more):
    with run_server(HeldChat(), shutdown_limit=0.1) as served:
        thread, results = ask_in_thread(served, **more)
        served.server.should_exit = True
        thread.join()
        assert "the server is shutting down" in str(results[0])
        until(lambda: served.chat.answer.cancelled)


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_an_engine_that_ends_is_told_as_such(more):
    with run_server(HeldChat()) as served:
        thread, results = ask_in_thread(served, **more)
        served.chat.answer.end("cancelled")
        thread.join()
        assert "the server is shutting down" in str(results[0])


def test_it_can_be_ended_at_once():
    with run_server(HeldChat(), shutdown_limit=60) as served:
        thread, results = ask_in_thread(served)
        served.server.should_exit = served.server.force_exit = True
        thread.join(20)
        assert isinstance(results[0], openai.APIError)
    served.chat.answer.end("stop")  # nobody listens
