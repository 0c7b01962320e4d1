"""POST /v1/chat/completions: from a request to its response, as one JSON object or as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial

import anyio
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.requests import ClientDisconnect
from starlette.types import Message, Send

from mmgpt.apis import Chat
from mmgpt.datasets.transforms import PromptTooLong
from mmgpt.inference.answer import Busy, Piece
from mmgpt.server.admission import ActiveRequest
from mmgpt.server.errors import ApiError, ClientGone, as_api_error, shutting_down, too_many_requests
from mmgpt.server.image_fetcher import ImageFetcher
from mmgpt.server.image_urls import ImageDecoder, is_web
from mmgpt.server.messages import check_size, image_params, to_conversation
from mmgpt.server.request_body import BodyReader, BodyRefused
from mmgpt.server.responses import ResponseBuilder
from mmgpt.server.schema import ChatRequest, read_request
from mmgpt.server.settings import Settings

# Threads that parse requests and decode their images. The number bounds the memory of decoded images.
DECODING_THREADS = 2
SEND_TIMEOUT = 30  # seconds


class EventStream(EventSourceResponse):
    """Server-sent events that end when the client does not accept one within SEND_TIMEOUT seconds."""

    async def stream_response(self, send: Send) -> None:
        """Send the events."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(SEND_TIMEOUT):
                await send(message)

        async with aclosing(self.body_iterator):
            with suppress(TimeoutError):
                await super().stream_response(send_in_time)


class Completions:
    """Handler of chat requests.

    Args:
        chat: answers the questions.
        settings: limits, and the name of the model.
        bodies: reader of request bodies.

    Attributes:
        models: the adapter of each served model by the model's name: None, or NAME:ADAPTER -> ADAPTER.
    """

    def __init__(self, chat: Chat, settings: Settings, bodies: BodyReader):
        self.chat, self.settings, self.bodies = chat, settings, bodies
        self.models = {settings.name: None, **{f"{settings.name}:{name}": name for name in chat.adapters}}
        self.fetcher = ImageFetcher(settings.allow_hosts)
        self.in_thread = partial(anyio.to_thread.run_sync, limiter=anyio.CapacityLimiter(DECODING_THREADS))

    async def respond(self, http: Request, admit: Callable[[], ActiveRequest]) -> Response:
        """The response to a request.

        Args:
            http: the request.
            admit: admits the request once its body has arrived: a pending request does not count.

        Raises:
            ApiError: the request is refused, or its answer failed.
            ClientGone: the client left.
        """

        async def end_when_client_leaves() -> None:
            while (await http.receive())["type"] != "http.disconnect":
                pass
            active.put(ClientGone())

        builder, stream, active = await self._start(http, admit)
        if stream:
            return EventStream(self._events(builder, active))
        leaving = asyncio.create_task(end_when_client_leaves())
        try:
            pieces = [piece async for piece in _pieces(active)]
            return JSONResponse(builder.completion(pieces, active.answer))
        finally:
            leaving.cancel()

    async def _start(
        self, http: Request, admit: Callable[[], ActiveRequest]
    ) -> tuple[ResponseBuilder, bool, ActiveRequest]:
        """Reads a request and submits its question; returns all that the response needs, and whether it is a stream.

        The body, the parsed request and its images are local to this function, so that their memory is free while the
        answer is generated.
        """
        settings = self.settings
        # 1. The body.
        content_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        # A web page can send other content types to any address without a preflight (a "simple request" of CORS).
        if content_type != "application/json":
            raise ApiError(
                415, f"the request must have the header Content-Type: application/json, got {content_type!r}"
            )
        body = bytearray()
        try:
            await self.bodies.read(http.scope, http.receive, body.extend)
        except BodyRefused as error:
            standard = {429: too_many_requests, 503: shutting_down}.get(error.status)
            raise standard() if standard else ApiError(error.status, str(error)) from error
        except ClientDisconnect as error:
            raise ClientGone from error
        active = admit()
        # 2. The request.
        request = await self.in_thread(read_request, body, self.models, settings.max_tokens)
        check_size(request.messages, settings)
        # 3. Its images from the web.
        params = {url: param for param, url in image_params(request.messages) if is_web(url)}
        try:
            fetched = await self.fetcher.fetch(list(params), settings.body_bytes) if params else {}
        except ValueError as error:
            raise ApiError(400, str(error), next(iter(params.values()))) from error
        # 4. Its question.
        await self.in_thread(self._submit, request, fetched, active)
        with_usage = bool(request.stream_options and request.stream_options.include_usage)
        return ResponseBuilder(request.model, bool(request.logprobs), with_usage), bool(request.stream), active

    def _submit(self, request: ChatRequest, fetched: Mapping[str, bytes], active: ActiveRequest) -> None:
        images = ImageDecoder(fetched, self.settings.max_pixels * 1_000_000)
        conversation = to_conversation(request.messages, images)
        try:
            answer = self.chat.submit(
                conversation,
                request.generation(),
                seed=request.seed,
                stop=tuple(request.stop or ()),
                top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
                listener=active.put,
                scope=request.scope(),
                adapter=self.models[request.model],
            )
        except Busy as error:
            raise too_many_requests() from error
        except PromptTooLong as error:
            raise ApiError(400, f"{error}: shorten the conversation", "messages", "context_length_exceeded") from error
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        active.attach(answer)

    async def _events(self, builder: ResponseBuilder, active: ActiveRequest) -> AsyncIterator[bytes]:
        """Yield an answer as server-sent events. A failed answer ends with an event of the error and without [DONE]."""
        try:
            yield _event(builder.chunk({"role": "assistant", "content": ""}))
            async for piece in _pieces(active):
                yield _event(builder.chunk({"content": piece.text}, piece.tokens))
            yield _event(builder.chunk({}, finish_reason=active.outcome))
            if builder.with_usage:
                yield _event(builder.usage_chunk(active.answer))
            yield format_sse_event(data_str="[DONE]")
        except Exception as error:
            yield _event(as_api_error(error).body)


async def _pieces(active: ActiveRequest) -> AsyncIterator[Piece]:
    """Yield the pieces of an answer, and set the request's outcome."""
    try:
        async for piece in active:
            yield piece
        if active.answer.finish_reason == "cancelled":  # Only a chat that is being closed cancels an answer itself.
            raise shutting_down()
        active.outcome = active.answer.finish_reason
    except ClientGone:
        raise
    except Exception:
        active.outcome = "error"
        raise


def _event(data: dict) -> bytes:
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
