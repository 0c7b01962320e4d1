"""HTML of the page: escaped text, images in order; and saved conversations."""

import base64
import json
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from mmgpt.inference.answer import Answer
from mmgpt.webpage import rendering
from mmgpt.webpage.session import Turn

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> \"' & &lt; ${alert(1)} {{value}} **b**"


class Reader(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def names(self):
        return {tag for tag, _ in self.tags}


def image(colour, size=(20, 10)):
    return Image.new("RGB", size, colour)


@pytest.fixture
def turns():
    return [Turn(EVIL, (image("red"), image("blue")), EVIL), Turn("second\n  line", (), "two")]


@pytest.mark.parametrize(
    "show",
    [
        rendering.turns_html,
        lambda turns: rendering.pending_html(turns[:1], EVIL),
        lambda turns: rendering.notice_html(EVIL, EVIL),
        lambda turns: rendering.saved_page(turns, EVIL),
        lambda turns: rendering.title_html(EVIL),
        lambda turns: rendering.turns_html((), examples=[rendering.Example(EVIL)]),
    ],
)
def test_text_stays_text(show, turns):
    page = Reader(show(turns))
    assert EVIL in page.text
    assert "script" not in page.names()
    assert all(attributes["src"].startswith("data:image/") for tag, attributes in page.tags if tag == "img")


def test_images_stand_in_order_before_their_question(turns):
    page = Reader(rendering.turns_html(turns))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [attributes["alt"] for attributes in images] == ["Image 1 of question 1", "Image 2 of question 1"]
    assert [open_uri(attributes["src"]).getpixel((0, 0)) for attributes in images] == [(255, 0, 0), (0, 0, 255)]


def test_buttons_name_their_question_and_only_the_last_can_be_undone(turns):
    buttons = [attributes for tag, attributes in Reader(rendering.turns_html(turns)).tags if tag == "button"]
    assert [(button["data-action"], button.get("data-index")) for button in buttons] == [
        *(("edit", "0"), ("copy", None), ("retry", "0")),
        *(("edit", "1"), ("copy", None), ("retry", "1"), ("undo", "1")),
    ]
    assert all(button["aria-label"][-1] in "12" for button in buttons)


def test_turns_that_an_edit_replaces_are_marked(turns):
    classes = [
        attributes["class"] for tag, attributes in Reader(rendering.turns_html(turns, edited=1)).tags if tag == "li"
    ]
    assert classes == ["turn", "turn replaced"]


def test_nothing_is_shown_without_turns_message_or_running_answer():
    assert rendering.pending_html(None) == rendering.notice_html("") == rendering.turns_html(()).strip() == ""


def test_a_message_is_a_sentence():
    assert Reader(rendering.notice_html("4 wait")).text.strip() == "4 wait."
    assert Reader(rendering.notice_html("no room.")).text.strip() == "No room."


def test_a_large_image_is_shown_smaller_and_a_small_one_exactly():
    assert open_uri(rendering.data_uri(image("red", (2000, 1000)))).size == (512, 256)
    assert open_uri(rendering.data_uri(image("red", (2000, 1000)), None)).size == (2000, 1000)
    exact = open_uri(rendering.data_uri(image((1, 2, 3))))
    assert exact.format == "PNG"
    assert exact.getpixel((5, 5)) == (1, 2, 3)


def test_saved_json_has_the_messages_of_the_servers_interface(turns):
    messages = json.loads(rendering.saved_json(turns))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert [part["type"] for part in messages[0]["content"]] == ["image_url", "image_url", "text"]
    assert open_uri(messages[0]["content"][1]["image_url"]["url"]).getpixel((0, 0)) == (0, 0, 255)
    assert messages[0]["content"][2]["text"] == messages[1]["content"] == EVIL


def test_answer_stats():
    answer = Answer("")
    answer.completion_tokens, answer.seconds_to_first, answer.seconds = 11, 0.5, 2.5
    answer.prompt_tokens, answer.cached_tokens, answer.finish_reason = 40, 30, "length"
    assert rendering.answer_stats(answer) == (
        "11 tokens · 5.0 tokens/s · first after 0.50 s · prompt 40 tokens, 30 of them cached"
        " · cut: the longest answer was reached"
    )
    answer.completion_tokens, answer.finish_reason = 1, "stop"
    assert "tokens/s" not in rendering.answer_stats(answer)
    assert rendering.answer_stats(answer).endswith("cached")


def test_images_of_examples_lie_beside_their_file(tmp_path):
    (tmp_path / "examples.json").write_text('[{"text": "a", "files": ["b.png"]}]')
    assert rendering.read_examples(tmp_path / "examples.json") == [rendering.Example("a", (str(tmp_path / "b.png"),))]


def open_uri(uri):
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))
