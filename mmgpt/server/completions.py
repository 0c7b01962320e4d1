"""POST /v1/chat/completions: from a request to its answer, whole or as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TypeVar

import anyio
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.requests import ClientDisconnect
from starlette.types import Message, Send

from mmgpt.apis import Chat
from mmgpt.inference.answer import Busy, Piece
from mmgpt.server.admission import Visit
from mmgpt.server.body import BodyReader, BodyRefused
from mmgpt.server.errors import ApiError, ClientGone, as_api_error, full, shutting_down
from mmgpt.server.fetch import Fetcher
from mmgpt.server.images import Pictures, is_web
from mmgpt.server.messages import check_size, image_places, to_conversation
from mmgpt.server.replies import Reply
from mmgpt.server.schema import ChatRequest, read_request
from mmgpt.server.settings import Settings

# How many requests are parsed and their pictures decoded at once. It bounds the memory that decoded pictures take.
WORKERS = 2
PATIENCE = 30  # seconds
Result = TypeVar("Result")


class Events(EventSourceResponse):
    """Server-sent events, to a client that reads them: the response ends when one cannot be sent in PATIENCE."""

    async def stream_response(self, send: Send) -> None:
        """Send them, as the framework asks."""

        async def send_soon(message: Message) -> None:
            async with asyncio.timeout(PATIENCE):
                await send(message)

        async with aclosing(self.body_iterator):
            with suppress(TimeoutError):
                await super().stream_response(send_soon)


class Completions:
    """Answers chat requests.

    Args:
        chat: the engine.
        settings: what is allowed.
        bodies: reads the requests.
    """

    def __init__(self, chat: Chat, settings: Settings, bodies: BodyReader):
        self.chat, self.settings, self.bodies = chat, settings, bodies
        self.fetcher = Fetcher(settings.allow_hosts)
        self.workers = anyio.CapacityLimiter(WORKERS)

    async def respond(self, http: Request, enter: Callable[[], Visit]) -> Response:
        """The response to a request.

        Args:
            http: the request.
            enter: gives it a place, once its body is there; an unfinished one takes none from others.

        Raises:
            ApiError: what it is refused with, or how its answer failed.
            ClientGone: the client left.
        """
        reply, stream, visit = await self._ask(http, enter)
        if stream:
            return Events(self._events(reply, visit))
        leaving = asyncio.create_task(_tell_when_gone(http, visit))
        try:
            pieces = [piece async for piece in _pieces(visit)]
            return JSONResponse(reply.whole(pieces, visit.answer))
        finally:
            leaving.cancel()

    async def _ask(self, http: Request, enter: Callable[[], Visit]) -> tuple[Reply, bool, Visit]:
        """Put the question; the reply to it, whether it is to be a stream, and its visit. No more of it is kept."""
        settings = self.settings
        body = await self._read(http)
        visit = enter()
        request = await self._work(read_request, body, settings.name, settings.max_tokens)
        check_size(request.messages, settings)
        fetched = await self._fetch(request)
        await self._work(self._submit, request, fetched, visit)
        with_usage = bool(request.stream_options and request.stream_options.include_usage)
        return Reply(settings.name, bool(request.logprobs), with_usage), bool(request.stream), visit

    async def _read(self, http: Request) -> bytearray:
        kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        # A page in a browser can send other bodies to any address without asking that address (a "simple request").
        if kind != "application/json":
            raise ApiError(415, f"the request must have the header Content-Type: application/json, got {kind!r}")
        body = bytearray()
        try:
            await self.bodies.read(http.scope, http.receive, body.extend)
        except BodyRefused as error:
            usual = {429: full, 503: shutting_down}.get(error.status)
            raise usual() if usual else ApiError(error.status, str(error)) from error
        except ClientDisconnect as error:
            raise ClientGone from error
        return body

    async def _work(self, function: Callable[..., Result], *arguments: object) -> Result:
        """A function's result, from a thread, so that other requests are served meanwhile."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self.workers)

    async def _fetch(self, request: ChatRequest) -> dict[str, bytes]:
        places = {url: place for place, url in image_places(request.messages) if is_web(url)}
        try:
            return await self.fetcher.read(list(places), self.settings.body_bytes) if places else {}
        except ValueError as error:
            raise ApiError(400, str(error), next(iter(places.values()))) from error

    def _submit(self, request: ChatRequest, fetched: Mapping[str, bytes], visit: Visit) -> None:
        conversation = to_conversation(request.messages, Pictures(fetched, self.settings.max_pixels * 1_000_000))
        try:
            answer = self.chat.submit(
                conversation,
                request.generation(),
                seed=request.seed,
                stop=tuple(request.stop or ()),
                top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
                listener=visit.put,
                scope=request.scope(),
            )
        except Busy as error:
            raise full() from error
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        visit.take(answer)

    async def _events(self, reply: Reply, visit: Visit) -> AsyncIterator[bytes]:
        """Yield an answer as server-sent events. One that fails ends with an event that says so, and no [DONE]."""
        try:
            yield _event(reply.chunk({"role": "assistant", "content": ""}))
            async for piece in _pieces(visit):
                yield _event(reply.chunk({"content": piece.text}, piece.tokens))
            yield _event(reply.chunk({}, finish_reason=visit.end))
            if reply.with_usage:
                yield _event(reply.usage_chunk(visit.answer))
            yield format_sse_event(data_str="[DONE]")
        except Exception as error:
            yield _event(as_api_error(error).body)


async def _pieces(visit: Visit) -> AsyncIterator[Piece]:
    """Yield the pieces of an answer, and note how it ends."""
    try:
        async for piece in visit:
            yield piece
        if visit.answer.finish_reason == "cancelled":  # by the engine, which ends
            raise shutting_down()
        visit.end = visit.answer.finish_reason
    except ClientGone:
        raise
    except Exception:
        visit.end = "error"
        raise


def _event(data: dict) -> bytes:
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


async def _tell_when_gone(http: Request, visit: Visit) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
    visit.put(ClientGone())
