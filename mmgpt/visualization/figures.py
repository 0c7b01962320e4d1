"""Matplotlib figures without global state, and text that cannot break their layout."""

import textwrap
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 110


def new_figure(width: float, height: float) -> Figure:
    """A figure of width x height inches, without a window and unknown to pyplot, which would never free it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def wrap(text: str, columns: int, lines: int) -> str:
    """Text in at most ``lines`` of ``columns`` characters, without control characters; long words are broken."""
    plain = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in str(text))
    return "\n".join(textwrap.wrap(plain, columns, max_lines=lines, placeholder=" …", break_long_words=True))


def write_text(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    """Write literal text (a ``$`` does not start a formula) below and to the right of a point in axes units."""
    style = dict(transform=axes.transAxes, va="top", ha="left", parse_math=False)
    artist = axes.text(x, y, text, color=color, fontsize=8, **style)
    # Wide letters may run over the edge, but must not push the other axes aside.
    artist.set_in_layout(False)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG and return its path; missing folders are created.

    A box stands for a character without a glyph.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _missing_glyphs_ignored():
        figure.savefig(path, format="png", dpi=DPI)
    return path


def pixels(figure: Figure) -> np.ndarray:
    """The figure as uint8 (H, W, 3), the same as `save` writes."""
    figure.set_dpi(DPI)
    with _missing_glyphs_ignored():
        figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3].copy()


@contextmanager
def _missing_glyphs_ignored() -> Iterator[None]:
    """Context manager without matplotlib's warnings about characters that the font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield
