"""The tiny experiment of the chat's tests, and stand-ins for the harnesses as their sources were read."""

import importlib
import sys
from types import ModuleType

import pytest
import torch
from PIL import Image

from mmgpt.apis import Chat

# A random model says bytes that are no characters, which a stream cannot take back: without them.
WORDS_ONLY = {"bad_words_ids": [[i] for i in range(3, 259)], "max_new_tokens": 6}
SEED = 3  # of every model that is built: what the checkpoint does not hold is random


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a module in place for one test: `stand_in('a.b', name=value)`; returns it."""

    def put(name: str, **content) -> ModuleType:
        for end in [i for i, letter in enumerate(name) if letter == "."] + [len(name)]:
            if name[:end] not in sys.modules:
                monkeypatch.setitem(sys.modules, name[:end], ModuleType(name[:end]))
        vars(sys.modules[name]).update(content)
        return sys.modules[name]

    return put


@pytest.fixture
def fresh_import():
    """Imports a module of ours, and forgets it after the test, since it is built on that test's stand-ins."""
    names = []

    def load(name: str) -> ModuleType:
        names.append(name)
        return importlib.import_module(name)

    yield load
    for name in names:
        del sys.modules[name]


@pytest.fixture
def submitted(monkeypatch):
    """The requests of each call of a chat's `answer_all`: `submitted(chat)` gives the list that they come to."""

    def record(chat: Chat) -> list[tuple]:
        calls, submit = [], chat.scheduler.submit

        def recorded(*requests, **options):
            calls.append(requests)
            submit(*requests, **options)

        monkeypatch.setattr(chat.scheduler, "submit", recorded)
        return calls

    return record


@pytest.fixture(scope="session")
def chat(chat_config, chat_checkpoint):  # noqa: F811
    torch.manual_seed(SEED)
    return Chat.from_config(chat_config, chat_checkpoint, "cpu", generation=WORDS_ONLY)


@pytest.fixture(scope="session")
def pictures():
    return [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
