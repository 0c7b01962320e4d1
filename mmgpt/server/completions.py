"""POST /v1/chat/completions: from a request to its answer, whole or as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import TypeVar

import anyio
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Send

from mmgpt.apis import Chat
from mmgpt.apis.answer import Answer, Busy
from mmgpt.server.admission import Inbox
from mmgpt.server.body import read_body
from mmgpt.server.errors import ApiError, ClientGone, as_api_error, full, shutting_down
from mmgpt.server.fetch import Fetcher
from mmgpt.server.images import Pictures, is_web
from mmgpt.server.messages import check_size, image_places, to_conversation
from mmgpt.server.metrics import Metrics
from mmgpt.server.replies import Reply
from mmgpt.server.schema import ChatRequest, read_request
from mmgpt.server.settings import Settings

# How many requests are parsed and their pictures decoded at once. It bounds the memory that decoded pictures take.
WORKERS = 2
Result = TypeVar("Result")


class Events(EventSourceResponse):
    """Server-sent events; the iterator is closed with the response, however that ends."""

    async def stream_response(self, send: Send) -> None:
        """Send them, as the framework asks."""
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


class Completions:
    """Answers chat requests.

    Args:
        chat: the engine.
        settings: what is allowed.
        metrics: where answers are counted.
    """

    def __init__(self, chat: Chat, settings: Settings, metrics: Metrics):
        self.chat, self.settings, self.metrics = chat, settings, metrics
        self.fetcher = Fetcher(settings.allow_hosts)
        self.workers = anyio.CapacityLimiter(WORKERS)

    async def respond(self, http: Request, inbox: Inbox) -> Response:
        """The response to a request.

        Raises:
            ApiError: what it is refused with, or how its answer failed.
            ClientGone: the client left.
        """
        reply, answer, stream = await self._ask(http, inbox)
        if stream:
            return Events(self._events(reply, answer, inbox))
        leaving = asyncio.create_task(_tell_when_gone(http, inbox))
        try:
            with self._counted(answer):
                pieces = [piece async for piece in inbox]
            return JSONResponse(reply.whole(pieces, answer))
        finally:
            leaving.cancel()

    async def _ask(self, http: Request, inbox: Inbox) -> tuple[Reply, Answer, bool]:
        """Put the question; nothing of the request is kept."""
        settings = self.settings
        body = await read_body(http, settings.body_bytes)
        request = await self._work(read_request, body, settings.name, settings.max_tokens)
        check_size(request.messages, settings)
        fetched = await self._fetch(request)
        answer = await self._work(self._submit, request, fetched, inbox)
        with_usage = bool(request.stream_options and request.stream_options.include_usage)
        return Reply(settings.name, bool(request.logprobs), with_usage), answer, bool(request.stream)

    async def _work(self, function: Callable[..., Result], *arguments: object) -> Result:
        """A function's result, from a thread, so that other requests are served meanwhile."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self.workers)

    async def _fetch(self, request: ChatRequest) -> dict[str, bytes]:
        places = {url: place for place, url in image_places(request.messages) if is_web(url)}
        try:
            return await self.fetcher.read(list(places), self.settings.body_bytes) if places else {}
        except ValueError as error:
            raise ApiError(400, str(error), next(iter(places.values()))) from error

    def _submit(self, request: ChatRequest, fetched: Mapping[str, bytes], inbox: Inbox) -> Answer:
        conversation = to_conversation(request.messages, Pictures(fetched, self.settings.max_pixels * 1_000_000))
        try:
            return self.chat.submit(
                conversation,
                request.generation(),
                seed=request.seed,
                stop=tuple(request.stop or ()),
                top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
                listener=inbox.put,
            )
        except Busy as error:
            raise full() from error
        except ValueError as error:
            raise ApiError(400, str(error)) from error

    @contextmanager
    def _counted(self, answer: Answer) -> Iterator[None]:
        """Within it the answer is listened to; behind it the model stops, and the figures are taken."""
        end = "cancelled"
        try:
            yield
            if answer.finish_reason == "cancelled":  # by the engine, which ends
                raise shutting_down()
            end = answer.finish_reason
        except ClientGone:
            raise
        except Exception:
            end = "error"
            raise
        finally:
            answer.cancel()
            self.metrics.count(answer, end)

    async def _events(self, reply: Reply, answer: Answer, inbox: Inbox) -> AsyncIterator[bytes]:
        """Yield an answer as server-sent events. One that fails ends with an event that says so, and no [DONE]."""
        try:
            with self._counted(answer):
                yield _event(reply.chunk({"role": "assistant", "content": ""}))
                async for piece in inbox:
                    yield _event(reply.chunk({"content": piece.text}, piece.tokens))
            yield _event(reply.chunk({}, finish_reason=answer.finish_reason))
            if reply.with_usage:
                yield _event(reply.usage_chunk(answer))
            yield format_sse_event(data_str="[DONE]")
        except Exception as error:
            yield _event(as_api_error(error).body)


def _event(data: dict) -> bytes:
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


async def _tell_when_gone(http: Request, inbox: Inbox) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
    inbox.put(ClientGone())
