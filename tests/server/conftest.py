"""Servers on a free port of this machine, around a fake chat."""

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


class RecordingChat(FakeChat):
    """The fake chat with the rest of a server's needs; `submitted` holds the arguments of the last question."""

    def __init__(self):
        super().__init__()
        self.submitted, self.closed = {}, False
        self.stopping = threading.Event()

    def submit(self, conversation, generation=None, **arguments):
        """Record the arguments, and answer."""
        self.submitted = dict(arguments, generation=generation, conversation=conversation)
        return super().submit(conversation, generation, **arguments)

    def stats(self):
        """Numbers under the names that `Chat.stats` has."""
        zeros = ("waiting", "requests", "failed", "prompt_tokens", "cached_tokens", "completion_tokens", "cache_bytes")
        return {**dict.fromkeys(zeros, 0), "running": self.running, "cancelled": self.stopped}

    def close(self):
        """Nothing to wait for."""
        self.closed = True


class Served:
    """A running server: its address, its chat, and its clients."""

    def __init__(self, server, chat):
        self.server, self.chat = server, chat
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def client(self, **arguments):
        """An official client that does not retry."""
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

    def metric(self, name):
        """The value of a metric in /metrics, with labels in its name; 0 if it is missing."""
        lines = self.get("/metrics").text.splitlines()
        return float(dict(line.rsplit(" ", 1) for line in lines if line[0] != "#").get(name, 0))


@contextmanager
def run_server(chat=None, **settings):
    """Context manager that runs a server."""
    chat = chat or RecordingChat()
    server = make_server(chat, Settings(**{"name": "tiny", "shutdown_limit": 0.2, **settings}), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield Served(server, chat)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_until(condition, seconds=20):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def served():
    """A server with usual settings."""
    with run_server() as served:
        yield served


def image_bytes(color="red", size=(20, 20), kind="PNG"):
    """The bytes of an image file."""
    file = BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()


def data_uri(data=None, kind="image/png"):
    """Data URI of some bytes, by default those of an image."""
    return f"data:{kind};base64,{base64.b64encode(data or image_bytes()).decode()}"


def image_content(url=None):
    """Image content of a message."""
    return {"type": "image_url", "image_url": {"url": url or data_uri()}}


def text_content(text):
    """Text content of a message."""
    return {"type": "text", "text": text}


def request(content="hello", **more):
    """The JSON of a chat request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **more}
