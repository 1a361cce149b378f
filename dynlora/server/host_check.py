"""Who may speak to the dashboard: pages that it served itself, under a name that is this machine's.

A browser lets any page it shows send requests to 127.0.0.1. Two headers that a page cannot choose give it away: `Host`,
which holds the name that the browser looked up, and `Origin`, which holds where the page came from.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

HOSTS_VARIABLE = "DYNLORA_HOSTS"
"""Names that the dashboard is served under, with commas between; `dynlora ui` sets it for its server."""

SPACE_VARIABLE = "SPACE_HOST"
"""Name that Hugging Face serves a Space under; it sets the variable there."""

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Names of this machine for itself."""

EVERYWHERE = ("0.0.0.0", "::")
"""Addresses to bind that stand for all of a machine's own."""

GUARDS = {
    b"x-frame-options": b"DENY",
    b"content-security-policy": b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
}
"""Headers of every answer: no page of somebody else's shows the dashboard in a frame, under a button of its own."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def is_local(host: str) -> bool:
    """Say whether an address to bind is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in LOCAL


def served_names(host: str) -> tuple[str, ...]:
    """Return the names that a dashboard bound to `host` answers to; a name that only a foreign DNS knows is none.

    Bound to everything it also answers to the name of the Space that it runs in.
    """
    if host in LOCAL:
        return LOCAL
    if host not in EVERYWHERE:
        return (host.lower(), *LOCAL)
    import psutil

    families = (socket.AF_INET, socket.AF_INET6)
    own = [entry for entries in psutil.net_if_addrs().values() for entry in entries if entry.family in families]
    addresses = [entry.address.partition("%")[0] for entry in own]
    space = os.environ.get(SPACE_VARIABLE, "").strip().lower()
    spaces = [space] if space.endswith(".hf.space") else []
    return tuple(dict.fromkeys([*LOCAL, socket.gethostname().lower(), *addresses, *spaces]))


def names_of_server() -> tuple[str, ...]:
    """Return the names that `dynlora ui` told its server; those of this machine for itself when it told none."""
    named = tuple(name.strip().lower() for name in os.environ.get(HOSTS_VARIABLE, "").split(",") if name.strip())
    return named or LOCAL


def is_welcome(host: str | None, origin: str | None, names: Iterable[str]) -> bool:
    """Say whether a request may be answered.

    Args:
        host: what its `Host` header says.
        origin: what its `Origin` header says; None when there is none, as for a link that is followed.
        names: that the dashboard is served under.
    """
    address = _split(f"//{host}") if host else None
    if (
        address is None
        or address.username is not None
        or address.path
        or _plain(address.hostname) not in map(_plain, names)
    ):
        return False
    return host is not None and is_own_page(host, origin)


def is_own_page(host: str, origin: str | None) -> bool:
    """Say whether a request comes from a page of the address that it goes to, port included, or from no page."""
    if origin is None:
        return True
    came_from = _split(origin)
    return came_from is not None and came_from.scheme in ("http", "https") and came_from.netloc.lower() == host.lower()


def _split(address: str) -> SplitResult | None:
    """Return the parts of an address, None for what is none."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return None
    return parts


def _plain(name: str | None) -> str:
    """Return a name in the one way of writing it."""
    lower = (name or "").lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(lower))
    except ValueError:
        return lower


def _guarded(send: Send) -> Send:
    """Return a `send` that puts the headers of `GUARDS` on every answer, in the place of others of those names."""

    async def guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in GUARDS]
            message = {**message, "headers": [*headers, *GUARDS.items()]}
        await send(message)

    return guarded


def _bytes_only(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Return both ends of a web socket that takes bytes alone: one that sends text is closed with code 1003.

    Streamlit closes it too, by an error whose traceback ends in the server's log.
    """
    is_closed = False

    async def received() -> MutableMapping[str, Any]:
        nonlocal is_closed
        message = await receive()
        if message["type"] != "websocket.receive" or message.get("bytes") is not None:
            return message
        is_closed = True
        await send({"type": "websocket.close", "code": 1003})
        return {"type": "websocket.disconnect", "code": 1003}

    async def sent(message: MutableMapping[str, Any]) -> None:
        if not is_closed:
            await send(message)

    return received, sent


class OwnPagesOnly:
    """Answers requests of the dashboard's own pages, and refuses all others before anything of them is read.

    Streamlit itself compares hosts on web sockets alone, takes every port of this machine for its own, and asks a
    server on the internet for this machine's address when a foreign page asks.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self.names = names_of_server()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on or answer it with 403."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        send = _guarded(send)
        if self._is_welcome(scope["headers"]):
            if scope["type"] == "websocket":
                receive, send = _bytes_only(receive, send)
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it was accepted: 403 for the browser
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            message = f"The dashboard accepts requests for {', '.join(self.names)} and from its own pages only.\n"
            await send({"type": "http.response.body", "body": message.encode()})

    def _is_welcome(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        if len(hosts) != 1 or len(origins) > 1:
            return False
        return is_welcome(hosts[0], origins[0] if origins else None, self.names)
