"""The terminal chat: commands, streaming, and mistakes that cost one line."""

import importlib.util
import io
from pathlib import Path

import pytest
from PIL import Image

from mmgpt.apis import Conversation
from tests.helpers.scripts import run_script

DEMO = Path(__file__).parents[2] / "demo/chat.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo_chat", DEMO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Parrot:
    """Repeats the question word by word, and counts its images; says the adapter, if there is one."""

    adapters = ()

    def start(self):
        return Conversation()

    def stream(self, conversation, text, images=(), adapter=None):
        if text == "fail":
            raise ValueError("the question is too hard")
        if text == "silence":
            return
        conversation.turns.append(dict(question=text))
        for word in (*text.split(), f"{len(images)} images", *filter(None, [adapter])):
            if word == "interrupt":
                raise KeyboardInterrupt
            yield word + " "


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "my image.png")
    return tmp_path / "my image.png"


def run(demo, *lines, images=()):
    session = demo.Session(Parrot(), list(images))
    for line in lines:
        (session.run if line.startswith("/") else session.answer)(line)
    return session


def test_an_answer_is_printed_as_it_comes(demo, capsys):
    session = run(demo, "hello there")
    assert capsys.readouterr().out == "hello there 0 images \n"
    assert len(session.conversation.turns) == 1


def test_images_go_with_the_next_question_only(demo, image, capsys):
    run(demo, "what?", "/image " + str(image), "what?", "what?", images=[str(image)])
    answers = [line for line in capsys.readouterr().out.splitlines() if line.startswith("what?")]
    assert answers == ["what? 1 images ", "what? 1 images ", "what? 0 images "]


@pytest.mark.parametrize("line", ["/image nowhere.png", "/image", "/image /", "fail"])
def test_a_mistake_is_one_line_and_the_chat_goes_on(demo, capsys, line):
    session = run(demo, line, "hello")
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2
    assert out[0].startswith("error: ")
    assert out[1] == "hello 0 images "
    assert session.images == []


@pytest.mark.parametrize("line, shown", [("fail", "too hard"), ("silence", "(no answer)")])
def test_an_image_waits_until_a_question_is_answered(demo, image, capsys, line, shown):
    run(demo, line, "again", images=[str(image)])
    out = capsys.readouterr().out
    assert shown in out
    assert out.endswith("again 1 images \n")


def test_commands(demo, image, capsys):
    session = run(demo, "hello", "/image " + str(image), "/reset", "/help", "/nothing")
    out = capsys.readouterr().out
    assert session.conversation == Conversation()
    assert session.images == []
    assert all(command in out for command in ("/image FILE", "/reset", "/quit", "/help"))
    assert "there is no command /nothing" in out
    assert "a new conversation" in out


def test_adapters_are_chosen_by_a_command(demo, monkeypatch, capsys):
    monkeypatch.setattr(Parrot, "adapters", ("one", "two"))
    run(demo, "hello", "/adapter two", "hello", "/adapter three", "/adapter", "hello")
    lines = ["hello 0 images one ", "adapter: two", "hello 0 images two "]
    lines += ["unknown adapter three; adapters: one, two", "adapter: none", "hello 0 images "]
    assert capsys.readouterr().out.splitlines() == lines


def test_ctrl_c_ends_the_answer_not_the_chat(demo, image, capsys):
    session = run(demo, "one interrupt two", images=[str(image)])
    session.answer("hello")
    # The image belongs to the interrupted turn; it is not sent twice.
    assert capsys.readouterr().out.endswith("one  …\nhello 0 images \n")


def test_a_real_process_with_piped_input(chat_config, chat_checkpoint, image):  # noqa: F811
    arguments = [chat_config, chat_checkpoint, "--image", "gone.png", str(image), "--max-new-tokens", "3"]
    done = chat_process(arguments, f"what colour?\n\n/image nowhere.png\n/image {image}\nwhat shape?\n/quit\nnever\n")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert sum(line.startswith("error: ") for line in lines) == 2
    assert sum("goes with the next question" in line for line in lines) == 2
    assert len(lines) >= 7
    # The answers of random weights can hold any character.
    assert not any(line.startswith("> ") for line in lines)


@pytest.mark.parametrize(("terminal", "shown"), [(True, "> > > "), (False, "")])
def test_the_prompt_appears_at_a_terminal_only(demo, monkeypatch, capsys, terminal, shown):
    piped = io.StringIO(" what colour? \n/quit\n")
    monkeypatch.setattr(piped, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stdin", piped)
    assert list(demo.lines("> ")) == ["what colour?", "/quit"]
    assert capsys.readouterr().out == shown


def test_a_missing_config_is_one_line(tmp_path):
    done = chat_process([str(tmp_path / "nothing.py")], "")
    assert done.returncode == 1
    assert "nothing.py" in done.stderr
    assert "Traceback" not in done.stderr


def chat_process(arguments, text):
    return run_script(DEMO, *arguments, input=text)
