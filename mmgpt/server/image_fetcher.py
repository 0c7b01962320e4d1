"""Download of images from the web: only from allowed hosts, and never from the server's own network."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import httpx

SECONDS = 10  # for all images of a request
ADVICE = "send the image itself, as data:image/png;base64,..."


class ImageFetcher:
    """Downloader of images from allowed hosts.

    A host's addresses are looked up once and the connection goes to one of the checked addresses, so that a name cannot
    lead elsewhere between check and use. Redirects are not followed, and proxies of the environment are not used.

    Args:
        hosts: each ``host`` (with the usual ports) or ``host:port``. A name must lead to public addresses; a private
            one can be allowed as an address.

    Raises:
        ValueError: a host is not of this form.
    """

    def __init__(self, hosts: Sequence[str]):
        for host in hosts:
            if not host.strip() or set(host) & set("/@ *"):
                raise ValueError(f"allow_hosts takes names such as example.org or example.org:8443, got {host!r}")
        self.hosts = frozenset(host.lower() for host in hosts)

    async def fetch(self, urls: Sequence[str], max_bytes: int) -> dict[str, bytes]:
        """The bytes at each URL, together at most `max_bytes`.

        Raises:
            ValueError: a URL is not allowed or cannot be read; a sentence for the user.
        """
        files: dict[str, bytes] = {}
        try:
            async with asyncio.timeout(SECONDS), httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
                for url in urls:
                    files[url] = await self._download(client, url, max_bytes - sum(map(len, files.values())))
        except TimeoutError as error:
            raise ValueError(f"the images could not be fetched within {SECONDS} seconds: {ADVICE}") from error
        except httpx.HTTPError as error:
            raise ValueError(f"the image could not be fetched ({type(error).__name__}): {ADVICE}") from error
        return files

    async def _download(self, client: httpx.AsyncClient, url: str, max_bytes: int) -> bytes:
        # 1. The host must be allowed.
        if not self.hosts:
            raise ValueError(f"this server fetches no URLs: {ADVICE}")
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise ValueError(f"the URL of the image is invalid: {error}") from error
        # `netloc` is without the port where it is the usual one.
        if parsed.userinfo or parsed.netloc.decode() not in self.hosts:
            raise ValueError(f"this server fetches no images from {parsed.host!r}: {ADVICE}")
        # 2. The connection goes to its checked address.
        request = client.build_request(
            "GET",
            parsed.copy_with(host=await public_address(parsed.host)),
            # Compressed data are not decompressed: a small file could become large.
            headers={"Host": parsed.netloc.decode(), "Accept-Encoding": "identity"},
            extensions={"sni_hostname": parsed.host},
        )
        response = await client.send(request, stream=True)
        # 3. The bytes are counted as they arrive.
        try:
            if response.status_code != 200:
                raise ValueError(f"the image could not be fetched (status {response.status_code}): {ADVICE}")
            data = bytearray()
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > max_bytes:
                    raise ValueError("the fetched images are too large")
            return bytes(data)
        finally:
            await response.aclose()


async def public_address(host: str) -> str:
    """The address to connect to: the host itself if it is an address, else the first address of the name.

    Raises:
        ValueError: the name is unknown, or one of its addresses is not public.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass  # The host is a name.
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"there is no host {host!r}") from error
    addresses = [entry[4][0] for entry in entries]
    if not all(ipaddress.ip_address(address).is_global for address in addresses):
        raise ValueError(f"the host {host!r} has no public address: {ADVICE}")
    return addresses[0]
