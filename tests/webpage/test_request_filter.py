"""Request filter: the page's own requests get through, and no others."""

import asyncio

import pytest

from tests.helpers.browser import require

require("gradio")

from starlette.requests import Request  # noqa: E402
from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from mmgpt.webpage.request_filter import MAX_BODY, RequestFilter  # noqa: E402


@pytest.fixture
def client(tmp_path):
    app = PlainTextResponse("behind the filter")
    return TestClient(
        RequestFilter(app, tmp_path, max_upload=2 * MAX_BODY, max_uploads=3 * MAX_BODY), follow_redirects=False
    )


@pytest.mark.parametrize("path", ["/", "/config", "/assets/a/b.js", "/theme.css", "/gradio_api/queue/data?session=1"])
def test_requests_of_the_page_pass_with_headers(client, path):
    response = client.get(path)
    assert response.text == "behind the filter"
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
def test_other_requests_do_not_pass(client, path):
    assert client.get(path).status_code == 404


def test_files_of_the_folder_pass(client, tmp_path):
    assert client.get(f"/gradio_api/file={tmp_path}/a/b.png").status_code == 200
    assert client.get(f"/gradio_api/file={tmp_path}2/b.png").status_code == 404


def test_bodies_are_limited(client, tmp_path):
    assert client.post("/gradio_api/queue/join", content=b"x" * MAX_BODY).status_code == 200
    assert client.post("/gradio_api/queue/join", content=b"x" * (MAX_BODY + 1)).status_code == 413
    assert client.post("/gradio_api/queue/join", content=iter([b"x"])).status_code == 411
    assert client.post("/gradio_api/upload", content=b"x" * 2 * MAX_BODY).status_code == 200
    assert client.post("/gradio_api/upload", content=b"x" * (2 * MAX_BODY + 1)).status_code == 413
    (tmp_path / "full").write_bytes(b"x" * 2 * MAX_BODY)
    assert client.post("/gradio_api/upload", content=b"x" * (MAX_BODY + 1)).status_code == 503


def chunked(client, path, size, length="5"):
    """The response to a body in chunks that claims another length."""
    chunks = (b"x" * 2**16 for _ in range(size // 2**16 + 1))
    return client.post(path, content=chunks, headers={"content-length": length})


@pytest.mark.parametrize("path, limit", [("/gradio_api/queue/join", MAX_BODY), ("/gradio_api/upload", 2 * MAX_BODY)])
def test_bytes_are_counted_whatever_the_length_says(client, path, limit):
    assert chunked(client, path, 100 * MAX_BODY).status_code == 413
    assert chunked(client, path, limit // 2).status_code == 200
    assert client.post(path, content=b"", headers={"content-length": str(10**12)}).status_code == 413


def test_uploads_need_room_on_the_disk(client, tmp_path):
    (tmp_path / "full").write_bytes(b"x" * 2 * MAX_BODY)
    assert chunked(client, "/gradio_api/upload", MAX_BODY * 3 // 2).status_code == 503
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_the_application_gets_the_whole_body(tmp_path):
    async def echo(scope, receive, send):
        request = Request(scope, receive)
        await PlainTextResponse(await request.body())(scope, receive, send)

    client = TestClient(RequestFilter(echo, tmp_path, max_upload=8 * MAX_BODY, max_uploads=16 * MAX_BODY))
    for path, body in (("upload", bytes(range(256)) * 20_000), ("queue/join", b"short"), ("queue/join", b"")):
        assert client.post(f"/gradio_api/{path}", content=body).content == body
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/run/predict"])
def test_the_time_of_a_body_is_limited(tmp_path, path):
    request_filter = RequestFilter(
        PlainTextResponse("behind"),
        tmp_path,
        max_upload=MAX_BODY,
        max_uploads=MAX_BODY,
        body_seconds=0.05,
        upload_seconds=0.05,
    )
    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-length", b"100")]}
    sent = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    asyncio.run(request_filter(scope, receive, send))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload"])
def test_an_interrupted_body_does_not_reach_the_application(tmp_path, path):
    async def fail(*_):
        pytest.fail("it got through")

    messages = [{"type": "http.request", "body": b"x" * 100, "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    request_filter = RequestFilter(fail, tmp_path, max_upload=MAX_BODY, max_uploads=MAX_BODY)
    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-length", b"1000")]}
    asyncio.run(request_filter(scope, receive, fail))
    assert not messages
    assert not list(tmp_path.iterdir())


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
def test_a_file_cannot_be_an_address(client, body, status):
    assert client.post("/gradio_api/queue/join", content=body).status_code == status
