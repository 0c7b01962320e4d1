"""Server of the page, with uploads in a private folder and without requests to other hosts."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from mmgpt.server.request_body import CloseUnread

from . import rendering
from .chat_page import MAX_RUNNING, ChatPage
from .request_filter import MAX_BODY, RequestFilter

SESSIONS = 200  # conversations in memory; a further one replaces the least recently used
FOLDER = "GRADIO_TEMP_DIR"  # environment variable with Gradio's folder of uploads
FONTS = dict(font=["system-ui", "Segoe UI", "Liberation Sans", "sans-serif"], font_mono=["ui-monospace", "monospace"])
# Gradio's grey has too little contrast for a weak screen or eye.
THEME = dict(
    body_text_color_subdued="*neutral_500",
    block_info_text_color="*neutral_500",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    block_radius="12px",
)


@contextmanager
def private_folder() -> Iterator[Path]:
    """Context manager that sets and deletes Gradio's folder of uploads, which only this user can read."""
    before = os.environ.get(FOLDER)
    with tempfile.TemporaryDirectory(prefix="mmgpt-", ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = str(Path(folder).resolve())
        try:
            yield Path(folder).resolve()
        finally:
            os.environ.pop(FOLDER) if before is None else os.environ.update({FOLDER: before})


@contextmanager
def serving(page: ChatPage, folder: Path, host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Context manager that serves a page, built inside `private_folder`, and yields its address.

    Args:
        port: None: the first free one from 7860.

    Raises:
        OSError: the port is taken.
    """
    limits = page.limits
    upload = limits.images * limits.image.bytes + MAX_BODY
    request_filter = Middleware(RequestFilter, folder=folder, max_upload=upload, max_uploads=100 * limits.image.bytes)
    theme = gr.themes.Default(primary_hue="blue", secondary_hue="blue", **FONTS).set(**THEME)
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
        app_kwargs={"middleware": [Middleware(CloseUnread), request_filter]},
        max_file_size=limits.image.bytes,
        max_threads=2 * MAX_RUNNING,  # Each running answer occupies one thread.
        state_session_capacity=SESSIONS,
        theme=theme,
        css_paths=rendering.ASSETS / "page.css",
    )
    try:
        yield address
    finally:
        page.blocks.close(verbose=False)
