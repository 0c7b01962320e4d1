"""Request bodies: type, size and time, and pending ones that must not keep others out."""

import asyncio
import socket
import time
from contextlib import ExitStack, closing

import pytest
from starlette.requests import ClientDisconnect

from mmgpt.server import request_body
from mmgpt.server.request_body import BodyReader, BodyRefused, CloseUnread
from tests.server.conftest import request, run_server, wait_until

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


def begun(served, length="100", more=""):
    """A connection with the beginning of a request; no length: chunks."""
    connection = socket.create_connection(served.url.removeprefix("http://").split(":"), timeout=10)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {length}\r\n" if length else "Transfer-Encoding: chunked\r\n"
    connection.sendall(f"{head}{more}\r\n".encode() + (b"{" if length else b"1\r\n{\r\n"))
    return connection


def received(connection):
    """All that comes until the server closes the connection."""
    parts = []
    while part := connection.recv(10_000):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("length", ["100", ""])
def test_the_time_is_limited_and_the_connection_ends(length):
    with run_server(body_timeout=0.1) as served, closing(begun(served, length)) as connection:
        answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"within 0.1 seconds" in answer


def test_trickling_does_not_give_more_time():
    with run_server(body_timeout=0.3) as served, closing(begun(served)) as connection:
        connection.settimeout(0.02)
        answer = b""
        for _ in range(90):
            connection.sendall(b" ")
            try:
                answer = connection.recv(1000)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("length", ["1000", ""])
def test_pending_bodies_do_not_count_as_requests(length):
    with run_server(max_requests=2) as served, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(closing(begun(served, length)))
        wait_until(lambda: len(served.server.bodies._pending) == 60)
        assert not served.server.admission.active
        assert served.post(request()).status_code == 200
        assert len(served.server.bodies._pending) == 60
    assert not served.server.bodies._pending


def test_a_server_that_ends_does_not_wait_for_bodies():
    with run_server(shutdown_limit=60) as served, closing(begun(served)) as connection:
        wait_until(lambda: served.server.bodies._pending)
        served.server.should_exit = True
        assert received(connection).startswith(b"HTTP/1.1 503 ")


def test_a_client_that_leaves_while_it_sends_is_forgotten(served):
    connection = begun(served)
    wait_until(lambda: served.server.bodies._pending)
    connection.close()
    wait_until(lambda: not served.server.bodies._pending)
    assert served.post(request()).status_code == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999999999999999999", "0, 5"])
def test_invalid_lengths_are_refused(served, length):
    with begun(served, length) as connection:
        assert connection.recv(1000)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413")


def test_a_length_that_hides_chunks():
    with run_server(max_body=1) as served, closing(begun(served, "", "Content-Length: 5\r\n")) as connection:
        for _ in range(3):
            connection.sendall(b"%x\r\n%s\r\n" % (MIB, b"x" * MIB))
        assert received(connection)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413")


def test_a_refusal_does_not_wait_for_the_body_and_ends_the_connection(monkeypatch):
    monkeypatch.setattr(request_body, "LINGER", 0.1)
    with run_server(api_key="sesame") as served, closing(begun(served, "100000")) as connection:
        answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in answer.lower()


async def never():
    """A `receive` that never returns."""
    await asyncio.Event().wait()


def sending(*chunks, end=True):
    """A `receive` that returns these chunks, and never returns after them if they have no end."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if end:
        messages[-1]["more_body"] = False

    async def receive():
        return messages.pop(0) if messages else await never()

    return receive


def scope(**headers):
    return {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}


def read_all(reader, *receives):
    """Results of bodies that begin one after the other: their bytes, or the status of their refusal."""

    async def one(receive):
        data = bytearray()
        try:
            await reader.read(scope(), receive, data.extend)
        except BodyRefused as error:
            return error.status
        return bytes(data)

    async def run():
        tasks = []
        for receive in receives:
            tasks.append(asyncio.create_task(one(receive)))
            await asyncio.sleep(0)
        return await asyncio.gather(*tasks)

    return asyncio.run(run())


def test_the_oldest_pending_body_makes_room_for_bytes():
    reader = BodyReader(max_bytes=10, seconds=0.2, max_pending_bytes=20)
    stuck = [sending(b"x" * 9, end=False) for _ in range(3)]
    assert read_all(reader, *stuck, sending(b"12345", b"67890")) == [429, 429, 408, b"1234567890"]
    assert not reader._pending


def test_the_oldest_pending_body_makes_room_for_one_more():
    reader = BodyReader(max_bytes=10, seconds=0.2, max_pending_bytes=1000, max_pending=3)
    assert read_all(reader, *[never] * 5, sending(b"a", b"b")) == [429, 429, 429, 408, 408, b"ab"]


def test_bytes_are_counted_as_they_arrive_not_as_declared():
    async def read(receive, **headers):
        await BodyReader(10, 1, 100).read(scope(**headers), receive, bytearray().extend)

    for receive, headers in ((sending(b"x" * 11), {}), (sending(*[b"x"] * 11), {"content-length": "1"})):
        with pytest.raises(BodyRefused, match="more than 10 bytes") as caught:
            asyncio.run(read(receive, **headers))
        assert caught.value.status == 413
    with pytest.raises(BodyRefused):  # at once, before anything is asked for
        asyncio.run(read(None, **{"content-length": "11"}))
    asyncio.run(read(sending(b"x" * 10), **{"content-length": "3"}))


def test_a_sender_that_leaves():
    async def leave():
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        asyncio.run(BodyReader(10, 1, 100).read(scope(), leave, bytearray().extend))


@pytest.mark.parametrize("reads", [False, True])
def test_only_a_response_without_its_body_closes_the_connection(reads, monkeypatch):
    monkeypatch.setattr(request_body, "LINGER", 0.05)

    async def app(scope, receive, send):
        if reads:
            await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    sent = []

    async def send(message):
        sent.append(message)

    receive = sending(b"x") if reads else never
    begin = time.perf_counter()
    asyncio.run(CloseUnread(app)(scope(**{"content-length": "1"}), receive, send))
    assert time.perf_counter() - begin < 10
    assert (sent[0]["headers"] == [(b"connection", b"close")]) is not reads
    assert b"".join(message.get("body", b"") for message in sent) == b"ok"
    assert not sent[-1].get("more_body")
