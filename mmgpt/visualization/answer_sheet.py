"""Sheets of images with question, prediction and expected answer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mmgpt.datasets.transforms.images import upright_rgb
from mmgpt.visualization.figures import new_figure, pixels, save, wrap, write_text

COLORS = {True: "#1a7f37", False: "#c62828", None: "#0b57a4"}  # color of a prediction by whether it is correct
COLUMNS = 4
SMALL = 128  # longer side in pixels up to which images are enlarged with hard edges


def draw_sheet(rows: Sequence[dict], path: str | Path) -> Path:
    """Draw answers as a PNG sheet and return its path.

    Args:
        rows: dicts with ``image`` (a path, a PIL image, or None for a text-only question), ``question``,
            ``prediction``, ``answer`` (the expected answer, or None), ``correct`` (None: not scored), and optionally
            ``dataset``, which is shown as the title.
        path: the PNG file.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError(f"{path}: no rows to draw")
    return save(_draw(rows), path)


def sheet_pixels(rows: Sequence[dict]) -> np.ndarray:
    """The sheet that `draw_sheet` draws of at least one row, as uint8 (H, W, 3)."""
    return pixels(_draw(rows))


def side_by_side(images: Sequence[Image.Image]) -> Image.Image | None:
    """Canvas with images side by side, as tall as the tallest; a single image itself; None without images."""
    if len(images) < 2:
        return images[0] if images else None
    gap = max(1, max(image.height for image in images) // 32)
    width = sum(image.width + gap for image in images) - gap
    canvas, x = Image.new("RGB", (width, max(image.height for image in images)), "white"), 0
    for image in images:
        canvas.paste(image, (x, 0))
        x += image.width + gap
    return canvas


def _draw(rows: Sequence[dict]) -> Figure:
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = new_figure(3.2 * columns, 3.6 * lines)
    grid = figure.add_gridspec(2 * lines, columns, height_ratios=[2.1, 1.5] * lines)
    for index, row in enumerate(rows):
        line, column = divmod(index, columns)

        # 1. Draw the image under the name of its dataset.
        axes = figure.add_subplot(grid[2 * line, column])
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(wrap(row.get("dataset") or "", 34, 1), fontsize=9, parse_math=False)
        image = row.get("image")
        if image is None:
            axes.text(0.5, 0.5, "no image", ha="center", va="center", color="grey")
        else:
            image = upright_rgb(image if isinstance(image, Image.Image) else Image.open(image))
            # Small images are enlarged with hard pixel edges, since smoothing would hide how few pixels the model gets.
            axes.imshow(image, interpolation="nearest" if max(image.size) <= SMALL else "antialiased")

        # 2. Write the texts below the image.
        axes = figure.add_subplot(grid[2 * line + 1, column])
        axes.axis("off")
        prediction, color = row["prediction"] or "(no answer)", COLORS[row["correct"]]
        texts = [(wrap(row["question"], 40, 4), "black")]
        if row["answer"] is None:
            texts.append((wrap(prediction, 40, 6), color))
        else:
            texts.append((wrap(f"predicted: {prediction}", 40, 3), color))
            texts.append((wrap(f"expected: {row['answer']}", 40, 3), "dimgrey"))
        top = 1.0
        for text, color in texts:
            write_text(axes, 0, top, text, color)
            top -= 0.125 * (text.count("\n") + 1) + 0.02
    return figure
