"""Metrics of the server, in Prometheus's text format."""

import threading
from collections.abc import Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmgpt.apis import Chat
from mmgpt.server.admission import ActiveRequest

PATHS = ("/v1/chat/completions", "/v1/models", "/health", "/metrics")
# Names in `Chat.stats()`, with the help texts of their metrics.
GAUGES = {
    "running": "answers that are being generated",
    "waiting": "answers that wait for the model",
    "cache_bytes": "memory of the prefix cache",
}
COUNTERS = {
    "requests": "answers that were requested",
    "cancelled": "answers that were stopped before their end",
    "failed": "answers that failed in the model",
    "prompt_tokens": "tokens of prompts",
    "cached_tokens": "tokens of prompts that were in the prefix cache",
    "completion_tokens": "generated tokens",
}


class ChatCollector(Collector):
    """Prometheus collector of a chat's statistics, which are read at each scrape."""

    def __init__(self, chat: Chat):
        self.chat = chat

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        stats = self.chat.stats()
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(f"mmgpt_{name}", text, stats[name])
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"mmgpt_{name}", text, stats[name])


class Metrics:
    """Metrics of one server.

    Args:
        chat: the chat that answers.
    """

    def __init__(self, chat: Chat):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        threads = Gauge("mmgpt_threads", "threads of Python", registry=self.registry)
        threads.set_function(threading.active_count)
        self.registry.register(ChatCollector(chat))
        labels = ("path", "status")
        help_text = "requests by path and status; 499: the client left before the answer, 0: no response was sent"
        self.responses = Counter("mmgpt_http_requests", help_text, labels, registry=self.registry)
        help_text = "answers by how they ended: stop, length, cancelled (the client left), error"
        self.outcomes = Counter("mmgpt_answers", help_text, ("end",), registry=self.registry)
        buckets = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
        histogram = partial(Histogram, buckets=buckets, registry=self.registry)
        self.first_token = histogram("mmgpt_time_to_first_token_seconds", "from the question to the first token")
        self.answer = histogram("mmgpt_answer_seconds", "from the question to the end of the answer")

    def count(self, request: ActiveRequest) -> None:
        """Count the answer of a request that has ended, unless it was refused."""
        answer = request.answer
        if answer is None:
            return
        self.outcomes.labels(request.outcome).inc()
        if answer.completion_tokens:
            self.first_token.observe(answer.seconds_to_first)
        if answer.finish_reason:
            self.answer.observe(answer.seconds)

    def text(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)


class CountResponses:
    """ASGI middleware that counts responses by path and status.

    Args:
        app: the wrapped application.
        metrics: holds the counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and count its response."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status = 0

        async def send_and_record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_record_status)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.metrics.responses.labels(path, str(status)).inc()
