"""Routes beside the chat, and the API key."""

import openai
import pytest

from tests.server.conftest import request, run_server


def test_health(served):
    response = served.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", "/v1/models/tiny"])
def test_head_is_get_without_the_body(served, path):
    response = served.head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == served.get(path).headers["content-type"]


def test_models(served):
    models = served.client().models
    assert [model.id for model in models.list()] == ["tiny"]
    assert models.retrieve("tiny").owned_by == "mmgpt"
    # Not OpenAI's: how answers are generated.
    for model in (models.retrieve("tiny"), *models.list()):
        assert model.generation == {"do_sample": False, "max_new_tokens": 64}
    with pytest.raises(openai.NotFoundError) as caught:
        models.retrieve("gpt-4o/mini")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    "method, path, status", [("GET", "/nowhere", 404), ("GET", "/v1/chat/completions", 405), ("GET", "/docs", 404)]
)
def test_unknown_paths_are_errors_in_the_same_format(served, method, path, status):
    response = served.get(path)
    error = response.json()["error"]
    assert response.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert path in error["message"]


def test_a_key():
    with run_server(api_key="sesame é") as served:
        for header in (None, "Bearer", "Bearer sesame", "sesame é", "Bearer sesame é2", "Basic sesame é"):
            headers = {"Authorization": header.encode()} if header else {}
            for response in (served.post(request(), headers=headers), served.get("/metrics", headers=headers)):
                assert response.status_code == 401
                assert response.json()["error"]["code"] == "invalid_api_key"
                assert response.headers["WWW-Authenticate"] == "Bearer"
        assert served.get("/health").status_code == 200
        with pytest.raises(openai.AuthenticationError):
            served.ask()
        headers = {"Authorization": "Bearer sesame é".encode()}
        assert served.post(request(), headers=headers).status_code == 200
        assert served.get("/v1/models", headers=headers).status_code == 200
        assert served.chat.submitted["conversation"].turns


def test_the_official_client_brings_a_key():
    with run_server(api_key="sesame") as served:
        assert [model.id for model in served.client(api_key="sesame").models.list()] == ["tiny"]
