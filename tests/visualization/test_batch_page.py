"""write_page: what stands on the page, read back from its HTML."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mmgpt.visualization import Batch, write_page
from tests.helpers.html_pages import read_page, row, sample, shown_image, span

START, END = span("<s>", kind="special"), span("</s>", True, "special")
HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>&lt;"\'</div>'


def page(tmp_path, *rows, of=None, title="config.py", about=None):
    path = write_page([Batch(4, list(rows), of or len(rows))], title, about or {}, tmp_path / "new" / "page.html")
    return read_page(path)


def figures(shown):
    return dict(zip(*([e.text for e in shown.all(name=name)] for name in ("dt", "dd")), strict=True))


def test_supervised_tokens_and_no_others_are_colored(tmp_path):
    tokens = [START, span("What"), span(" is"), span(" a", True), span(" cup", True), END]
    [shown] = page(tmp_path, row(sample(*tokens))).all("tokens")
    assert [element.text for element in shown.all("t")] == ["<s>", "What", " is", " a", " cup", "</s>"]
    assert [element.text for element in shown.all("t", "supervised")] == [" a", " cup", "</s>"]
    assert [element.text for element in shown.all("t", "special")] == ["<s>", "</s>"]
    assert [element.text for element in shown.all("t", "space")] == [" is", " a", " cup"]
    assert shown.all("t")[0].attributes["title"] == "id 10"
    # White space between the boxes would be white space that the model does not get.
    assert shown.text == "<s>What is a cup</s>"


def test_line_breaks_tabs_and_unseen_characters_get_a_sign(tmp_path):
    [shown] = page(tmp_path, row(sample(span("a\n\nb"), span("\t"), span("\u202e\u200b\ud800"), span("😀é赤")))).all(
        "tokens"
    )
    assert [element.text for element in shown.all("t")] == ["a⏎\n⏎\nb", "⇥\t", "U+202EU+200BU+D800", "😀é赤"]
    assert [element.text for element in shown.all(name="i")] == ["⏎", "⏎", "⇥", "U+202E", "U+200B", "U+D800"]
    assert [element.text for element in shown.all("t", "broken")] == ["a⏎\n⏎\nb"]


def test_signs_in_the_text_are_text(tmp_path):
    [shown] = page(tmp_path, row(sample(span("⏎ ·")))).all("tokens")
    assert shown.text == "⏎ ·"
    assert not shown.all(name="i")


@pytest.mark.parametrize(("left", "right", "text"), [(0, 37, "padding × 37, right"), (5, 0, "padding × 5, left")])
def test_padding_is_counted_and_at_its_side(tmp_path, left, right, text):
    [article] = page(tmp_path, row(sample(span("a"), span("b", True)), left=left, right=right)).all(name="article")
    [shown] = article.all("pad")
    assert shown.text == text
    parts = [element for element in article.all("words")[0].children if not isinstance(element, str)]
    assert [part.classes for part in parts] == ([["pad"], ["tokens"]] if left else [["tokens"], ["pad"]])
    share = 100 * (left + right) / (2 + left + right)
    [counts] = article.all("counts")
    assert counts.text == f"2 tokens, 1 supervised (50.0 %), {left + right} padding ({share:.1f} % of the row)"


def test_no_marks_without_padding_and_cuts(tmp_path):
    [article] = page(tmp_path, row(sample(span("a")))).all(name="article")
    assert not article.all("pad")
    assert not article.all("warn")


def test_counts_of_all_batches_and_datasets(tmp_path):
    visual = sample(span("a"), span("b", True, tokens=3), shown_images=[shown_image()])
    text = sample(span("c", True), span("d"), dataset="dolly", source="language")
    batches = [Batch(0, [row(visual, right=4), row(text, number=1, right=6)], 2), Batch(1, [row(visual, right=4)], 9)]
    shown = read_page(write_page(batches, "c", {"split": "train"}, tmp_path / "page.html"))
    assert figures(shown) == {
        "batches": "2",
        "rows": "3",
        "samples": "3",
        "images": "2",
        "tokens": "10",
        "supervised, of the tokens": "70.0 %",
        "padding, of all positions": "58.3 %",
    }
    lines = [[cell.text for cell in line.all(name="td")] for line in shown.all(name="tr")]
    assert lines[1:] == [
        ["photos", "visual", "2", "2", "8", "6", "75.0 %"],
        ["dolly", "language", "1", "0", "2", "1", "50.0 %"],
    ]
    heads = [" ".join(head.text.split()) for head in shown.all("head")]
    assert heads[0] == (
        "Batch 0 2 rows × 8 tokens 1 image, supervised 66.7 % of the tokens, padding 62.5 % of all positions"
    )
    assert heads[1].startswith("Batch 1 9 rows × 8 tokens, 1 shown")
    assert "split train" in shown.text


def test_a_row_names_its_sample_and_what_was_cut(tmp_path):
    [article] = page(tmp_path, row(sample(span("a"), cut=True, images=3), number=5)).all(name="article")
    assert article.all(name="b")[0].text == "Row 5"
    assert article.all("origin")[0].text == "photos visual · data/train.json, record 7, id x"
    assert [element.text for element in article.all("warn")] == ["cut at 64 tokens", "0 of 3 images"]


def test_image_tokens_and_their_images_share_number_and_color(tmp_path):
    image = span("<image>", kind="image")
    shown = page(
        tmp_path, row(sample(image, span("a"), image, shown_images=[shown_image(1), shown_image(2, colour="blue")]))
    )
    tokens, pictures = shown.all("tokens")[0].all("t", "image"), shown.all(name="figure")
    assert [element.text for element in tokens] == ["<image>1", "<image>2"]
    assert [element.attributes["href"] for element in tokens] == [
        "#" + element.attributes["id"] for element in pictures
    ]
    colors = [[name for name in element.classes if re.fullmatch(r"c\d", name)] for element in tokens + pictures]
    assert colors == [["c1"], ["c2"], ["c1"], ["c2"]]
    assert "image 2, 8 × 8" in pictures[1].text
    assert "of images/a.png, 40 × 30" in pictures[1].text


def decoded(element):
    return Image.open(BytesIO(base64.b64decode(element.attributes["src"].removeprefix("data:image/png;base64,"))))


def test_images_are_exact_and_enlarged_with_hard_edges(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    small = shown_image()._replace(prepared=noise)
    shown = page(tmp_path, row(sample(shown_images=[small, shown_image(2, (224, 224), original=(96, 1))])))
    seen, original, large, flat = shown.all(name="img")
    assert np.array_equal(np.asarray(decoded(seen)), np.asarray(noise))
    assert [seen.attributes[key] for key in ("width", "height")] == ["160", "160"]
    assert seen.classes == ["hard"]
    assert [original.attributes[key] for key in ("width", "height")] == ["80", "60"]
    assert original.classes == ["hard"]
    assert [large.attributes[key] for key in ("width", "height")] == ["224", "224"]
    assert large.classes == []
    assert [flat.attributes[key] for key in ("width", "height")] == ["96", "1"]


def test_a_packed_row_shows_each_of_its_samples(tmp_path):
    image = span("<image>", kind="image")
    first = sample(START, image, END, id="first", shown_images=[shown_image(1)])
    second = sample(START, span("b", True), END, id="second", dataset="dolly", source="language")
    third = sample(START, image, image, END, id="third", shown_images=[shown_image(2), shown_image(3)])
    [article] = page(tmp_path, row(first, second, third, right=9)).all(name="article")
    parts = article.all("sample")
    assert [part.all("tokens")[0].text for part in parts] == ["<s><image>1</s>", "<s>b</s>", "<s><image>2<image>3</s>"]
    assert [part.all("origin")[0].text.rpartition(" ")[2] for part in parts] == ["first", "second", "third"]
    assert [part.all("counts")[0].text for part in parts[1:]] == ["3 tokens, 2 supervised", "4 tokens, 1 supervised"]
    assert [len(part.all("pad")) for part in parts] == [0, 0, 1]
    assert "3 samples" in article.text
    ids = [element.attributes["id"] for element in article.all(name="figure")]
    assert [element.attributes["href"][1:] for element in article.all("t", "image")] == ids
    assert len(set(ids)) == 3


def test_data_is_text_and_never_markup(tmp_path):
    hostile = sample(
        span(HOSTILE), span(HOSTILE, True, "bytes"), span(HOSTILE, kind="special"), span(HOSTILE, kind="image"),
        shown_images=[shown_image(file=HOSTILE)], dataset=HOSTILE, file=HOSTILE, id=HOSTILE,
    )  # fmt: skip
    shown = page(tmp_path, row(hostile), title=HOSTILE, about={"split": HOSTILE})
    plain = page(
        tmp_path, row(sample(*[span("a")] * 3, span("a", kind="image"), shown_images=[shown_image()])), about={"b": 1}
    )
    assert [element.name for element in shown.all()] == [element.name for element in plain.all()]
    assert not shown.all(name="script")
    assert len(shown.all(name="img")) == 2
    assert [element.text.removesuffix("1") for element in shown.all("tokens")[0].all("t")] == [HOSTILE] * 4
    assert shown.all(name="h1")[0].text == HOSTILE
    assert shown.all("origin")[0].text.count(HOSTILE) == 3


def test_the_page_is_self_contained(tmp_path):
    shown = page(tmp_path, row(sample(span("a"), shown_images=[shown_image()])))
    assert not re.findall(r"https?:|@import|url\(|src=\"(?!data:)", (tmp_path / "new" / "page.html").read_text())
    assert not shown.all(name="link")
    assert not shown.all(name="script")
    policy = shown.all(name="meta")[-1].attributes
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert "default-src 'none'" in policy["content"]
    assert "prefers-color-scheme: dark" in shown.all(name="style")[0].text


def test_a_page_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        write_page([Batch(0, [], 3)], "title", {}, tmp_path / "page.html")
