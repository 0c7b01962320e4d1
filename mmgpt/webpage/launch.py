"""How the page is served: from a private folder, and without the net."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from mmgpt.server.body import CloseUnread

from . import view
from .gate import BODY, Gate
from .page import RUNNING, Page

SESSIONS = 200  # conversations in memory; the one used longest ago is forgotten for another
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
        app_kwargs={"middleware": [Middleware(CloseUnread), gate]},
        max_file_size=limits.picture.bytes,
        max_threads=2 * RUNNING,  # an answer that is being written holds one
        state_session_capacity=SESSIONS,
        theme=theme,
        css_paths=view.FOLDER / "page.css",
    )
    try:
        yield address
    finally:
        page.blocks.close(verbose=False)
