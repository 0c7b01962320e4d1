"""Running the server, and its graceful shutdown."""

import uvicorn

from mmgpt.apis import Chat
from mmgpt.server.admission import Admission
from mmgpt.server.app import create_app
from mmgpt.server.request_body import BodyReader
from mmgpt.server.settings import Settings

KEEP_ALIVE = 65  # seconds; longer than clients and proxies usually keep an idle connection, so that they close it


class Server(uvicorn.Server):
    """uvicorn server that lets active requests finish at SIGTERM or SIGINT, before it closes its port.

    Until then new requests get 503, and so does /health. A second SIGINT ends the server at once.

    Args:
        config: uvicorn's.
        admission: admission control of its application.
        bodies: reader of request bodies of its application.
    """

    def __init__(self, config: uvicorn.Config, admission: Admission, bodies: BodyReader):
        super().__init__(config)
        self.admission, self.bodies = admission, bodies

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now; uvicorn calls this ten times a second."""
        ending = await super().on_tick(counter)
        if ending:
            self.bodies.close()
            self.admission.close()
        return ending and (self.force_exit or not self.admission.active)


def make_server(chat: Chat, settings: Settings, host: str, port: int) -> Server:
    """A server, ready to ``run()`` until SIGTERM or SIGINT; it closes the chat at its end."""
    app = create_app(chat, settings)
    config = uvicorn.Config(
        app, host, port, timeout_keep_alive=KEEP_ALIVE, server_header=False, lifespan="on", ws="none"
    )
    return Server(config, app.state.admission, app.state.bodies)
