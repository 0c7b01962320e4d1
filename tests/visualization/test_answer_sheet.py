"""draw_sheet: any text and any image can be drawn; small images keep hard pixel edges."""

import numpy as np
import pytest
from PIL import Image

from mmgpt.visualization import draw_sheet
from mmgpt.visualization.answer_sheet import sheet_pixels, side_by_side
from mmgpt.visualization.figures import wrap

HOSTILE = ["costs $5_{x and $\\frac{1", "w" * 400, "emoji 😀 赤 \u202e", "tab\tnul\x00\n\nline", "{curly} %s \\", ""]


def row(**changes):
    image = Image.new("RGB", (64, 64), "red")
    return dict(image=image, question="What?", prediction="red", answer="red", correct=True, dataset="colour") | changes


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_breaks_the_drawing(tmp_path, text, recwarn):
    path = draw_sheet([row(question=text, prediction=text, answer=text, dataset=text)], tmp_path / "sheet.png")
    assert Image.open(path).size[0] > 100
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_a_long_text_is_cut_and_a_long_word_broken():
    lines = wrap("x" * 100, 10, 3).split("\n")
    assert len(lines) == 3
    assert max(map(len, lines)) <= 10
    assert lines[-1].endswith("…")


def test_right_is_green_and_wrong_is_red(tmp_path):
    def dominant(correct):
        path = draw_sheet([row(image=None, correct=correct)], tmp_path / "sheet.png")
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        return (pixels[..., 1] - pixels[..., 0] > 60).sum(), (pixels[..., 0] - pixels[..., 1] > 60).sum()

    green, red = dominant(True)
    assert green > 20
    assert red == 0
    green, red = dominant(False)
    assert red > 20
    assert green == 0


def test_unscored_predictions_are_blue_and_longer_without_an_expected_answer(tmp_path):
    def inked(**changes):
        shown = row(image=None, correct=None, prediction="word " * 80, **changes)
        pixels = np.asarray(Image.open(draw_sheet([shown], tmp_path / "sheet.png")).convert("RGB")).astype(int)
        return (pixels[..., 2] - pixels[..., 0] > 60).sum()

    assert inked(answer=None) > 1.5 * inked(answer="red") > 0


def test_small_images_are_enlarged_without_smoothing(tmp_path):
    board = np.indices((8, 8)).sum(axis=0) % 2 * 255
    image = Image.fromarray(np.stack([board, 0 * board, 0 * board], axis=-1).astype("uint8"))
    path = draw_sheet([row(image=image, correct=True)], tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    image_pixels = pixels[pixels[..., 1:].max(axis=-1) == 0]
    reds = np.bincount(image_pixels[:, 0], minlength=256)
    assert reds[0] + reds[255] > 0.95 * reds.sum()
    assert reds[255] > 1000


def test_files_of_any_mode_and_many_rows(tmp_path):
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (300, 200)).save(tmp_path / f"{mode}.png")
    rows = [row(image=tmp_path / f"{mode}.png") for mode in ("L", "RGBA", "P", "1")] + [row(image=None)]
    assert draw_sheet(rows, tmp_path / "made" / "sheet.png").is_file()


def test_a_sheet_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        draw_sheet([], tmp_path / "sheet.png")


def test_sheet_pixels_equal_the_file(tmp_path, recwarn):
    rows = [row(question="赤"), row(image=None)]
    pixels = sheet_pixels(rows)
    assert pixels.dtype == np.uint8
    assert (pixels == np.asarray(Image.open(draw_sheet(rows, tmp_path / "sheet.png")).convert("RGB"))).all()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_images_side_by_side():
    red, blue = Image.new("RGB", (10, 64), "red"), Image.new("RGB", (20, 8), "blue")
    both = side_by_side([red, blue])
    assert both.size == (32, 64)
    assert [both.getpixel(position) for position in ((0, 63), (10, 0), (31, 7), (31, 8))] == [
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 255),
        (255, 255, 255),
    ]
    assert side_by_side([red]) is red
    assert side_by_side([]) is None
