"""What the page's server lets through, and where it keeps uploads."""

import json
import os
import stat

import httpx
import pytest

from tests.browser import needed

needed("gradio")

from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from mmgpt.webpage.launch import BODY, FOLDER, Gate, private_folder  # noqa: E402


@pytest.fixture
def client(tmp_path):
    app = PlainTextResponse("behind the gate")
    return TestClient(Gate(app, tmp_path, upload=2 * BODY, room=3 * BODY), follow_redirects=False)


@pytest.mark.parametrize("path", ["/", "/config", "/assets/a/b.js", "/theme.css", "/gradio_api/queue/data?session=1"])
def test_what_the_page_needs_passes_with_headers(client, path):
    response = client.get(path)
    assert response.text == "behind the gate"
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/vibe-code",
        "/gradio_api/run/ask",
        "/monitoring",
        "/nothing",
    ],
)
def test_nothing_else_does(client, path):
    assert client.get(path).status_code == 404


def test_files_of_the_folder_pass(client, tmp_path):
    assert client.get(f"/gradio_api/file={tmp_path}/a/b.png").status_code == 200
    assert client.get(f"/gradio_api/file={tmp_path}2/b.png").status_code == 404


def test_bodies_are_bounded(client, tmp_path):
    assert client.post("/gradio_api/queue/join", content=b"x" * BODY).status_code == 200
    assert client.post("/gradio_api/queue/join", content=b"x" * (BODY + 1)).status_code == 413
    assert client.post("/gradio_api/queue/join", content=iter([b"x"])).status_code == 411
    assert client.post("/gradio_api/upload", content=b"x" * 2 * BODY).status_code == 200
    assert client.post("/gradio_api/upload", content=b"x" * (2 * BODY + 1)).status_code == 413
    (tmp_path / "full").write_bytes(b"x" * 2 * BODY)
    assert client.post("/gradio_api/upload", content=b"x" * (BODY + 1)).status_code == 503


def test_websockets_do_not_pass(client):
    with pytest.raises(Exception), client.websocket_connect("/"):  # noqa: B017 (the client's own)
        pass


def test_the_folder_is_private_and_goes(monkeypatch):
    monkeypatch.setenv(FOLDER, "before")
    with private_folder() as folder:
        assert os.environ[FOLDER] == str(folder) and stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "a").mkdir()
        (folder / "a" / "b").touch()
    assert not folder.exists() and os.environ[FOLDER] == "before"
    monkeypatch.delenv(FOLDER)
    with private_folder():
        pass
    assert FOLDER not in os.environ


def test_uploads_lie_in_the_folder_and_are_read_from_nowhere_else(site):
    sent = httpx.post(f"{site.address}gradio_api/upload", files={"files": ("../../x.png", b"data")})
    assert sent.json()[0].startswith(f"{site.folder}/") and sent.json()[0].endswith("x.png")
    assert httpx.get(f"{site.address}gradio_api/file={sent.json()[0]}").content == b"data"
    outside = f"{site.address}gradio_api/file={site.folder}/../../etc/passwd"
    assert httpx.get(httpx.URL(outside.replace("..", "%2e%2e"))).status_code in (403, 404)
    active = httpx.post(f"{site.address}gradio_api/upload", files={"files": ("x.html", b"<script>")}).json()[0]
    answer = httpx.get(f"{site.address}gradio_api/file={active}")
    assert (
        answer.headers["content-disposition"].startswith("attachment") and "html" not in answer.headers["content-type"]
    )


@pytest.mark.parametrize(
    "body, status",
    [
        ('{"data": [{"path": "http://127.0.0.1:1/x.png"}]}', 403),
        ('{"data": [{"\\u0070ath": "\\u0068ttps:\\/\\/x", "path": "/a"}]}', 403),
        ('{"data": [{"path": "/a/b.png", "url": "http://127.0.0.1/a/b.png"}, "http://"]}', 200),
        ("[" * 100_000, 200),
    ],
)
def test_no_file_is_named_by_an_address(client, body, status):
    assert client.post("/gradio_api/queue/join", content=body).status_code == status


@pytest.mark.parametrize("path", ["file/etc/hostname", "/etc/hostname", "../x.png"])
def test_a_request_cannot_name_another_file(site, path):
    """A picture that was not uploaded is refused before the chat is asked."""
    before = len(site.chat.asked)
    message = {"text": "what?", "files": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    assert asked(site, message)["success"] is False
    assert len(site.chat.asked) == before


def asked(site, message):
    """The last event of a question that is sent without the page."""
    config = httpx.get(f"{site.address}config").json()
    submit = next(each for each in config["dependencies"] if [t[1] for t in each["targets"]] == ["submit"])
    values = {each["id"]: each["props"].get("value") for each in config["components"]}
    data = [None, message, *(values[name] for name in submit["inputs"][2:])]
    body = dict(data=data, fn_index=submit["id"], session_hash="abc", event_data=None, trigger_id=None)
    httpx.post(f"{site.address}gradio_api/queue/join", json=body).raise_for_status()
    with httpx.stream("GET", f"{site.address}gradio_api/queue/data?session_hash=abc", timeout=10) as events:
        for line in events.iter_lines():
            event = json.loads(line.removeprefix("data: ")) if line else {}
            if event.get("msg") == "process_completed":
                return event


def test_a_question_sent_without_the_page_is_answered(site):
    assert asked(site, {"text": "hello", "files": []})["success"] is True
    assert site.chat.asked[-1][0].turns[-1]["question"][-1]["text"] == "hello"
