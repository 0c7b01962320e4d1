"""Tiles of an image: the grids that it can be cut into, and the number of each tile's place.

A tiled image is F frames of the resampler: the whole image, and its tiles in the order of reading. `tile_ids` (..., F)
hold the place of each frame, 0 for the whole image, and -1 for padding.
"""

from functools import cache
from typing import NamedTuple


class Place(NamedTuple):
    """The `row` and the `column` of a tile in a grid of `rows` and `columns`."""

    rows: int
    columns: int
    row: int
    column: int


@cache
def tile_places(most: int) -> list[Place]:
    """All places of tiles in grids of at most `most` tiles; the first is the whole image.

    Grids of fewer tiles come first, so that the number of a place is the same whatever `most` is.
    """
    return [
        Place(rows, count // rows, row, column)
        for count in range(1, most + 1)
        for rows in range(1, count + 1)
        if count % rows == 0
        for row in range(rows)
        for column in range(count // rows)
    ]


def best_grid(size: tuple[int, int], tile: tuple[int, int], most: int) -> tuple[int, int]:
    """Rows and columns of the grid of at most `most` tiles that keeps most of an image's pixels; (1, 1): no tiles.

    That is the grid in which the image, resized with its aspect ratio, has the most pixels (those of an enlargement do
    not count), and of several the one with the fewest tiles, as LLaVA-NeXT chooses it.

    Args:
        size: (width, height) of the image.
        tile: (width, height) of a tile.
    """
    width, height = size

    def rank(place: Place) -> tuple[int, int]:
        scale = min(place.columns * tile[0] / width, place.rows * tile[1] / height, 1)
        return -round(width * scale) * round(height * scale), place.rows * place.columns

    best = min(tile_places(most), key=rank)
    return best.rows, best.columns
