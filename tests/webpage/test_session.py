"""A visitor's session: ask, stop, retry, edit, undo, and limits."""

import pytest
from PIL import Image

from mmgpt.datasets.untrusted_images import ImageLimits
from mmgpt.inference.answer import Busy
from mmgpt.webpage.generation_settings import GenerationSettings
from mmgpt.webpage.session import Limits, Session, Turn, as_conversation
from tests.helpers.fake_chat import FakeChat

SETTINGS = GenerationSettings()


@pytest.fixture
def session():
    return Session(FakeChat(), Limits(turns=3, images=2, all_images=3, characters=40, side=32))


@pytest.fixture
def files(tmp_path):
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (64, 16), colour).save(tmp_path / f"{colour}.png")
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def ask(session, text, *files):
    return list(session.ask(text, files, SETTINGS))


def texts_of(session):
    return [(turn.question, turn.answer) for turn in session.turns]


def test_the_answer_grows_and_becomes_a_turn(session):
    assert ask(session, "one two") == ["", "one", "one two", "one two 0", "one two 0 images"]
    assert texts_of(session) == [("one two", "one two 0 images")]
    assert session.pending is None


def test_a_question_is_submitted_with_all_turns_before_it_and_images_in_order(session, files):
    ask(session, "a", files["red"], files["green"])
    ask(session, "b", files["blue"])
    conversation, _, _ = session.chat.submitted_questions[-1]
    assert [image.getpixel((0, 0)) for image in conversation.images] == [(255, 0, 0), (0, 128, 0), (0, 0, 255)]
    assert [turn.get("answer") for turn in conversation.turns] == ["a 2 images", None]
    assert [part["type"] for part in conversation.turns[0]["question"]] == ["image", "image", "text"]


def test_large_images_are_made_smaller(session, files):
    ask(session, "a", files["red"])
    assert session.turns[0].images[0].size == (32, 8)


def test_settings_reach_the_chat(session):
    list(session.ask("a", (), GenerationSettings(dict(max_new_tokens=3), 5)))
    assert session.chat.submitted_questions[-1][1:] == (dict(max_new_tokens=3), 5)


def test_stop_stops_the_model_and_keeps_the_text_so_far(session):
    texts = session.ask("slow", (), SETTINGS)
    assert [next(texts), next(texts)] == ["", "slow"]
    session.stop()
    *_, last = texts
    assert last.startswith("slow")
    assert len(last) < 100
    assert texts_of(session) == [("slow", last)]
    assert (session.chat.running, session.chat.stopped) == (0, 1)


def test_a_visitor_who_leaves_stops_the_model(session):
    texts = session.ask("slow", (), SETTINGS)
    next(texts)
    texts.close()
    session.answer.wait()
    assert session.answer.finish_reason == "cancelled"
    assert texts_of(session) == []
    assert ask(session, "a")[-1] == "a 0 images"


def test_retry_drops_the_turns_after_it(session, files):
    ask(session, "a", files["red"])
    ask(session, "b")
    assert list(session.retry(0, SETTINGS))[-1] == "a 1 images"
    assert texts_of(session) == [("a", "a 1 images")]


def test_an_edited_question_replaces_all_from_there_once_it_is_answered(session, files):
    ask(session, "a", files["red"])
    ask(session, "b")
    assert session.edit(0).images[0].getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(RuntimeError):
        ask(session, "fail")
    assert len(session.turns) == 2
    assert session.edited == 0
    ask(session, "c")
    assert texts_of(session) == [("c", "c 0 images")]
    assert session.edited is None


def test_an_edit_can_be_cancelled(session):
    ask(session, "a")
    session.edit(0)
    session.cancel_edit()
    ask(session, "b")
    assert [question for question, _ in texts_of(session)] == ["a", "b"]


def test_undo_removes_the_last_turn(session):
    ask(session, "a")
    ask(session, "b")
    session.edit(0)
    assert session.undo().question == "b"
    assert [question for question, _ in texts_of(session)] == ["a"]
    assert session.edited is None


def test_clear_also_stops_a_running_answer(session):
    ask(session, "a")
    texts = session.ask("slow", (), SETTINGS)
    next(texts)
    session.clear()
    list(texts)
    assert texts_of(session) == []
    assert session.chat.stopped == 1


def test_one_answer_at_a_time(session):
    ask(session, "a")
    texts = session.ask("slow", (), SETTINGS)
    next(texts)
    for other in (
        lambda: ask(session, "b"),
        lambda: list(session.retry(0, SETTINGS)),
        lambda: session.edit(0),
        session.undo,
    ):
        with pytest.raises(ValueError, match="stop it first"):
            other()
    texts.close()


@pytest.mark.parametrize("number", [-1, 1])
def test_an_index_without_a_turn_is_an_error(session, number):
    ask(session, "a")
    for act in (lambda: session.edit(number), lambda: list(session.retry(number, SETTINGS))):
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
    with pytest.raises(ValueError, match="3 images: at most 2"):
        ask(session, "a", red, red, red)
    ask(session, "a", red, red)
    with pytest.raises(ValueError, match="4 images: a conversation holds at most 3"):
        ask(session, "a", red, red)
    ask(session, "b")
    ask(session, "c")
    with pytest.raises(ValueError, match="has 3 questions"):
        ask(session, "d")
    session.edit(2)
    ask(session, "d")  # It replaces another question.


def test_invalid_images_are_refused(session, files, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"^Image 2: the data are not an image") as error:
        ask(session, "a", files["red"], tmp_path / "text.png")
    assert str(tmp_path) not in str(error.value)
    with pytest.raises(ValueError, match=r"^Image 1 is gone") as error:
        ask(session, "a", tmp_path / "gone.png")
    assert str(tmp_path) not in str(error.value)
    session.limits = Limits(image=ImageLimits(pixels=100))
    with pytest.raises(ValueError, match="too many pixels"):
        ask(session, "a", files["red"])
    assert session.chat.submitted_questions == []


def test_a_failed_turn_leaves_the_conversation_as_it_was(session):
    ask(session, "a")
    with pytest.raises(Busy):
        ask(session, "busy")
    with pytest.raises(RuntimeError, match="broken"):
        ask(session, "fail")
    assert [question for question, _ in texts_of(session)] == ["a"]
    assert session.pending is None
    assert ask(session, "b")[-1] == "b 0 images"


def test_an_empty_answer_is_an_error(session, monkeypatch):
    monkeypatch.setattr(session.chat, "_answer", lambda answer, text, images: answer.end("stop"))
    with pytest.raises(ValueError, match="The answer is empty"):
        ask(session, "a")
    monkeypatch.setattr(
        session.chat, "_answer", lambda answer, text, images: (answer.cancel(), answer.end("cancelled"))
    )
    with pytest.raises(ValueError, match="before the first word"):
        ask(session, "a")
    assert texts_of(session) == []


def test_turns_as_a_conversation():
    red = Image.new("RGB", (8, 8), "red")
    conversation = as_conversation([Turn("a", (red,), "b"), Turn("c")])
    assert conversation.images == [red]
    assert [turn.get("answer") for turn in conversation.turns] == ["b", None]


def test_limits_accept_the_names_of_the_last_release():
    with pytest.warns(FutureWarning, match=r"Limits\(pictures=...\) is called images=... now"):
        assert Limits(pictures=3) == Limits(images=3)
