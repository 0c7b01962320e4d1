"""What the page shows: no text acts, pictures stand in order; what is saved can be used again."""

import base64
import json
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from mmgpt.inference.answer import Answer
from mmgpt.webpage import view
from mmgpt.webpage.session import Exchange

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


def picture(colour, size=(20, 10)):
    return Image.new("RGB", size, colour)


@pytest.fixture
def exchanges():
    return [Exchange(EVIL, (picture("red"), picture("blue")), EVIL), Exchange("second\n  line", (), "two")]


@pytest.mark.parametrize(
    "show",
    [
        view.talk,
        lambda exchanges: view.now(exchanges[:1], EVIL),
        lambda exchanges: view.notice(EVIL, EVIL),
        lambda exchanges: view.saved_page(exchanges, EVIL),
        lambda exchanges: view.head(EVIL),
        lambda exchanges: view.talk((), examples=[view.Example(EVIL)]),
    ],
)
def test_text_stays_text(show, exchanges):
    page = Reader(show(exchanges))
    assert EVIL in page.text and "script" not in page.names()
    assert all(attributes["src"].startswith("data:image/") for tag, attributes in page.tags if tag == "img")


def test_pictures_stand_in_order_before_their_question(exchanges):
    page = Reader(view.talk(exchanges))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [attributes["alt"] for attributes in pictures] == ["Picture 1 of question 1", "Picture 2 of question 1"]
    assert [opened(attributes["src"]).getpixel((0, 0)) for attributes in pictures] == [(255, 0, 0), (0, 0, 255)]


def test_buttons_name_their_question_and_only_the_last_can_be_taken_back(exchanges):
    buttons = [attributes for tag, attributes in Reader(view.talk(exchanges)).tags if tag == "button"]
    assert [(button["data-do"], button.get("data-number")) for button in buttons] == [
        *(("edit", "0"), ("copy", None), ("retry", "0")),
        *(("edit", "1"), ("copy", None), ("retry", "1"), ("undo", "1")),
    ]
    assert all(button["aria-label"][-1] in "12" for button in buttons)


def test_what_an_edit_replaces_is_marked(exchanges):
    turns = [attributes["class"] for tag, attributes in Reader(view.talk(exchanges, edited=1)).tags if tag == "li"]
    assert turns == ["turn", "turn replaced"]


def test_nothing_runs_and_nothing_to_say_is_nothing():
    assert view.now(None) == view.notice("") == view.talk(()).strip() == ""


def test_a_message_is_a_sentence():
    assert Reader(view.notice("4 wait")).text.strip() == "4 wait."
    assert Reader(view.notice("no room.")).text.strip() == "No room."


def test_a_large_picture_is_shown_smaller_and_a_small_one_exactly():
    assert opened(view.uri(picture("red", (2000, 1000)))).size == (512, 256)
    assert opened(view.uri(picture("red", (2000, 1000)), None)).size == (2000, 1000)
    exact = opened(view.uri(picture((1, 2, 3))))
    assert exact.format == "PNG" and exact.getpixel((5, 5)) == (1, 2, 3)


def test_saved_data_are_messages_of_the_servers_interface(exchanges):
    messages = json.loads(view.saved_data(exchanges))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert [part["type"] for part in messages[0]["content"]] == ["image_url", "image_url", "text"]
    assert opened(messages[0]["content"][1]["image_url"]["url"]).getpixel((0, 0)) == (0, 0, 255)
    assert messages[0]["content"][2]["text"] == messages[1]["content"] == EVIL


def test_figures():
    answer = Answer("")
    answer.completion_tokens, answer.seconds_to_first, answer.seconds = 11, 0.5, 2.5
    answer.prompt_tokens, answer.cached_tokens, answer.finish_reason = 40, 30, "length"
    assert view.figures(answer) == (
        "11 tokens · 5.0 tokens/s · first after 0.50 s · prompt 40 tokens, 30 of them kept from before"
        " · cut: the longest answer was reached"
    )
    answer.completion_tokens, answer.finish_reason = 1, "stop"
    assert "tokens/s" not in view.figures(answer) and view.figures(answer).endswith("before")


def test_examples_name_their_pictures_beside_them(tmp_path):
    (tmp_path / "examples.json").write_text('[{"text": "a", "files": ["b.png"]}]')
    assert view.read_examples(tmp_path / "examples.json") == [view.Example("a", (str(tmp_path / "b.png"),))]


def opened(uri):
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))
