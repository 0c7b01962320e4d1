"""What the drawings share: a figure without global state, and text that cannot break it."""

import textwrap
import unicodedata
import warnings
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 110


def new_figure(width: float, height: float) -> Figure:
    """A figure of width x height inches that no window and no pyplot state knows of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def wrap(text: str, columns: int, lines: int) -> str:
    """Text broken into at most ``lines`` of ``columns`` characters, long words included; control characters go."""
    plain = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in str(text))
    return "\n".join(textwrap.wrap(plain, columns, max_lines=lines, placeholder=" …", break_long_words=True))


def write_text(axes: Axes, x: float, y: float, text: str, colour: str = "black", size: float = 8) -> Text:
    """Write text literally (a ``$`` starts no formula) below and right of a point in axes units."""
    style = dict(transform=axes.transAxes, va="top", ha="left", parse_math=False)
    written = axes.text(x, y, text, color=colour, fontsize=size, **style)
    # Wide letters may run over the edge; they must not push the other drawings aside.
    written.set_in_layout(False)
    return written


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; folders are made. Characters without a glyph become boxes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(path, format="png", dpi=DPI)
    return path
