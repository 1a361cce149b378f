"""Files of a web server, read within limits: a server may ignore what part is asked for, and send without end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from html.parser import HTMLParser
from importlib import import_module
from typing import Any
from urllib.parse import unquote, urljoin

from dynlora.errors import CorruptRunError

PROTOCOLS = ("http", "https")
"""Places that are read here, and never written to."""

MAX_PAGE = 8 * 2**20
"""Of a page that lists a folder, bytes."""

MAX_FOLDERS = 100_000
"""Links of such a page that are followed up."""

PIECE = 2**20
"""Bytes that are taken at a time."""

_SLOWEST = 20_000
"""Bytes a second below which a file counts as never ending."""
_PATIENCE_S, _SILENT_S = 300.0, 60.0


def first_bytes(fs: Any, url: str, limit: int) -> bytes:
    """Return the start of a file, at most `limit` bytes.

    Raises:
        FileNotFoundError: when there is none.
    """
    with stream(fs, url, limit) as pieces:
        return b"".join(pieces)


@contextmanager
def stream(fs: Any, url: str, limit: int) -> Generator[Generator[bytes]]:
    """Lend the pieces of a file, as they come, at most `limit` bytes together.

    Raises:
        FileNotFoundError: when there is none.
        TimeoutError: when the server falls silent, or takes too long over so many bytes.
    """
    aiohttp: Any = import_module("fsspec.implementations.http").aiohttp
    longest = aiohttp.ClientTimeout(_PATIENCE_S + limit / _SLOWEST, sock_connect=_SILENT_S, sock_read=_SILENT_S)
    headers = {"Range": f"bytes=0-{limit - 1}", "Accept-Encoding": "identity"}
    file = fs.open(url, "rb", block_size=0, size=limit, headers=headers, timeout=longest)
    try:
        yield _pieces(file, limit)
    finally:
        file.close()


def _pieces(file: Any, left: int) -> Generator[bytes]:
    while left and (piece := file.read(min(left, PIECE))):
        left -= len(piece)
        yield piece


def folders(fs: Any, url: str, address: str) -> list[str]:
    """Return the names of folders that the page of a folder links to, in order.

    Raises:
        CorruptRunError: when the page is longer than any list of runs.
        FileNotFoundError: when there is none.
    """
    base = f"{url.rstrip('/')}/"
    page = first_bytes(fs, base, MAX_PAGE + 1)
    if len(page) > MAX_PAGE:
        raise CorruptRunError(f"{address}: its page has more than {MAX_PAGE:,} bytes, over the limit of dynlora")
    links = _Links()
    links.feed(page.decode("utf-8", "replace"))
    addresses = {urljoin(base, link) for link in links.links}
    below = {link.removeprefix(base) for link in addresses if link.startswith(base) and link.endswith("/")}
    return sorted(unquote(name[:-1]) for name in below if name.count("/") == 1)[:MAX_FOLDERS]


class _Links(HTMLParser):
    """Collects where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the address of a link."""
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]
