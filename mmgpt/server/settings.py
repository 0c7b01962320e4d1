"""Settings of the server: its limits, its API key, and the name of its model."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """Settings of the server, which are also the options of ``tools/serve.py``.

    Attributes:
        name: of the model, in requests.
        api_key: key that ``Authorization: Bearer`` must hold; None accepts all requests.
        allow_hosts: hosts to download images from, each ``host`` or ``host:port``; by default none.
        max_requests: active chat requests, waiting and being answered; one whose body has not arrived yet does not
            count. More are refused.
        max_body: MiB of a request, and of the images downloaded for it.
        max_images: images of a conversation.
        max_pixels: millions of pixels, of all images of a conversation together.
        max_turns: questions of a conversation.
        max_characters: of all texts of a conversation together.
        max_tokens: largest `max_tokens` of a request.
        body_timeout: seconds in which the body of a request has to arrive.
        time_limit: seconds for an answer, waiting included.
        shutdown_limit: seconds for active requests when the server shuts down.
    """

    name: str
    api_key: str | None = None
    allow_hosts: tuple[str, ...] = ()
    max_requests: int = 48
    max_body: int = 32
    max_images: int = 16
    max_pixels: int = 100
    max_turns: int = 100
    max_characters: int = 100_000
    max_tokens: int = 2048
    body_timeout: float = 30
    time_limit: float = 300
    shutdown_limit: float = 30

    @property
    def body_bytes(self) -> int:
        """`max_body` in bytes."""
        return self.max_body * MIB
