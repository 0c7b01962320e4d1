"""Web application of the server: routes, API key and middleware."""

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
from mmgpt.server.admission import ActiveRequest, Admission
from mmgpt.server.completions import Completions
from mmgpt.server.errors import ApiError, add_handlers, model_not_found
from mmgpt.server.metrics import CountResponses, Metrics
from mmgpt.server.request_body import BodyReader, CloseUnread
from mmgpt.server.settings import Settings

READ = ["GET", "HEAD"]
PENDING_BODIES = 8  # bodies of the largest accepted size that may arrive at once


def create_app(chat: Chat, settings: Settings) -> FastAPI:
    """The web application; it closes the chat when it ends.

    Its `state` holds `admission` (the active requests) and `bodies` (the reader of request bodies).

    Args:
        chat: answers several requests at once.
        settings: limits, key and name of the model.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(chat.close)

    # 1. The application, without the framework's pages, which load scripts from other hosts.
    app = FastAPI(lifespan=lifespan, openapi_url=None)
    metrics = Metrics(chat)
    admission = Admission(settings.max_requests, settings.time_limit, settings.shutdown_limit)
    bodies = BodyReader(settings.body_bytes, settings.body_timeout, PENDING_BODIES * settings.body_bytes)
    completions = Completions(chat, settings, bodies)
    app.state.admission, app.state.bodies = admission, bodies
    app.add_middleware(CloseUnread)
    app.add_middleware(CountResponses, metrics=metrics)
    add_handlers(app)

    # 2. Health, which needs no key.
    @app.api_route("/health", methods=READ)
    async def health() -> Response:
        if admission.closing:
            return JSONResponse({"status": "shutting down"}, 503)
        return JSONResponse({"status": "ready"})

    # 3. Metrics and models, behind the key.
    router = APIRouter(dependencies=[Depends(key_check(settings.api_key))])
    # Two keys are not OpenAI's: "generation" says how answers are generated unless a request changes that; "parent" (as
    # vLLM has it) names the model that an adapter belongs to.
    model = {"object": "model", "created": int(time.time()), "owned_by": "mmgpt"}
    model["generation"] = chat.settings_in_force()
    models = {
        name: {"id": name, **model, "parent": adapter and settings.name} for name, adapter in completions.models.items()
    }

    @router.api_route("/metrics", methods=READ)
    async def get_metrics() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @router.api_route("/v1/models", methods=READ)
    async def list_models() -> dict:
        return {"object": "list", "data": [*models.values()]}

    @router.api_route("/v1/models/{name:path}", methods=READ)
    async def get_model(name: str) -> dict:
        if name not in models:
            raise model_not_found(name, models)
        return models[name]

    # 4. The chat. A request stays active until its response has been sent, streams included.
    @contextmanager
    def counted_request() -> Iterator[ActiveRequest]:
        with admission.admit() as active:
            try:
                yield active
            finally:
                metrics.count(active)

    async def until_response_is_sent() -> AsyncIterator[ExitStack]:
        with ExitStack() as stack:
            yield stack

    @router.post("/v1/chat/completions")
    async def chat_completions(
        request: Request, stack: Annotated[ExitStack, Depends(until_response_is_sent)]
    ) -> Response:
        return await completions.respond(request, lambda: stack.enter_context(counted_request()))

    app.include_router(router)
    return app


def key_check(key: str | None):
    """FastAPI dependency that refuses requests without the API key; with None it accepts all."""

    async def check(request: Request) -> None:
        header = request.headers.get("authorization", "").encode("latin-1")  # the bytes as they were sent
        # The comparison takes the same time however many characters are right.
        if key is not None and not hmac.compare_digest(header, f"Bearer {key}".encode()):
            message = "the API key is missing or wrong: send the header Authorization: Bearer KEY"
            raise ApiError(401, message, headers={"WWW-Authenticate": "Bearer"})

    return check
