"""Sheets of batches as PNG: every row with its pictures and its text, learned tokens coloured."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from mmgpt.datasets.inspection.pieces import Piece
from mmgpt.datasets.inspection.views import Row, Sample
from mmgpt.visualization.canvas import DPI, new_figure, save, wrap, write_text
from mmgpt.visualization.html import SIGNS
from mmgpt.visualization.page import Batch

COLUMNS = 76  # characters of a line
SIDE_BY_SIDE = 2  # columns of rows
# In points, 72 to the inch. A letter is as wide as whole pixels, to which matplotlib rounds it; in DejaVu Sans Mono
# that is 1233 / 2048 of the size of the font.
ADVANCE = 7 * 72 / DPI
FONT, LINE = ADVANCE * 2048 / 1233, 11.0
MARGIN, PICTURE, GAP = 10.0, 84.0, 6.0
INDENT = PICTURE + GAP
WIDTH = INDENT + COLUMNS * ADVANCE + MARGIN
TALLEST = 1400.0  # what is above goes to the next column
LEARNED, SPECIAL = "#b7ebc0", "#d5ddfa"
PICTURES = ("#8250df", "#0969da", "#bf5b00", "#c0256f", "#0a7d74", "#6b7200")


class Run(NamedTuple):
    """Text of one background ('' for none) on a line, and the column where it begins."""

    column: int
    text: str
    background: str


def draw_batches(batches: Sequence[Batch], stem: str | Path) -> list[Path]:
    """Draw batches as PNG, each on one sheet or, where it is tall, on several; return the files.

    The files are called ``<stem>-batch<number>-rows<first>-<last>.png``.
    """
    made = []
    for batch in batches:
        columns = list(_columns(batch.rows))
        for start in range(0, len(columns), SIDE_BY_SIDE):
            shown = columns[start : start + SIDE_BY_SIDE]
            name = f"batch{batch.number}-rows{shown[0][0].number}-{shown[-1][-1].number}"
            made.append(_draw_sheet(shown, f"Batch {batch.number}", f"{stem}-{name}.png"))
    return made


def lines_of(pieces: Sequence[Piece], columns: int = COLUMNS) -> list[list[Run]]:
    """Pieces as lines of at most so many characters: a sign stands for each line break, a dot for a token's space."""
    lines, column = [[]], 0
    for piece in pieces:
        for char in _signs(piece):
            if column == columns:
                lines, column = [*lines, []], 0
            line, background = lines[-1], _background(piece)
            if line and line[-1].background == background:
                line[-1] = line[-1]._replace(text=line[-1].text + char)
            else:
                line.append(Run(column, char, background))
            column += 1
            if char == SIGNS["\n"]:
                lines, column = [*lines, []], 0
    return lines if lines[-1] else lines[:-1]


def _signs(piece: Piece) -> str:
    text = "·" + piece.text[1:] if piece.kind == "text" and piece.text.startswith(" ") else piece.text
    return "".join(SIGNS.get(char, char if char.isprintable() else "□") for char in text)


def _background(piece: Piece) -> str:
    return LEARNED if piece.learned else "" if piece.kind == "text" else SPECIAL


def _columns(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows cut where they are taller than a sheet together."""
    column, height = [], 0.0
    for row in rows:
        if column and height + _height(row) > TALLEST:
            yield column
            column, height = [], 0.0
        column.append(row)
        height += _height(row)
    yield column


def _height(row: Row) -> float:
    padding = LINE * ((row.left > 0) + (row.right > 0))
    return 2 * LINE + padding + sum(map(_sample_height, row.samples))


def _sample_height(sample: Sample) -> float:
    return LINE + max(len(lines_of(sample.pieces)) * LINE, len(sample.pictures) * (PICTURE + GAP))


def _draw_sheet(columns: Sequence[Sequence[Row]], title: str, path: str) -> Path:
    top = MARGIN + 2 * LINE
    width = MARGIN + len(columns) * WIDTH
    height = top + max(sum(map(_height, rows)) for rows in columns) + MARGIN
    figure = new_figure(width / 72, height / 72)
    # One drawing in points from the upper left corner: nothing is laid out, everything is as tall as its text.
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.axis("off")
    _write(axes, MARGIN, MARGIN, f"{title}. Green: learned, blue: special tokens", size=9)
    for i, rows in enumerate(columns):
        y = top
        for row in rows:
            _draw_row(axes, row, MARGIN + i * WIDTH, y)
            y += _height(row)
    return save(figure, path)


def _draw_row(axes: Axes, row: Row, x: float, y: float) -> None:
    axes.plot([x, x + WIDTH - MARGIN], [y, y], color="silver", linewidth=0.8)
    told = f"row {row.number}: {row.tokens} tokens, {row.learned} learned, {row.padding} padding"
    _write(axes, x, y + LINE / 2, told)
    y += 1.5 * LINE
    if row.left:
        _write(axes, x + INDENT, y, f"padding × {row.left}", "grey")
        y += LINE
    for i, sample in enumerate(row.samples):
        if i:
            axes.plot([x, x + WIDTH - MARGIN], [y, y], color="silver", linewidth=0.8, linestyle=":")
        _draw_sample(axes, sample, x, y)
        y += _sample_height(sample)
    if row.right:
        _write(axes, x + INDENT, y, f"padding × {row.right}", "grey")


def _draw_sample(axes: Axes, sample: Sample, x: float, y: float) -> None:
    cut = f", cut at {sample.limit} tokens" if sample.cut else ""
    place = f"{sample.dataset}, {sample.file}, record {sample.record}, id {sample.id}{cut}"
    _write(axes, x + INDENT, y, wrap(place, COLUMNS, 1), "dimgrey")
    y += LINE
    for i, picture in enumerate(sample.pictures):
        _draw_picture(axes, picture.seen, x, y + i * (PICTURE + GAP), PICTURES[picture.number % len(PICTURES)])
    for i, line in enumerate(lines_of(sample.pieces)):
        for run in line:
            _draw_run(axes, run, x + INDENT, y + i * LINE)


def _draw_run(axes: Axes, run: Run, x: float, y: float) -> None:
    x += run.column * ADVANCE
    if run.background:
        axes.add_patch(Rectangle((x, y), len(run.text) * ADVANCE, LINE - 1, color=run.background, linewidth=0))
    _write(axes, x, y + 1, run.text, size=FONT, family="monospace")


def _draw_picture(axes: Axes, image: Image.Image, x: float, y: float, colour: str) -> None:
    scale = PICTURE / max(image.size)
    width, height = image.width * scale, image.height * scale
    # Hard pixel edges where pixels are enlarged, as on the page.
    smooth = "nearest" if scale >= 1 else "antialiased"
    axes.imshow(image, extent=(x, x + width, y + height, y), aspect="auto", interpolation=smooth)
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.5))


def _write(
    axes: Axes, x: float, y: float, text: str, colour: str = "black", size: float = 8, family: str = "sans-serif"
) -> None:
    """Write text at a place in points."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    write_text(axes, x / width, 1 - y / height, text, colour, size).set_family(family)
