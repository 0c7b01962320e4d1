"""What requests the page's server lets through: those that the page makes, and no others."""

import json
import re
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmgpt.server.body import BodyReader, BodyRefused

BODY = 2**20  # bytes of a request that is no upload
SECONDS = 30  # in which it arrives
UPLOAD_SECONDS = 300  # in which an upload arrives
CHUNK = 2**16  # bytes
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
    """ASGI: lets through what the page needs, with bodies of bounded size and time, and adds headers to what goes out.

    A body is whole before anything behind the gate sees it: Gradio would leave a piece of an upload that is cut off in
    its folder. Meanwhile it is in memory, or in a file without a name where it is larger than BODY.

    Args:
        app: the application behind it.
        folder: of the uploads.
        upload: bytes of an upload at most.
        room: bytes of all uploads at most; as many again for those that are arriving.
        seconds: in which the body of a request arrives.
        upload_seconds: in which an upload arrives.
    """

    def __init__(
        self,
        app: ASGIApp,
        folder: Path,
        upload: int,
        room: int,
        seconds: float = SECONDS,
        upload_seconds: float = UPLOAD_SECONDS,
    ):
        self.app, self.folder, self.room = app, folder, room
        self.bodies = BodyReader(BODY, seconds, 64 * BODY)
        self.uploads = BodyReader(upload, upload_seconds, room)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        with SpooledTemporaryFile(BODY, dir=self.folder) as body:
            refusal = self._refusal(scope)
            if refusal is None and scope["method"] not in ("GET", "HEAD"):
                try:
                    refusal = await self._read(scope, receive, body)
                except ClientDisconnect:
                    return
                receive = _replayed(body, receive)
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
        if _is_upload(scope) and int(length) <= self.uploads.limit:
            return self._no_room(int(length))
        return None

    async def _read(self, scope: Scope, receive: Receive, body: BinaryIO) -> tuple[int, str] | None:
        """Read a request's body into a file; status and reason why it is not let through."""
        upload = _is_upload(scope)
        try:
            await (self.uploads if upload else self.bodies).read(scope, receive, body.write)
        except BodyRefused as error:
            return error.status, str(error)
        if upload:
            return self._no_room(body.tell())
        body.seek(0)
        return (403, "pictures are taken as uploads, not from addresses") if _names_address(body.read()) else None

    def _no_room(self, size: int) -> tuple[int, str] | None:
        full = _size(self.folder) + size > self.room
        return (503, "there is no room for uploads now") if full else None


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _is_upload(scope: Scope) -> bool:
    return scope["path"].rstrip("/") == "/gradio_api/upload"


def _replayed(body: BinaryIO, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read, then what comes after it."""
    body.seek(0)
    more = True

    async def replay() -> Message:
        nonlocal more
        if not more:
            return await receive()
        chunk = body.read(CHUNK)
        more = bool(chunk)  # the last piece is empty
        return {"type": "http.request", "body": chunk, "more_body": more}

    return replay


def _names_address(body: bytes) -> bool:
    """Whether a body of JSON names a file by an address: Gradio would fetch it."""
    paths: list[object] = []
    try:
        json.loads(body, object_pairs_hook=lambda pairs: paths.extend(value for key, value in pairs if key == "path"))
    except (ValueError, RecursionError):
        return False  # Gradio will not understand it either
    return any("://" in str(path) for path in paths)
