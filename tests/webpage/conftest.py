"""A page with the fake chat, served on this machine, and a browser to look at it."""

from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.helpers.browser import browser, needed  # noqa: F401 (fixture)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Files of one colour each, and some that are no pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for colour in ("red", "lime", "blue"):
        Image.new("RGB", (40, 30), colour).save(folder / f"{colour}.png")
    (folder / "broken.png").write_bytes((folder / "red.png").read_bytes()[:40])
    (folder / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture(scope="session")
def site(pictures):
    """A page with the fake chat: `address`, `folder`, `chat`."""
    needed("gradio")
    from mmgpt.webpage.launch import private_folder, serving
    from mmgpt.webpage.page import Page
    from mmgpt.webpage.view import Example
    from tests.helpers.fake_chat import FakeChat

    examples = [Example("an example", (pictures["red.png"],)), Example("a slow example")]
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        page = Page(FakeChat(), "A <b>title</b>", examples)
        address = stack.enter_context(serving(page, folder))
        yield SimpleNamespace(address=address, folder=folder, chat=page.chat)


@pytest.fixture
def visit(browser, site):  # noqa: F811
    """Opens the page as a new visitor; at the end nothing was asked of another machine, and nothing complained."""
    contexts, complaints = [], []

    def opened(**context):
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.set_default_timeout(8000)
        page.on("request", lambda request: complaints.append(request.url) if not own(request.url, site) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(site.address)
        page.locator("#box textarea").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def own(url, site):
    """Whether a request stays on this server."""
    return url.startswith((site.address, "data:", "blob:"))
