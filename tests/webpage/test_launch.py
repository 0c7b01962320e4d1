"""The page's server: its folder of uploads, and that it reads no other files."""

import json
import os
import socket
import stat

import httpx
import pytest

from tests.helpers.browser import require

require("gradio")

from mmgpt.webpage.launch import FOLDER, private_folder  # noqa: E402


def test_the_folder_is_private_and_temporary(monkeypatch):
    monkeypatch.setenv(FOLDER, "before")
    with private_folder() as folder:
        assert os.environ[FOLDER] == str(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "a").mkdir()
        (folder / "a" / "b").touch()
    assert not folder.exists()
    assert os.environ[FOLDER] == "before"
    monkeypatch.delenv(FOLDER)
    with private_folder():
        pass
    assert FOLDER not in os.environ


def test_requests_are_filtered(site):
    assert "default-src 'self'" in httpx.get(site.address).headers["content-security-policy"]
    assert httpx.get(f"{site.address}gradio_api/info").status_code == 404
    body = {"data": [{"path": "http://127.0.0.1:1/x.png"}]}
    assert httpx.post(f"{site.address}gradio_api/queue/join", json=body).status_code == 403


def test_bytes_are_counted_as_they_arrive(site):
    """The page trusted a length that a body in chunks does not keep."""
    host, port = httpx.URL(site.address).host, httpx.URL(site.address).port
    head = "POST /gradio_api/queue/join HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    head += "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(head.encode())
        try:
            for _ in range(8):
                connection.sendall(b"%x\r\n%s\r\n" % (2**20, b"x" * 2**20))
        except OSError:
            pass  # The server has refused the request already.
        assert connection.recv(1000)[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 400")


def test_an_interrupted_upload_leaves_nothing(site):
    before = sorted(site.folder.rglob("*"))
    host, port = httpx.URL(site.address).host, httpx.URL(site.address).port
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + "x" * 300_000
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n{part}".encode())
    httpx.get(site.address)
    assert sorted(site.folder.rglob("*")) == before


def test_uploads_are_in_the_folder_and_other_files_are_not_read(site):
    sent = httpx.post(f"{site.address}gradio_api/upload", files={"files": ("../../x.png", b"data")})
    assert sent.json()[0].startswith(f"{site.folder}/")
    assert sent.json()[0].endswith("x.png")
    assert httpx.get(f"{site.address}gradio_api/file={sent.json()[0]}").content == b"data"
    outside = f"{site.address}gradio_api/file={site.folder}/../../etc/passwd"
    assert httpx.get(httpx.URL(outside.replace("..", "%2e%2e"))).status_code in (403, 404)
    active = httpx.post(f"{site.address}gradio_api/upload", files={"files": ("x.html", b"<script>")}).json()[0]
    answer = httpx.get(f"{site.address}gradio_api/file={active}")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "html" not in answer.headers["content-type"]


@pytest.mark.parametrize("path", ["file/etc/hostname", "/etc/hostname", "../x.png"])
def test_a_request_cannot_name_another_file(site, path):
    """An image that was not uploaded is refused before the chat gets the question."""
    before = len(site.chat.submitted_questions)
    message = {"text": "what?", "files": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    assert send_question(site, message)["success"] is False
    assert len(site.chat.submitted_questions) == before


def send_question(site, message):
    """The last event of a question that is sent without the page."""
    config = httpx.get(f"{site.address}config").json()
    submit = next(event for event in config["dependencies"] if [target[1] for target in event["targets"]] == ["submit"])
    values = {component["id"]: component["props"].get("value") for component in config["components"]}
    data = [None, message, *(values[name] for name in submit["inputs"][2:])]
    body = dict(data=data, fn_index=submit["id"], session_hash="abc", event_data=None, trigger_id=None)
    httpx.post(f"{site.address}gradio_api/queue/join", json=body).raise_for_status()
    with httpx.stream("GET", f"{site.address}gradio_api/queue/data?session_hash=abc", timeout=10) as events:
        for line in events.iter_lines():
            event = json.loads(line.removeprefix("data: ")) if line else {}
            if event.get("msg") == "process_completed":
                return event


def test_a_question_sent_without_the_page_is_answered(site):
    assert send_question(site, {"text": "hello", "files": []})["success"] is True
    assert site.chat.submitted_questions[-1][0].turns[-1]["question"][-1]["text"] == "hello"
