"""Pictures from the web: only from hosts that were named, and never from inside the server's own network."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import httpx

SECONDS = 10  # for all pictures of a request
ADVICE = "send the picture itself, as data:image/png;base64,..."


class Fetcher:
    """Reads pictures from the hosts that were named.

    A host's addresses are looked up once and the connection goes to one of those that were checked, so that a name
    cannot lead elsewhere between check and use. Redirects are not followed, proxies of the environment not asked.

    Args:
        hosts: each ``host`` (with the usual ports) or ``host:port``. A name must lead to public addresses; a private
            one can be named as an address.

    Raises:
        ValueError: a host is given with more than that.
    """

    def __init__(self, hosts: Sequence[str]):
        for host in hosts:
            if not host.strip() or set(host) & set("/@ *"):
                raise ValueError(f"allow_hosts takes names such as example.org or example.org:8443, got {host!r}")
        self.hosts = frozenset(host.lower() for host in hosts)

    async def read(self, urls: Sequence[str], max_bytes: int) -> dict[str, bytes]:
        """What the URLs hold, together at most `max_bytes`.

        Raises:
            ValueError: a URL is not allowed or cannot be read; a sentence for the user.
        """
        pages: dict[str, bytes] = {}
        try:
            async with asyncio.timeout(SECONDS), httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
                for url in urls:
                    left = max_bytes - sum(map(len, pages.values()))
                    pages[url] = await self._read_one(client, self._allowed(url), left)
        except TimeoutError as error:
            raise ValueError(f"the pictures could not be fetched within {SECONDS} seconds: {ADVICE}") from error
        except httpx.HTTPError as error:
            raise ValueError(f"the picture could not be fetched ({type(error).__name__}): {ADVICE}") from error
        return pages

    def _allowed(self, url: str) -> httpx.URL:
        if not self.hosts:
            raise ValueError(f"this server fetches no URLs: {ADVICE}")
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise ValueError(f"the URL of the picture is invalid: {error}") from error
        # Without the port where it is the scheme's own.
        if parsed.userinfo or parsed.netloc.decode() not in self.hosts:
            raise ValueError(f"this server fetches no pictures from {parsed.host!r}: {ADVICE}")
        return parsed

    async def _read_one(self, client: httpx.AsyncClient, url: httpx.URL, max_bytes: int) -> bytes:
        address = await _public_address(url)
        request = client.build_request(
            "GET",
            url.copy_with(host=address),
            # Unpacked nowhere: what is small on the wire could be large here.
            headers={"Host": url.netloc.decode(), "Accept-Encoding": "identity"},
            extensions={"sni_hostname": url.host},
        )
        response = await client.send(request, stream=True)
        try:
            if response.status_code != 200:
                raise ValueError(f"the picture could not be fetched (status {response.status_code}): {ADVICE}")
            data = bytearray()
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > max_bytes:
                    raise ValueError("the fetched pictures are too large")
            return bytes(data)
        finally:
            await response.aclose()


async def _public_address(url: httpx.URL) -> str:
    """The address to connect to for a URL: the host itself where it is one, else one that the name leads to."""
    try:
        return str(ipaddress.ip_address(url.host))
    except ValueError:
        pass  # a name
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"there is no host {url.host!r}") from error
    addresses = [entry[4][0] for entry in found]
    if not all(ipaddress.ip_address(address).is_global for address in addresses):
        raise ValueError(f"the host {url.host!r} has no public address: {ADVICE}")
    return addresses[0]
