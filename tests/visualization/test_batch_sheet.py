"""draw_batches: which text is coloured where, and that everything can be drawn."""

import numpy as np
import pytest
from PIL import Image

from mmgpt.visualization import Batch, draw_batches
from mmgpt.visualization.batch_sheet import COLUMNS, LEARNED, SPECIAL, lines_of
from tests.helpers.html_pages import picture, piece, row, sample


def test_runs_of_one_background():
    pieces = [piece("<s>", kind="special"), piece("a"), piece(" b"), piece(" c", True), piece("</s>", True, "special")]
    assert lines_of(pieces) == [[(0, "<s>", SPECIAL), (3, "a·b", ""), (6, "·c</s>", LEARNED)]]


def test_lines_break_where_the_text_does_and_where_they_are_full():
    assert lines_of([piece("a\n\n"), piece("b\n", True)]) == [[(0, "a⏎", "")], [(0, "⏎", "")], [(0, "b⏎", LEARNED)]]
    assert lines_of([piece("abc"), piece("de", True)], columns=4) == [
        [(0, "abc", ""), (3, "d", LEARNED)],
        [(0, "e", LEARNED)],
    ]
    assert lines_of([]) == []


def test_what_cannot_be_seen_is_a_box():
    assert lines_of([piece("\u202ea\x00\t😀 é")]) == [[(0, "□a□⇥😀 é", "")]]


def area(path, colour):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return int((pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1).sum())


def test_learned_tokens_are_green(tmp_path):
    shown = [row(sample(piece("a" * 60), piece("  " * count, True)), right=3) for count in (0, 10, 20)]
    areas = [area(draw_batches([Batch(0, [each], 1)], tmp_path / "s")[0], LEARNED) for each in shown]
    assert areas[0] == 0 and areas[1] > 1000 and areas[2] == pytest.approx(2 * areas[1], rel=0.05)


def test_pictures_are_drawn_with_hard_edges(tmp_path):
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype("uint8")
    seen = Image.fromarray(np.stack([board, 0 * board, 0 * board], axis=-1))
    [path] = draw_batches(
        [Batch(0, [row(sample(piece("a"), pictures=[picture()._replace(seen=seen)]))], 1)], tmp_path / "s"
    )
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    reds = np.bincount(pixels[pixels[..., 1:].max(axis=-1) == 0][:, 0], minlength=256)
    assert reds[0] + reds[255] > 0.95 * reds.sum() and reds[255] > 5000


def test_a_sheet_for_each_batch_and_more_where_it_is_tall(tmp_path):
    tall = sample(piece("a\n" * 100))
    batches = [
        Batch(0, [row(sample(piece("a")), left=2)], 1),
        Batch(7, [row(tall, number=i, right=1) for i in range(5)], 5),
    ]
    names = [path.name for path in draw_batches(batches, tmp_path / "made" / "train")]
    assert names == [
        "train-batch0-rows0-0.png",
        "train-batch7-rows0-1.png",
        "train-batch7-rows2-3.png",
        "train-batch7-rows4-4.png",
    ]
    one, two = (Image.open(tmp_path / "made" / name).size for name in (names[3], names[1]))
    assert one[1] == two[1] and 1.9 * one[0] < two[0] < 2 * one[0]


@pytest.mark.parametrize(
    "text", ["costs $5_{x and $\\frac{1", "w" * (3 * COLUMNS), "emoji 😀 赤 \u202e", "{} %s \\", ""]
)
def test_no_text_breaks_the_drawing(tmp_path, text, recwarn):
    odd = sample(
        piece(text), piece(text, True), pictures=[picture(1, (1, 1)), picture(2, (200, 2))], id=text, file=text
    )
    [path] = draw_batches([Batch(0, [row(odd, odd, left=1, right=1)], 1)], tmp_path / "s")
    assert path.is_file() and [str(warning.message) for warning in recwarn] == []
