"""Runs the server until it is told to end."""

import uvicorn

from mmgpt.apis import Chat
from mmgpt.server.admission import Admission
from mmgpt.server.app import create_app
from mmgpt.server.body import BodyReader
from mmgpt.server.settings import Settings

KEEP_ALIVE = 65  # seconds; longer than clients and proxies usually keep an idle connection, so that they close it


class Server(uvicorn.Server):
    """uvicorn, which at SIGTERM or SIGINT finishes what is under way before it closes its port.

    Until then new requests get 503, and so does /health. A second SIGINT ends it at once.

    Args:
        config: uvicorn's.
        admission: of the app that it runs.
        bodies: its reader of bodies.
    """

    def __init__(self, config: uvicorn.Config, admission: Admission, bodies: BodyReader):
        super().__init__(config)
        self.admission, self.bodies = admission, bodies

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now; uvicorn asks ten times a second."""
        leaving = await super().on_tick(counter)
        if leaving:
            self.bodies.close()
            self.admission.close()
        return leaving and (self.force_exit or not self.admission.inside)


def make_server(chat: Chat, settings: Settings, host: str, port: int) -> Server:
    """A server that is ready to ``run()`` until the process is told to end; it closes the chat then."""
    app = create_app(chat, settings)
    config = uvicorn.Config(
        app, host, port, timeout_keep_alive=KEEP_ALIVE, server_header=False, lifespan="on", ws="none"
    )
    return Server(config, app.state.admission, app.state.bodies)
