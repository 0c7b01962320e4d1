"""Download of images: allowed hosts, private addresses, redirects and limits."""

import asyncio
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mmgpt.server import image_fetcher
from mmgpt.server.image_fetcher import ImageFetcher

IMAGE = b"the bytes of an image"


class Pages(BaseHTTPRequestHandler):
    """An image, a redirect to it, an endless, a compressed and a slow one, and a missing page."""

    def do_GET(self):
        self.server.hosts.append(self.headers["Host"])
        self.server.packings = self.headers["Accept-Encoding"]
        if self.path == "/redirect":
            return self.reply(302, b"", Location="/image")
        if self.path == "/packed":
            return self.reply(200, IMAGE, **{"Content-Encoding": "gzip"})
        if self.path == "/slow":
            self.server.waiting.wait(5)
        if self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"0" * 10_000)
            except OSError:
                return
        self.reply(200 if self.path.startswith("/image") else 404, IMAGE)

    def reply(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Logs nothing."""


@pytest.fixture(scope="module")
def site():
    """A web site on this machine: its address, and the Host headers that it saw."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        server.hosts, server.waiting = [], threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.name = f"127.0.0.1:{server.server_port}"
        yield server
        server.waiting.set()
        server.shutdown()


def fetch(fetcher, *urls, limit=1000):
    return asyncio.run(fetcher.fetch(urls, limit))


@contextmanager
def refused(message):
    with pytest.raises(ValueError, match=message):
        yield


def test_an_allowed_host_is_fetched(site):
    url = f"http://{site.name}/image"
    assert fetch(ImageFetcher([site.name.upper()]), url) == {url: IMAGE}
    assert site.hosts[-1] == site.name


def test_no_host_is_allowed_by_default(site):
    with refused("fetches no URLs"):
        fetch(ImageFetcher([]), f"http://{site.name}/image")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/image",  # another port
        "https://{name}@evil.example/image",
        "http://user:pass@{name}/image",
        "http://evil.example/{name}",
        "http://{name}.evil.example/image",
        "http://evil.example#@{name}/image",
        "http://evil.example\\@{name}/image",
        "http://[::1]:{port}/image",
        "http://0x7f000001:{port}/image",
        "http://2130706433:{port}/image",
        "http://169.254.169.254/latest/meta-data/",
        "http://",
        "http://[/image",
        "http://a:b:c/",
    ],
)
def test_other_urls_are_not_fetched(site, url):
    before = len(site.hosts)
    with refused("fetches no images from|is invalid"):
        fetch(ImageFetcher([site.name]), url.format(name=site.name, port=site.server_port))
    assert len(site.hosts) == before


def test_a_name_must_lead_to_public_addresses(site):
    with refused("no public address"):
        fetch(ImageFetcher([f"localhost:{site.server_port}"]), f"http://localhost:{site.server_port}/image")


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "127.0.0.1", "0.0.0.0", "100.64.0.1",
                "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::"],
)  # fmt: skip
def test_a_name_with_one_private_address_among_several_is_refused(monkeypatch, address):
    async def lookup(*_, **__):
        return [(socket.AF_INET, 0, 0, "", (other, 0)) for other in ("93.184.216.34", address)]

    async def run():
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        return await ImageFetcher(["images.example"]).fetch(["https://images.example/a"], 10)

    with refused("no public address"):
        asyncio.run(run())


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch, site):
    """A name that leads elsewhere the second time it is looked up gets nothing from that."""
    names = []

    async def lookup(host, *_, **__):
        names.append(host)
        return [(socket.AF_INET, 0, 0, "", ("127.0.0.1", 0))]

    async def run():
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        return await ImageFetcher([f"images.example:{site.server_port}"]).fetch([url], 1000)

    monkeypatch.setattr(image_fetcher.ipaddress.IPv4Address, "is_global", True)
    url = f"http://images.example:{site.server_port}/image"
    assert asyncio.run(run()) == {url: IMAGE}
    assert site.hosts[-1] == f"images.example:{site.server_port}"
    assert names[0] == "images.example"
    assert set(names[1:]) <= {"127.0.0.1"}


def test_no_redirect_is_followed(site):
    with refused("status 302"):
        fetch(ImageFetcher([site.name]), f"http://{site.name}/redirect")


def test_compressed_data_are_not_decompressed(site):
    assert list(fetch(ImageFetcher([site.name]), f"http://{site.name}/packed").values()) == [IMAGE]
    assert site.packings == "identity"


def test_reading_ends_at_the_limit(site):
    with refused("too large"):
        fetch(ImageFetcher([site.name]), f"http://{site.name}/endless", limit=100_000)
    with refused("too large"):
        fetch(ImageFetcher([site.name]), *(f"http://{site.name}/image?{i}" for i in range(2)), limit=len(IMAGE))


def test_failed_downloads_are_named(site, monkeypatch):
    with refused("status 404"):
        fetch(ImageFetcher([site.name]), f"http://{site.name}/nothing")
    with refused("ConnectError"):
        fetch(ImageFetcher(["127.0.0.1:1"]), "http://127.0.0.1:1/")
    monkeypatch.setattr(image_fetcher, "SECONDS", 0.2)
    with refused("within 0.2 seconds|Timeout"):
        fetch(ImageFetcher([site.name]), f"http://{site.name}/slow")


@pytest.mark.parametrize("host", ["http://a.example", "a.example/b", "*.example", " ", "user@a"])
def test_hosts_are_names(host):
    with refused("allow_hosts takes names"):
        ImageFetcher([host])
