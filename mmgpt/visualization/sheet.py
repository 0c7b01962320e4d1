"""A sheet of pictures with question, answer given and answer expected."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmgpt.datasets.transforms.images import upright_rgb
from mmgpt.visualization.canvas import new_figure, pixels, save, wrap, write_text

COLOURS = {True: "#1a7f37", False: "#c62828", None: "#0b57a4"}  # of a right answer, a wrong one, one nobody judged
COLUMNS = 4
SMALL = 128


def draw_sheet(rows: Sequence[dict], path: str | Path) -> Path:
    """Draw judged answers as a PNG sheet and return its path.

    Args:
        rows: dicts with ``image`` (a path, a PIL image, or None for a text-only question), ``question``,
            ``prediction``, ``answer`` (None: not known), ``correct`` (None: not judged), and optionally ``dataset``,
            shown as the title.
        path: the PNG file.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError(f"{path}: no rows to draw")
    return save(_sheet(rows), path)


def sheet_pixels(rows: Sequence[dict]) -> np.ndarray:
    """What `draw_sheet` draws of at least one row, as uint8 (H, W, 3)."""
    return pixels(_sheet(rows))


def side_by_side(images: Sequence[Image.Image]) -> Image.Image | None:
    """Several images as one, of the height of the tallest; None when there is no image."""
    if len(images) < 2:
        return images[0] if images else None
    gap = max(1, max(image.height for image in images) // 32)
    width = sum(image.width + gap for image in images) - gap
    whole, x = Image.new("RGB", (width, max(image.height for image in images)), "white"), 0
    for image in images:
        whole.paste(image, (x, 0))
        x += image.width + gap
    return whole


def _sheet(rows: Sequence[dict]) -> Figure:
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = new_figure(3.2 * columns, 3.6 * lines)
    grid = figure.add_gridspec(2 * lines, columns, height_ratios=[2.1, 1.5] * lines)
    for index, row in enumerate(rows):
        line, column = divmod(index, columns)
        _draw_picture(figure.add_subplot(grid[2 * line, column]), row)
        _draw_words(figure.add_subplot(grid[2 * line + 1, column]), row)
    return figure


def _draw_picture(axes: Axes, row: dict) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(wrap(row.get("dataset") or "", 34, 1), fontsize=9, parse_math=False)
    image = row.get("image")
    if image is None:
        axes.text(0.5, 0.5, "no picture", ha="center", va="center", color="grey")
        return
    if not isinstance(image, Image.Image):
        image = Image.open(image)
    image = upright_rgb(image)
    # Small pictures are enlarged with hard pixel edges: smoothing would show what the model never saw.
    axes.imshow(image, interpolation="nearest" if max(image.size) <= SMALL else "antialiased")


def _draw_words(axes: Axes, row: dict) -> None:
    axes.axis("off")
    texts = [(wrap(row["question"], 40, 4), "black")]
    given, colour = row["prediction"] or "(no answer)", COLOURS[row["correct"]]
    if row["answer"] is None:
        texts.append((wrap(given, 40, 6), colour))
    else:
        texts += [(wrap(f"given: {given}", 40, 3), colour), (wrap(f"expected: {row['answer']}", 40, 3), "dimgrey")]
    top = 1.0
    for text, colour in texts:
        write_text(axes, 0, top, text, colour)
        top -= 0.125 * (text.count("\n") + 1) + 0.02
