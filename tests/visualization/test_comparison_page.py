"""write_comparison: what stands on the page, read back from its HTML."""

import base64
import re
from io import BytesIO

import pytest
from PIL import Image

from mmgpt.evaluation.comparison import Change
from mmgpt.visualization.comparison_page import MAX_SIDE, Case, Comparison, reduced, write_comparison
from tests.helpers.html_pages import read_page

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>&lt;"\'</div>'
BETTER = Change(20, 50.0, 75.0, 25.0, 5.0, 45.0, 7, 2, 8, 3, 0.1797)
WORSE = Change(4, 75.0, 25.0, -50.0, -90.0, -10.0, 0, 2, 1, 1, 0.0001)


def case(**changes):
    values = dict(origin="colour, q1", question="What?", expected="red (9), pink (1)", answers=("blue", "red"))
    values |= dict(scores=(0.0, 1.0), images=[Image.new("RGB", (8, 8), "red")])
    return Case(**(values | changes))


def page(tmp_path, **changes):
    values = dict(names=("before", "after"), about={"before": "a/b"}, overall=BETTER, tables={}, differing={})
    values |= dict(wins=[], losses=[])
    return read_page(write_comparison(Comparison(**(values | changes)), tmp_path / "new" / "page.html"))


def cells(element):
    return [[cell.text for cell in line.all(name="td")] for line in element.all(name="tr") if line.all(name="td")]


def test_statistics_of_the_comparison(tmp_path):
    shown = page(tmp_path, tables={"dataset": {"colour": BETTER, "shape": WORSE}})
    assert shown.all(name="h1")[0].text == "after against before"
    figures = dict(zip(*([element.text for element in shown.all(name=name)] for name in ("dt", "dd")), strict=True))
    assert figures == {
        "questions": "20",
        "before": "50.0 %",
        "after": "75.0 %",
        "difference": "+25.0",
        "95 % interval": "+5.0 … +45.0",
        "sign test": "p = 0.180",
    }
    assert [element.text.strip() for element in shown.all("key")[0].all(name="span")] == [
        "both right 8",
        "wins 7",
        "losses 2",
        "both wrong 3",
    ]
    assert cells(shown.all(name="table")[0]) == [
        ["colour", "20", "50.0", "75.0", "+25.0", "+5.0 … +45.0", "7", "2", "0.180"],
        ["shape", "4", "75.0", "25.0", "−50.0", "−90.0 … −10.0", "0", "2", "< 0.001"],
    ]
    assert [
        element.classes for element in shown.all(name="table")[0].all(name="td") if element.text in ("+25.0", "−50.0")
    ] == [
        ["better"],
        ["worse"],
    ]


def test_an_interval_that_holds_zero_has_no_color(tmp_path):
    unsure = BETTER._replace(low=-1.0)
    [shown] = page(tmp_path, tables={"dataset": {"colour": unsure}}).all(name="table")
    assert not shown.all("better")
    assert not shown.all("worse")


def test_differing_settings(tmp_path):
    shown = page(tmp_path, tables={"dataset": {}}, differing={"lora.r": (16, 64), "seed": (0, None)})
    assert cells(shown.all("settings")[0]) == [["lora.r", "16", "64"], ["seed", "0", "–"]]


def test_wins_and_losses(tmp_path):
    loss = case(scores=(0.9, 0.3), answers=("pink", "blue"))
    wins, losses = page(tmp_path, wins=[case()], losses=[loss]).all(name="section")
    assert wins.all(name="h2")[0].text == "Wins 7, 1 shown"
    assert losses.all(name="h2")[0].text == "Losses 2, 1 shown"
    [first, second, expected] = wins.all(name="dd")
    assert (first.text, first.classes) == ("✗ blue", ["worse"])
    assert (second.text, second.classes) == (
        "✓ red",
        ["better"],
    )
    assert expected.text == "red (9), pink (1)"
    assert [element.text for element in losses.all(name="dd")[:2]] == ["✓ pink (0.90)", "✗ blue (0.30)"]
    assert [element.text for element in wins.all(name="dt")] == ["before", "after", "expected"]


def test_no_text_acts_on_the_page(tmp_path):
    hostile = case(origin=HOSTILE, question=HOSTILE + "\u202e", expected=HOSTILE, answers=(HOSTILE, HOSTILE), images=[])
    tables = {"dataset": {HOSTILE: BETTER}}
    shown = page(
        tmp_path,
        names=(HOSTILE, "b"),
        about={HOSTILE: HOSTILE},
        tables=tables,
        differing={HOSTILE: (HOSTILE, 1)},
        wins=[hostile],
    )
    assert not shown.all(name="script")
    assert not shown.all(name="img")
    assert shown.all("cases")[0].all(name="p")[0].text == HOSTILE + "U+202E"
    assert shown.all("cases")[0].all(name="dd")[0].text.strip() == f"✗ {HOSTILE}"


def test_images_are_in_the_page_and_large_ones_reduced(tmp_path):
    large = Image.effect_noise((1000, 500), 90).convert("RGB")
    shown = page(tmp_path, wins=[case(images=[Image.new("RGB", (8, 4), "red"), large])])
    small_image, large_image = (element.attributes for element in shown.all("cases")[0].all(name="img"))
    assert small_image["class"] == "hard"
    assert (small_image["width"], small_image["height"]) == ("160", "80")
    kinds = [element["src"].partition(";")[0] for element in (small_image, large_image)]
    assert kinds == ["data:image/png", "data:image/jpeg"]
    opened = [
        Image.open(BytesIO(base64.b64decode(element["src"].partition(",")[2])))
        for element in (small_image, large_image)
    ]
    assert opened[0].getpixel((0, 0)) == (255, 0, 0)
    assert opened[1].size == (MAX_SIDE, MAX_SIDE // 2)


def test_the_page_is_self_contained_and_has_both_color_schemes(tmp_path):
    page(tmp_path, wins=[case()])
    text = (tmp_path / "new" / "page.html").read_text()
    assert "prefers-color-scheme: dark" in text
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "url(" not in text


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 480), (320, 240)), ((100, 320), (100, 320)), ((9, 900), (3, 320))]
)
def test_reduced_images_fit_and_leave_the_original_alone(size, expected):
    image = Image.new("RGB", size)
    assert reduced(image).size == expected
    assert image.size == size
