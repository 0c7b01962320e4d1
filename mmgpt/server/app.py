"""The web application: routes, the key, and what a request passes on its way."""

import hmac
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from mmgpt.apis import Chat
from mmgpt.server.admission import Admission, Visit
from mmgpt.server.body import BodyReader, CloseUnread
from mmgpt.server.completions import Completions
from mmgpt.server.errors import ApiError, add_handlers
from mmgpt.server.metrics import CountResponses, Metrics
from mmgpt.server.settings import Settings

READ = ["GET", "HEAD"]
FULL_BODIES = 8  # bodies of the largest size that may be unfinished at once


def create_app(chat: Chat, settings: Settings) -> FastAPI:
    """The application. It closes the chat when it ends.

    ``app.state.admission`` knows who is inside, ``app.state.bodies`` reads who is coming.

    Args:
        chat: answers; several requests at once.
        settings: what is allowed.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(chat.close)

    # Without the framework's own pages, which load scripts from elsewhere.
    app = FastAPI(lifespan=lifespan, openapi_url=None)
    metrics = Metrics(chat)
    admission = Admission(settings.max_requests, settings.time_limit, settings.shutdown_limit)
    bodies = BodyReader(settings.body_bytes, settings.body_timeout, FULL_BODIES * settings.body_bytes)
    app.state.admission, app.state.bodies = admission, bodies
    app.add_middleware(CloseUnread)
    app.add_middleware(CountResponses, metrics=metrics)
    add_handlers(app)

    @app.api_route("/health", methods=READ)
    async def health() -> Response:
        if admission.closing:
            return JSONResponse({"status": "shutting down"}, 503)
        return JSONResponse({"status": "ready"})

    router = APIRouter(dependencies=[Depends(_key_check(settings.api_key))])

    @router.api_route("/metrics", methods=READ)
    async def get_metrics() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    _add_models(router, settings.name, chat)
    _add_chat(router, Completions(chat, settings, bodies), admission, metrics)
    app.include_router(router)
    return app


def _key_check(key: str | None):
    """A dependency that refuses requests without the key, where there is one."""

    async def check(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")  # the bytes as they were sent
        # In a time that does not tell how much of it is right.
        if key is not None and not hmac.compare_digest(given, f"Bearer {key}".encode()):
            message = "the API key is missing or wrong: send the header Authorization: Bearer KEY"
            raise ApiError(401, message, headers={"WWW-Authenticate": "Bearer"})

    return check


def _add_models(router: APIRouter, name: str, chat: Chat) -> None:
    # The last is not OpenAI's: how answers are generated where a request does not say otherwise.
    model = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "mmgpt"}
    model["generation"] = chat.settings_in_force()

    @router.api_route("/v1/models", methods=READ)
    async def models() -> dict:
        return {"object": "list", "data": [model]}

    @router.api_route("/v1/models/{wanted:path}", methods=READ)
    async def one_model(wanted: str) -> dict:
        if wanted != name:
            message = f"the model {wanted!r} does not exist: this server has {name!r}"
            raise ApiError(404, message, "model", "model_not_found")
        return model


def _add_chat(router: APIRouter, completions: Completions, admission: Admission, metrics: Metrics) -> None:
    @contextmanager
    def counted_visit() -> Iterator[Visit]:
        with admission.enter() as visit:
            try:
                yield visit
            finally:
                metrics.count(visit)

    async def until_response_is_over() -> AsyncIterator[ExitStack]:
        # Streams included.
        with ExitStack() as stack:
            yield stack

    @router.post("/v1/chat/completions")
    async def chat_completions(
        request: Request, stack: Annotated[ExitStack, Depends(until_response_is_over)]
    ) -> Response:
        return await completions.respond(request, lambda: stack.enter_context(counted_visit()))
