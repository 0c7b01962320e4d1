"""What the page's server lets through."""

import pytest

from tests.browser import needed

needed("gradio")

from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from mmgpt.webpage.gate import BODY, Gate  # noqa: E402


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
