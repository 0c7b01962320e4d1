"""Browser for tests of web pages."""

import importlib
import os
import shutil

import pytest

# .ci/run sets this variable, so that a missing browser is a failure there.
REQUIRED = "MMGPT_REQUIRE_BROWSER" in os.environ
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def require(module):
    """A module from an optional requirements file; without it, the tests are skipped, or fail if REQUIRED."""
    if REQUIRED:
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"needs {module}: pip install -r requirements/tests.txt")


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium. Its scope is not the session, since no test can run an event loop while it is open."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        (pytest.fail if REQUIRED else pytest.skip)("no Chromium on PATH: install the system's package")
    with require("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
