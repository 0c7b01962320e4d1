"""The browser of tests that look at a page."""

import importlib
import os
import shutil

import pytest

# .ci/run sets it: there a missing browser is a failure.
REQUIRED = "MMGPT_REQUIRE_BROWSER" in os.environ
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def needed(module):
    """A module that the page or these tests need beyond the package's own: imported, or a reason to skip them."""
    if REQUIRED:
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"needs {module}: pip install -r requirements/tests.txt")


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium. Not for the whole session: while it is there no test can run an event loop of its own."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        (pytest.fail if REQUIRED else pytest.skip)("no Chromium on PATH: install the system's package")
    with needed("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
