"""Bodies of requests: their type, size and time."""

import socket

import pytest

from mmgpt.server import body

from .conftest import request, run_server, until

MIB = 2**20


def status(response):
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_read(served, kind):
    response = served.post(b'{"model": "tiny"}', headers={"Content-Type": kind})
    assert status(response) == (415, "unsupported_media_type")


def test_json_may_name_its_charset(served):
    response = served.post(b"{}", headers={"Content-Type": "Application/JSON; charset=utf-8"})
    assert status(response) == (400, None)


def pieces(size):
    """A body without a length: sent in chunks."""
    yield b'{"model": "'
    for _ in range(size // MIB):
        yield b"x" * MIB
    yield b'"}'


def test_the_size_is_limited():
    with run_server(max_body=1) as served:
        for content in (b'{"model": "%s"}' % (b"x" * MIB), pieces(2 * MIB)):
            response = served.post(content)
            assert status(response) == (413, "request_too_large")
            assert "1048576 bytes" in response.json()["error"]["message"]
        assert served.post(b'{"model": "%s"}' % (b"x" * (MIB - 100))).status_code != 413
        assert served.post(request()).status_code == 200


def begun(served, length=100):
    """A connection with the beginning of a request."""
    connection = socket.create_connection(served.url.removeprefix("http://").split(":"), timeout=10)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}"
    )
    connection.sendall(f"{head}\r\n\r\n{{".encode())
    return connection


def test_the_time_is_limited(served, monkeypatch):
    monkeypatch.setattr(body, "SECONDS", 0.1)
    with begun(served) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_leaves_while_it_sends_gives_its_place_back():
    with run_server(max_requests=1) as served:
        connection = begun(served)
        until(lambda: served.post(request()).status_code == 429)
        connection.close()
        until(lambda: served.post(request()).status_code == 200)


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999999999999999999", "0, 5"])
def test_lengths_that_are_none(served, length):
    with begun(served, length) as connection:
        assert connection.recv(1000)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413")
