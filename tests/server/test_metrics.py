"""Metrics of the server."""

from prometheus_client.parser import text_string_to_metric_families

from tests.server.conftest import RecordingChat, run_server


class CountingChat(RecordingChat):
    """Statistics of nine different numbers."""

    def stats(self):
        names = ("running", "waiting", "cache_bytes", "requests", "cancelled", "failed")
        tokens = ("prompt_tokens", "cached_tokens", "completion_tokens")
        return {name: number for number, name in enumerate([*names, *tokens], 1)}


def test_every_metric():
    with run_server(CountingChat()) as served:
        served.ask("one two")
        served.ask("three")
        served.get("/nowhere")
        served.get("/elsewhere")
        response = served.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    figures = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    for number, name in enumerate(("running", "waiting", "cache_bytes"), 1):
        assert figures[(f"mmgpt_{name}",)] == number
    counters = ("requests", "cancelled", "failed", "prompt_tokens", "cached_tokens", "completion_tokens")
    for number, name in enumerate(counters, 4):
        assert figures[(f"mmgpt_{name}_total",)] == number
    assert figures[("mmgpt_http_requests_total", "/v1/chat/completions", "200")] == 2
    assert figures[("mmgpt_http_requests_total", "other", "404")] == 2
    assert figures[("mmgpt_answers_total", "stop")] == 2
    for name in ("mmgpt_time_to_first_token_seconds", "mmgpt_answer_seconds"):
        assert figures[(f"{name}_count",)] == 2
        assert 0 < figures[(f"{name}_sum",)] < 60
    assert figures[("process_resident_memory_bytes",)] > 2**20
