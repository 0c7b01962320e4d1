"""Cards of answers: on a page every turn, on a sheet the last one; any text stays text."""

import numpy as np
from PIL import Image

from mmgpt.visualization.cards import Card, draw_cards, write_answers

SMALL, LARGE = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (320, 200), "blue")


def test_the_page_shows_each_turn_and_each_image(tmp_path):
    history = [("first?", "<script>alert(1)</script>")]
    cards = [Card("0", [SMALL, LARGE], history, "second?", "so", "expected so"), Card("1: x", [], [], "third?", "")]
    path = write_answers(cards, {"model": "a <b> model"}, tmp_path / "made" / "page.html")
    page = path.read_text(encoding="utf-8")
    assert page.count("<article") == 2
    assert page.count("data:image/png") == 1
    assert page.count("data:image/jpeg") == 1
    texts = ["first?", "&lt;script&gt;", "second?", "so", "expected: expected so", "1: x", "third?", "(no answer)"]
    places = [page.index(f">{text}" if text != "&lt;script&gt;" else text) for text in texts]
    assert places == sorted(places)
    assert "<script" not in page
    assert "a &lt;b&gt; model" in page


def test_a_sheet_shows_the_images_of_a_card_side_by_side():
    sheet = draw_cards([Card("0", [SMALL, LARGE], [], "what?", "two")])
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3
    red, blue = ((sheet == colour).all(axis=-1).nonzero()[1] for colour in ((255, 0, 0), (0, 0, 255)))
    assert len(red)
    assert len(blue)
    assert red.max() < blue.min()
