"""Request filter of the page's server: only requests that the page itself makes get through to Gradio."""

import json
import re
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmgpt.server.request_body import BodyReader, BodyRefused

MAX_BODY = 2**20  # bytes of a request other than an upload
BODY_SECONDS = 30  # in which the body of such a request has to arrive
UPLOAD_SECONDS = 300  # in which an upload has to arrive
CHUNK = 2**16  # bytes
# Paths that the page requests. Other paths of Gradio download from addresses or run functions by name, for example.
PATHS = re.compile(
    r"/(?:(?:assets|static)/.*|theme\.css|favicon\.ico|config)?"
    r"|/gradio_api/(?:startup-events|heartbeat/\w+|run/predict|queue/(?:join|data)|upload|upload_progress)/?"
)
HEADERS = {
    # Gradio evaluates its templates in the browser. The page may request nothing from other hosts.
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
Refusal = tuple[int, str]  # HTTP status and reason


class RequestFilter:
    """ASGI middleware that lets the page's own requests through, with limited bodies, and adds headers to responses.

    The application gets a body only as a whole: Gradio would leave the beginning of an interrupted upload in its
    folder. Meanwhile the body is in memory, or in an unnamed file if it is larger than MAX_BODY.

    Args:
        app: the application behind the filter.
        folder: of the uploads.
        max_upload: bytes of one upload.
        max_uploads: bytes of all uploads on the disk, and again of all that are arriving.
        body_seconds: in which the body of a request has to arrive.
        upload_seconds: in which an upload has to arrive.
    """

    def __init__(
        self,
        app: ASGIApp,
        folder: Path,
        max_upload: int,
        max_uploads: int,
        body_seconds: float = BODY_SECONDS,
        upload_seconds: float = UPLOAD_SECONDS,
    ):
        self.app, self.folder, self.max_uploads = app, folder, max_uploads
        self.bodies = BodyReader(MAX_BODY, body_seconds, 64 * MAX_BODY)
        self.uploads = BodyReader(max_upload, upload_seconds, max_uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or refuse the request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        with SpooledTemporaryFile(MAX_BODY, dir=self.folder) as body:
            # 1. The head, and the whole body.
            refusal = self._refusal_of_head(scope)
            has_body = refusal is None and scope["method"] not in ("GET", "HEAD")
            if has_body:
                try:
                    refusal = await self._read_body(scope, receive, body)
                except ClientDisconnect:
                    return
            body.seek(0)

            # 2. The application gets the body from the file, then whatever else arrives.
            async def receive_from_file() -> Message:
                nonlocal has_body
                if not has_body:
                    return await receive()
                chunk = body.read(CHUNK)
                has_body = bool(chunk)  # The last chunk is empty.
                return {"type": "http.request", "body": chunk, "more_body": has_body}

            async def send_with_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                await send(message)

            app = self.app if refusal is None else PlainTextResponse(refusal[1], refusal[0])
            await app(scope, receive_from_file, send_with_headers)

    def _refusal_of_head(self, scope: Scope) -> Refusal | None:
        """Refusal of a request by its head alone; None lets the request through."""
        path = scope["path"]
        is_uploaded_file = path.startswith(f"/gradio_api/file={self.folder}/")
        if scope["type"] != "http" or not (is_uploaded_file or PATHS.fullmatch(path)):
            return 404, "there is no such page"
        if scope["method"] in ("GET", "HEAD"):
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "the length of the body is missing"
        if _is_upload(scope) and int(length) <= self.uploads.max_bytes:
            return self._refusal_without_room(int(length))
        return None

    async def _read_body(self, scope: Scope, receive: Receive, body: BinaryIO) -> Refusal | None:
        """Read a request's body into a file; returns why the body is refused, or None."""
        is_upload = _is_upload(scope)
        try:
            await (self.uploads if is_upload else self.bodies).read(scope, receive, body.write)
        except BodyRefused as error:
            return error.status, str(error)
        if is_upload:
            return self._refusal_without_room(body.tell())
        # A body of JSON that names a file by an address is refused: Gradio would download it.
        body.seek(0)
        paths: list[object] = []
        try:
            json.loads(
                body.read(),
                object_pairs_hook=lambda pairs: paths.extend(value for key, value in pairs if key == "path"),
            )
        except (ValueError, RecursionError):
            return None  # Gradio refuses invalid JSON itself.
        is_address = any("://" in str(path) for path in paths)
        return (403, "images are taken as uploads, not from addresses") if is_address else None

    def _refusal_without_room(self, size: int) -> Refusal | None:
        used = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        return (503, "there is no room for uploads now") if used + size > self.max_uploads else None


def _is_upload(scope: Scope) -> bool:
    return scope["path"].rstrip("/") == "/gradio_api/upload"
