"""Shutdown of a server."""

import threading

import httpx
import openai
import pytest

from mmgpt.inference.answer import Answer
from tests.server.conftest import RecordingChat, request, run_server, wait_until


class HangingChat(RecordingChat):
    """Its one answer ends when the test ends it."""

    answer = None

    def submit(self, conversation, generation=None, *, listener=None, **_):
        self.answer = Answer("", listener)
        return self.answer


def ask_in_thread(served, **more):
    """A thread that asks a question, and the list that its result goes to."""
    results = []

    def ask():
        try:
            answer = served.ask("hello", **more)
            results.append([chunk for chunk in answer][-1].choices[0] if more else answer.choices[0])
        except openai.APIError as error:
            results.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: served.chat.answer)
    return thread, results


def test_active_requests_finish_and_new_ones_are_refused():
    with run_server(HangingChat(), shutdown_limit=60) as served:
        thread, results = ask_in_thread(served)
        served.server.should_exit = True
        wait_until(lambda: served.get("/health").status_code == 503)
        refused = served.post(request())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert refused.headers["Retry-After"] == "5"
        assert not served.chat.answer.cancelled
        assert not served.chat.closed
        served.chat.answer.end("stop")
        thread.join()
        assert results[0].finish_reason == "stop"
    assert served.chat.closed
    with pytest.raises(httpx.ConnectError):
        served.get("/health")


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_requests_end_at_the_shutdown_limit(more):
    with run_server(HangingChat(), shutdown_limit=0.1) as served:
        thread, results = ask_in_thread(served, **more)
        served.server.should_exit = True
        thread.join()
        assert "the server is shutting down" in str(results[0])
        wait_until(lambda: served.chat.answer.cancelled)


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_an_answer_cancelled_by_the_chat_is_a_shutdown(more):
    with run_server(HangingChat()) as served:
        thread, results = ask_in_thread(served, **more)
        served.chat.answer.end("cancelled")
        thread.join()
        assert "the server is shutting down" in str(results[0])


def test_it_can_be_ended_at_once():
    with run_server(HangingChat(), shutdown_limit=60) as served:
        thread, results = ask_in_thread(served)
        served.server.should_exit = served.server.force_exit = True
        thread.join(20)
        assert isinstance(results[0], openai.APIError)
    served.chat.answer.end("stop")  # Nobody reads the answer any more.
