"""One visitor's conversation: asking, stopping, retrying, editing, taking back, and its limits."""

import pytest
from PIL import Image

from mmgpt.apis.pictures import PictureLimits
from mmgpt.inference.answer import Busy
from mmgpt.webpage.session import Exchange, Limits, Session, as_conversation
from mmgpt.webpage.settings import Wanted
from tests.helpers.fake_chat import FakeChat

WANTED = Wanted()


@pytest.fixture
def session():
    return Session(FakeChat(), Limits(turns=3, pictures=2, all_pictures=3, characters=40, side=32))


@pytest.fixture
def files(tmp_path):
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (64, 16), colour).save(tmp_path / f"{colour}.png")
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def ask(session, text, *files):
    return list(session.ask(text, files, WANTED))


def said(session):
    return [(exchange.text, exchange.answer) for exchange in session.exchanges]


def test_the_answer_grows_and_is_kept(session):
    assert ask(session, "one two") == ["", "one", "one two", "one two 0", "one two 0 pictures"]
    assert said(session) == [("one two", "one two 0 pictures")] and session.asked is None


def test_a_question_is_asked_with_all_before_it_pictures_in_order(session, files):
    ask(session, "a", files["red"], files["green"])
    ask(session, "b", files["blue"])
    conversation, _, _ = session.chat.asked[-1]
    assert [image.getpixel((0, 0)) for image in conversation.images] == [(255, 0, 0), (0, 128, 0), (0, 0, 255)]
    assert [turn.get("answer") for turn in conversation.turns] == ["a 2 pictures", None]
    assert [part["type"] for part in conversation.turns[0]["question"]] == ["image", "image", "text"]


def test_large_pictures_are_made_smaller_once(session, files):
    ask(session, "a", files["red"])
    assert session.exchanges[0].pictures[0].size == (32, 8)


def test_settings_reach_the_chat(session):
    list(session.ask("a", (), Wanted(dict(max_new_tokens=3), 5)))
    assert session.chat.asked[-1][1:] == (dict(max_new_tokens=3), 5)


def test_stop_stops_the_model_and_keeps_what_was_said(session):
    texts = session.ask("slow", (), WANTED)
    assert [next(texts), next(texts)] == ["", "slow"]
    session.stop()
    *_, last = texts
    assert last.startswith("slow") and len(last) < 100
    assert said(session) == [("slow", last)] and (session.chat.running, session.chat.stopped) == (0, 1)


def test_who_leaves_stops_the_model(session):
    texts = session.ask("slow", (), WANTED)
    next(texts)
    texts.close()
    session.answer.wait()
    assert session.answer.finish_reason == "cancelled" and said(session) == []
    assert ask(session, "a")[-1] == "a 0 pictures"


def test_retry_forgets_what_came_after(session, files):
    ask(session, "a", files["red"])
    ask(session, "b")
    assert list(session.retry(0, WANTED))[-1] == "a 1 pictures"
    assert said(session) == [("a", "a 1 pictures")]


def test_an_edited_question_replaces_all_from_there_once_it_is_answered(session, files):
    ask(session, "a", files["red"])
    ask(session, "b")
    assert session.edit(0).pictures[0].getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(RuntimeError):
        ask(session, "fail")
    assert len(session.exchanges) == 2 and session.edited == 0
    ask(session, "c")
    assert said(session) == [("c", "c 0 pictures")] and session.edited is None


def test_an_edit_can_be_given_up(session):
    ask(session, "a")
    session.edit(0)
    session.keep()
    ask(session, "b")
    assert [text for text, _ in said(session)] == ["a", "b"]


def test_undo_takes_the_last_question_back(session):
    ask(session, "a")
    ask(session, "b")
    session.edit(0)
    assert session.undo().text == "b"
    assert [text for text, _ in said(session)] == ["a"] and session.edited is None


def test_clear_forgets_also_what_is_being_written(session):
    ask(session, "a")
    texts = session.ask("slow", (), WANTED)
    next(texts)
    session.clear()
    list(texts)
    assert said(session) == [] and session.chat.stopped == 1


def test_one_answer_at_a_time(session):
    ask(session, "a")
    texts = session.ask("slow", (), WANTED)
    next(texts)
    for other in (
        lambda: ask(session, "b"),
        lambda: list(session.retry(0, WANTED)),
        lambda: session.edit(0),
        session.undo,
    ):
        with pytest.raises(ValueError, match="stop it first"):
            other()
    texts.close()


@pytest.mark.parametrize("number", [-1, 1])
def test_there_must_be_such_a_question(session, number):
    ask(session, "a")
    for act in (lambda: session.edit(number), lambda: list(session.retry(number, WANTED))):
        with pytest.raises(ValueError, match="no such question"):
            act()
    session.clear()
    with pytest.raises(ValueError, match="no such question"):
        session.undo()


def test_limits(session, files):
    red = files["red"]
    with pytest.raises(ValueError, match="empty"):
        ask(session, " \n")
    with pytest.raises(ValueError, match="41 characters: at most 40"):
        ask(session, "x" * 41)
    with pytest.raises(ValueError, match="3 pictures: at most 2"):
        ask(session, "a", red, red, red)
    ask(session, "a", red, red)
    with pytest.raises(ValueError, match="4 pictures: a conversation holds at most 3"):
        ask(session, "a", red, red)
    ask(session, "b")
    ask(session, "c")
    with pytest.raises(ValueError, match="has 3 questions"):
        ask(session, "d")
    session.edit(2)
    ask(session, "d")  # in place of another it fits


def test_pictures_that_are_none(session, files, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"^Picture 2: the data are no picture") as error:
        ask(session, "a", files["red"], tmp_path / "text.png")
    assert str(tmp_path) not in str(error.value)
    with pytest.raises(ValueError, match=r"^Picture 1 is gone") as error:
        ask(session, "a", tmp_path / "gone.png")
    assert str(tmp_path) not in str(error.value)
    session.limits = Limits(picture=PictureLimits(pixels=100))
    with pytest.raises(ValueError, match="too many pixels"):
        ask(session, "a", files["red"])
    assert session.chat.asked == []


def test_what_fails_leaves_the_conversation_as_it_was(session):
    ask(session, "a")
    with pytest.raises(Busy):
        ask(session, "busy")
    with pytest.raises(RuntimeError, match="broken"):
        ask(session, "fail")
    assert [text for text, _ in said(session)] == ["a"] and session.asked is None
    assert ask(session, "b")[-1] == "b 0 pictures"


def test_an_answer_without_a_word_is_none(session, monkeypatch):
    monkeypatch.setattr(session.chat, "_say", lambda answer, text, images: answer.end("stop"))
    with pytest.raises(ValueError, match="said nothing"):
        ask(session, "a")
    monkeypatch.setattr(session.chat, "_say", lambda answer, text, images: (answer.cancel(), answer.end("cancelled")))
    with pytest.raises(ValueError, match="before the first word"):
        ask(session, "a")
    assert said(session) == []


def test_exchanges_as_a_conversation():
    red = Image.new("RGB", (8, 8), "red")
    conversation = as_conversation([Exchange("a", (red,), "b"), Exchange("c")])
    assert conversation.images == [red] and [turn.get("answer") for turn in conversation.turns] == ["b", None]
