"""What a server allows."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """What a server allows, and what it calls its model. The options of ``tools/serve.py`` are these.

    Attributes:
        name: of the model, as requests name it.
        api_key: what ``Authorization: Bearer`` must hold; None asks for nothing.
        allow_hosts: where pictures may be fetched from, each ``host`` or ``host:port``; by default nowhere.
        max_requests: chat requests at once, waiting and being answered; one whose body has not arrived yet does not
            count. More are turned away.
        max_body: MiB of a request, and of the pictures fetched for it.
        max_images: pictures of a conversation.
        max_pixels: millions of pixels, of all pictures of a conversation together.
        max_turns: questions of a conversation.
        max_characters: of all texts of a conversation together.
        max_tokens: the longest answer that can be asked for.
        body_timeout: seconds in which the body of a request arrives.
        time_limit: seconds for an answer, waiting included.
        shutdown_limit: seconds that answers under way get when the server shuts down.
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
