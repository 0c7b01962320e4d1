"""Requests of attackers and broken clients to a server of tools/serve.py, for load_server.py: harmless, and bounded.

Each kind of request has its right statuses; a response with another status, or with none, is recorded as wrong.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import openai

MIB = 2**20
HOLD = 3  # seconds at most for which a connection is left idle
PATIENCE = 60  # seconds for which a response is awaited


class Hostile:
    """Hostile and broken clients of one server.

    Args:
        url: address of the server.
        key: API key of the server.
        model: name of its model.
        conversations: valid conversations, from which broken requests are made.

    Attributes:
        counts: number of requests of each kind.
        wrong: messages about requests that got a wrong status.
    """

    def __init__(self, url: str, key: str, model: str, conversations: Sequence[list[dict]]):
        self.url, self.key, self.model, self.conversations = url, key, model, conversations
        self.counts: Counter = Counter()
        self.wrong: list[str] = []
        self.kinds: list[Callable[[random.Random], Awaitable[None]]] = [
            self.unfinished,
            self.broken_base64,
            self.no_json,
            self.cut_request,
            self.cut_answer,
            self.cancelled_stream,
            self.head,
            self.claims,
            self.wrong_key,
            self.oversize_chunks,
        ]

    async def keep_on(self, number: int, until: float) -> None:
        """Client that sends one kind after another, in a random order of its own."""
        rng = random.Random(number)
        while time.perf_counter() < until:
            kind = rng.choice(self.kinds)
            self.counts[kind.__name__] += 1
            try:
                await kind(rng)
            except (OSError, EOFError, httpx.TransportError, openai.APIConnectionError):
                self.counts["cut off by the server"] += 1
            except openai.APIStatusError as error:
                self._check(kind.__name__, error.status_code, 429, 503)

    async def never_end(self, until: float) -> None:
        """Client whose bodies stop after the first byte; it opens a new connection when the server closes the last."""
        while time.perf_counter() < until:
            with suppress(OSError):
                reader, writer = await self._open(b"{", "Content-Length: 1000")
                self.counts["never_end"] += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0, until - time.perf_counter())):
                        self._check("never_end", _status(await reader.read(1000)), 408, 429, 503)
                writer.close()

    async def unfinished(self, rng: random.Random) -> None:
        """Send a part of a body, then wait and close."""
        _, writer = await self._open(self._body(rng)[: rng.randrange(1, 2000)], "Content-Length: 100000")
        await asyncio.sleep(rng.random() * HOLD)
        writer.close()

    async def oversize_chunks(self, rng: random.Random) -> None:
        """Send a chunked body beyond the size limit."""
        reader, writer = await self._open(b"", "Transfer-Encoding: chunked")
        answer = asyncio.create_task(reader.read(1000))
        with suppress(OSError):
            for _ in range(64):
                writer.write(b"%x\r\n%s\r\n" % (MIB, b" " * MIB))
                await writer.drain()
                if answer.done():
                    break
        await self._expect("oversize_chunks", answer, writer, 413, 429)

    async def broken_base64(self, rng: random.Random) -> None:
        """Send image data that is not an image."""
        url = rng.choice(["data:image/png;base64,@@@@", "data:image/png;base64,abc", "data:image/png;base64,aGFsbG8="])
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what?"}]
        body = {"model": self.model, "messages": [{"role": "user", "content": content}]}
        await self._post("broken_base64", json.dumps(body).encode(), 400)

    async def no_json(self, rng: random.Random) -> None:
        """Send a body that is not a JSON request."""
        await self._post("no_json", rng.choice([b"", b"{", b"[" * 1000, b"\xff\xfe", b"null", b"{}"]), 400)

    async def cut_request(self, rng: random.Random) -> None:
        """Abort the connection in the middle of a body."""
        body = self._body(rng)
        _, writer = await self._open(body[: len(body) // 2], f"Content-Length: {len(body)}")
        writer.transport.abort()

    async def cut_answer(self, rng: random.Random) -> None:
        """Abort the connection before the answer."""
        body = self._body(rng)
        _, writer = await self._open(body, f"Content-Length: {len(body)}")
        await asyncio.sleep(rng.random() / 10)
        writer.transport.abort()

    async def cancelled_stream(self, rng: random.Random) -> None:
        """Close a stream after a few pieces."""
        async with openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0) as client:
            messages = rng.choice(self.conversations)
            stream = await client.chat.completions.create(model=self.model, messages=messages, stream=True)
            for _ in range(rng.randrange(4)):
                await anext(aiter(stream), None)
            await stream.close()

    async def head(self, rng: random.Random) -> None:
        """Send HEAD requests, as probes do."""
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            path = rng.choice(["/health", "/metrics", "/v1/models", "/nowhere"])
            response = await client.head(self.url + path, headers={"Authorization": f"Bearer {self.key}"})
        self._check("head", response.status_code, 404 if path == "/nowhere" else 200)

    async def claims(self, rng: random.Random) -> None:
        """Announce an enormous body."""
        reader, writer = await self._open(b"{", f"Content-Length: {10 ** rng.randrange(9, 20)}")
        await self._expect("claims", reader.read(1000), writer, 413)

    async def wrong_key(self, rng: random.Random) -> None:
        """Send a large body with a wrong key, if the server needs a key."""
        if self.key != "none":
            reader, writer = await self._open(b"{" * 1000, "Content-Length: 1000000", key="wrong")
            await self._expect("wrong_key", reader.read(1000), writer, 401)

    def _body(self, rng: random.Random) -> bytes:
        return json.dumps({"model": self.model, "messages": rng.choice(self.conversations)}).encode()

    async def _open(self, data: bytes, head: str, key: str | None = None):
        """A connection on which the head of a chat request and the first bytes of its body were sent."""
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        lines = ["POST /v1/chat/completions HTTP/1.1", "Host: a", "Content-Type: application/json", head]
        lines.append(f"Authorization: Bearer {key or self.key}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await writer.drain()
        return reader, writer

    async def _post(self, kind: str, body: bytes, *right: int) -> None:
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            response = await client.post(f"{self.url}/v1/chat/completions", content=body, headers=headers)
        self._check(kind, response.status_code, *right, 429)

    async def _expect(self, kind: str, answer: Awaitable[bytes], writer: asyncio.StreamWriter, *right: int) -> None:
        data = await asyncio.wait_for(answer, PATIENCE)
        writer.close()
        if data:
            self._check(kind, _status(data), *right)
        else:
            self.counts["cut off by the server"] += 1

    def _check(self, kind: str, status: int, *right: int) -> None:
        if status not in right:
            self.wrong.append(f"{kind}: status {status} instead of {' or '.join(map(str, right))}")


def _status(data: bytes) -> int:
    """Status of a response; 0 where there is none."""
    return int(data[9:12]) if data.startswith(b"HTTP/1.1 ") else 0
