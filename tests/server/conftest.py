"""Servers on a free port of this machine, around a chat whose answers are known."""

import base64
import threading
import time
from contextlib import contextmanager
from io import BytesIO

import httpx
import openai
import pytest
from PIL import Image

from mmgpt.server.run import make_server
from mmgpt.server.settings import Settings
from tests.helpers.fake_chat import FakeChat


class KnownChat(FakeChat):
    """The fake chat with what a server needs besides; `told` holds what the last question was submitted with."""

    def __init__(self):
        super().__init__()
        self.told, self.closed = {}, False
        self.stopping = threading.Event()

    def submit(self, conversation, generation=None, **arguments):
        """Remember, and answer."""
        self.told = dict(arguments, generation=generation, conversation=conversation)
        return super().submit(conversation, generation, **arguments)

    def stats(self):
        """Numbers as the engine's."""
        zeros = ("waiting", "requests", "failed", "prompt_tokens", "cached_tokens", "completion_tokens", "cache_bytes")
        return {**dict.fromkeys(zeros, 0), "running": self.running, "cancelled": self.stopped}

    def close(self):
        """Nothing to wait for."""
        self.closed = True


class Served:
    """A running server: its address, its chat, and clients of it."""

    def __init__(self, server, chat):
        self.server, self.chat = server, chat
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def client(self, **arguments):
        """An official client that does not try again."""
        return openai.OpenAI(**{**dict(base_url=f"{self.url}/v1", api_key="none", max_retries=0), **arguments})

    def ask(self, content="hello there", **arguments):
        """An answer to one question through the official client."""
        messages = arguments.pop("messages", [{"role": "user", "content": content}])
        return self.client().chat.completions.create(model="tiny", messages=messages, **arguments)

    def post(self, body, **arguments):
        """The response to a body: bytes, or an object to be sent as JSON."""
        path = arguments.pop("path", "/v1/chat/completions")
        if not isinstance(body, (bytes, str)) and not hasattr(body, "__next__"):
            return httpx.post(self.url + path, json=body, timeout=60, **arguments)
        headers = {"Content-Type": "application/json"} | arguments.pop("headers", {})
        return httpx.post(self.url + path, content=body, timeout=60, headers=headers, **arguments)

    def get(self, path, **arguments):
        """The response to a GET."""
        return httpx.get(self.url + path, **arguments)

    def head(self, path, **arguments):
        """The response to a HEAD."""
        return httpx.head(self.url + path, **arguments)

    def metric(self, line):
        """The value of a line of /metrics, 0 where there is none."""
        lines = self.get("/metrics").text.splitlines()
        return float(dict(each.rsplit(" ", 1) for each in lines if each[0] != "#").get(line, 0))


@contextmanager
def run_server(chat=None, **settings):
    """A server within a `with` block."""
    chat = chat or KnownChat()
    server = make_server(chat, Settings(**{"name": "tiny", "shutdown_limit": 0.2, **settings}), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield Served(server, chat)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(true, seconds=20):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def served():
    """A server with usual settings."""
    with run_server() as served:
        yield served


def picture_bytes(color="red", size=(20, 20), kind="PNG"):
    """A picture as a file's bytes."""
    file = BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()


def data_uri(data=None, kind="image/png"):
    """Bytes, by default those of a picture, as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data or picture_bytes()).decode()}"


def image_part(url=None):
    """A part of a message."""
    return {"type": "image_url", "image_url": {"url": url or data_uri()}}


def text_part(text):
    """A part of a message."""
    return {"type": "text", "text": text}


def request(content="hello", **more):
    """The JSON of a chat request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **more}
