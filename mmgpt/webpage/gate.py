"""What requests the page's server lets through: those that the page makes, and no others."""

import json
import re
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY = 2**20  # bytes of a request that is no upload
# What the page asks for. Gradio has more, such as fetching addresses and running functions by name.
PATHS = re.compile(
    r"/(?:(?:assets|static)/.*|theme\.css|favicon\.ico|config)?"
    r"|/gradio_api/(?:startup-events|heartbeat/\w+|run/predict|queue/(?:join|data)|upload|upload_progress)/?"
)
HEADERS = {
    # Gradio evaluates its templates in the browser. No address elsewhere is ever asked for.
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Gate:
    """ASGI: lets through what the page needs, with bodies of bounded size, and adds headers to what goes out.

    Args:
        app: the application behind it.
        folder: of the uploads.
        upload: bytes of an upload at most.
        room: bytes of all uploads at most.
    """

    def __init__(self, app: ASGIApp, folder: Path, upload: int, room: int):
        self.app, self.folder, self.upload, self.room = app, folder, upload, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        refusal = self._refusal(scope)
        if refusal is None and scope["method"] == "POST" and not _is_upload(scope):
            body = await _read(receive)
            receive = _replayed(body, receive)
            if _names_address(body):
                refusal = 403, "pictures are taken as uploads, not from addresses"
        app = self.app if refusal is None else PlainTextResponse(refusal[1], refusal[0])

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        await app(scope, receive, send_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason why a request is not let through, as far as can be seen without its body."""
        path = scope["path"]
        uploaded = path.startswith(f"/gradio_api/file={self.folder}/")
        if scope["type"] != "http" or not (uploaded or PATHS.fullmatch(path)):
            return 404, "there is no such page"
        if scope["method"] in ("GET", "HEAD"):
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "the length of the body is missing"
        if int(length) > (self.upload if _is_upload(scope) else BODY):
            return 413, "this is too large"
        if _is_upload(scope) and _size(self.folder) + int(length) > self.room:
            return 503, "there is no room for uploads now"
        return None


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _is_upload(scope: Scope) -> bool:
    return scope["path"].rstrip("/") == "/gradio_api/upload"


async def _read(receive: Receive) -> bytes:
    """The whole body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read, then what comes after it."""
    kept = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return kept.pop() if kept else await receive()

    return replay


def _names_address(body: bytes) -> bool:
    """Whether a body of JSON names a file by an address: Gradio would fetch it."""
    paths: list[object] = []
    try:
        json.loads(body, object_pairs_hook=lambda pairs: paths.extend(value for key, value in pairs if key == "path"))
    except (ValueError, RecursionError):
        return False  # Gradio will not understand it either
    return any("://" in str(path) for path in paths)
