"""A page with the fake chat, served on this machine, and a browser to open it."""

from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.helpers.browser import browser, require  # noqa: F401 (fixture)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Image files of one colour each, and two files that are not valid images."""
    folder = tmp_path_factory.mktemp("images")
    for colour in ("red", "lime", "blue"):
        Image.new("RGB", (40, 30), colour).save(folder / f"{colour}.png")
    (folder / "broken.png").write_bytes((folder / "red.png").read_bytes()[:40])
    (folder / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture(scope="session")
def site(images):
    """A page with the fake chat: `address`, `folder`, `chat`."""
    require("gradio")
    from mmgpt.webpage.chat_page import ChatPage
    from mmgpt.webpage.launch import private_folder, serving
    from mmgpt.webpage.rendering import Example
    from tests.helpers.fake_chat import FakeChat

    examples = [Example("an example", (images["red.png"],)), Example("a slow example")]
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        page = ChatPage(FakeChat(), "A <b>title</b>", examples)
        address = stack.enter_context(serving(page, folder))
        yield SimpleNamespace(address=address, folder=folder, chat=page.chat)


@pytest.fixture
def visit(browser, site):  # noqa: F811
    """Function that opens the page as a new visitor; at the end there was no request to another host, and no error."""
    contexts, problems = [], []

    def open_page(**context):
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.set_default_timeout(8000)
        page.on("request", lambda request: problems.append(request.url) if not is_local(request.url, site) else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(site.address)
        page.locator("#box textarea").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def is_local(url, site):
    """Whether a URL leads to this server, or is in the page itself."""
    return url.startswith((site.address, "data:", "blob:"))
