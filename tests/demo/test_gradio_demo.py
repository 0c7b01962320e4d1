"""The page as it is started, with a real model, in a real browser."""

import importlib.util
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmgpt.apis import Chat
from mmgpt.cli.model_options import QUICKSTART
from mmgpt.webpage.rendering import read_examples
from tests.helpers.browser import browser, require  # noqa: F401 (fixture)

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo/gradio_demo.py"
EXAMPLES = read_examples(ROOT / "demo/examples/examples.json")


@pytest.fixture
def served(chat_config, chat_checkpoint, tmp_path):  # noqa: F811
    """The demo as a process: (process, address)."""
    require("gradio")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(DEMO), chat_config, chat_checkpoint]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
        line = next((line for line in process.stdout if line.startswith("The page is at ")), None)
        log.seek(0)
        assert line, log.read()
        yield process, line.split()[4]
    process.kill()
    process.wait()


def test_the_demo_answers_and_deletes_its_folder(served, browser, tmp_path):  # noqa: F811
    process, address = served
    Image.new("RGB", (48, 32), "red").save(tmp_path / "red.png")
    page = browser.new_page()
    page.goto(address)
    page.set_input_files("#box input[type=file]", str(tmp_path / "red.png"))
    page.locator("#box .thumbnail-image").wait_for()
    page.locator("#box textarea").fill("what colour?")
    page.locator("#box textarea").press("Enter")
    page.locator("#turns .answer p").wait_for()
    assert page.locator("#turns .answer p").text_content()
    assert page.title() == "mmgpt · tiny"
    page.close()
    (folder,) = tmp_path.glob("mmgpt-*")
    assert list(folder.rglob("red.png"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not folder.exists()


def test_a_missing_gradio_is_an_error_that_says_what_to_install(monkeypatch):
    spec = importlib.util.spec_from_file_location("gradio_demo", DEMO)
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in ("launch", "chat_page", "layout"):
        monkeypatch.delitem(sys.modules, f"mmgpt.webpage.{name}", raising=False)
    with pytest.raises(ValueError, match="the page needs gradio: pip install -r requirements/demo.txt"):
        demo.main(["config.py"])


def test_the_examples_are_small_images_with_questions():
    assert len(EXAMPLES) == 4
    for example in EXAMPLES:
        assert example.question
        assert [Image.open(file).size for file in example.files] == [(64, 64)]


@pytest.mark.skipif(not QUICKSTART[1].is_file(), reason="needs the quickstart's model: bash tools/quickstart.sh")
def test_the_quickstarts_model_answers_the_examples():
    chat = Chat.from_config(*QUICKSTART, "cpu")
    answers = [chat.ask(chat.start(), example.question, example.files) for example in EXAMPLES]
    shapes = "a small pink triangle at the middle left and a large green circle at the bottom centre"
    assert answers[0].endswith(shapes)
    assert answers[1:] == ["bottom right", "milk", "6"]
