"""Stand-in for the Hugging Face Hub on the loopback interface of this machine: models as dicts of files."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from .hub_cache import COMMIT


@contextmanager
def serve_hub(models: Mapping[str, Mapping[str, bytes]]) -> Iterator[tuple[str, list[str]]]:
    """Context manager that returns the address of a Hub, and a list to which each downloaded file is appended.

    Args:
        models: ids of models -> names of files -> their contents. Each has the branch main with one commit.
    """
    downloads: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            path = urlsplit(self.path).path
            for model, files in models.items():
                if path in (f"/api/models/{model}", f"/api/models/{model}/revision/main"):
                    return self.send(json.dumps({"id": model, "sha": COMMIT}).encode(), body)
                if path == f"/api/models/{model}/tree/{COMMIT}":
                    entries = [
                        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for name, content in files.items()
                    ]
                    return self.send(json.dumps(entries).encode(), body)
                name = path.removeprefix(f"/{model}/resolve/{COMMIT}/")
                if name in files:
                    if body:
                        downloads.append(name)
                    return self.send(files[name], body)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, content, body):
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", downloads
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
