"""How the page is served: privately, without the net, and nothing but the page."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .page import STYLE, Page

SESSIONS = 200  # conversations in memory; the one used longest ago is forgotten for another
BODY = 2**20  # bytes of a request that is no upload
FOLDER = "GRADIO_TEMP_DIR"  # where Gradio keeps uploads
FONTS = dict(font=["system-ui", "Segoe UI", "Liberation Sans", "sans-serif"], font_mono=["ui-monospace", "monospace"])
# Gradio's own grey is too light for a weak screen or eye.
LOOK = dict(
    body_text_color_subdued="*neutral_500",
    block_info_text_color="*neutral_500",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    block_radius="12px",
)
# What the page asks for. Gradio has more, such as fetching addresses and running functions by name.
PATHS = re.compile(
    r"/(?:(?:assets|static)/.*|theme\.css|favicon\.ico|config/?|robots\.txt|manifest\.json)?"
    r"|/gradio_api/(?:startup-events|heartbeat/\w+|run/predict|queue/join|queue/data|upload|upload_progress|cancel|reset|app_id)/?"
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


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder for uploads that only this user can read; within it Gradio uses it, afterwards it is gone."""
    before = os.environ.get(FOLDER)
    with tempfile.TemporaryDirectory(prefix="mmgpt-", ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = str(Path(folder).resolve())
        try:
            yield Path(folder).resolve()
        finally:
            os.environ.pop(FOLDER) if before is None else os.environ.update({FOLDER: before})


@contextmanager
def serving(page: Page, folder: Path, host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Serves a page that was made within `private_folder`; gives its address.

    Raises:
        OSError: the port is taken. None: any free one from 7860.
    """
    limits = page.limits
    gate = Middleware(
        Gate, folder=folder, upload=limits.pictures * limits.picture.bytes + BODY, room=100 * limits.picture.bytes
    )
    theme = gr.themes.Default(primary_hue="blue", secondary_hue="blue", **FONTS).set(**LOOK)
    _, address, _ = page.blocks.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
        app_kwargs={"middleware": [gate]},
        max_file_size=limits.picture.bytes,
        max_threads=2 * 40,
        state_session_capacity=SESSIONS,
        theme=theme,
        css=STYLE,
    )
    try:
        yield address
    finally:
        page.blocks.close(verbose=False)


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
