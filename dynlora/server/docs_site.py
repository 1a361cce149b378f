"""The documentation site: where it is, building it in a checkout, and serving it to this machine alone."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dynlora.errors import DynloraError
from dynlora.jobs.environment import python_command
from dynlora.server.host_check import LOCAL, Receive, Scope, Send, is_welcome
from dynlora.server.serve import app_root

MOUNTED_AT = "/docs"
"""The path under which the dashboard serves the site."""

SOURCES = ("mkdocs.yml", "docs/**/*", "tools/docs/*.py", "dynlora/strategies/**/*.py", "dynlora/cli/*.py", "*.md")
"""What a built site is made from, as patterns in the checkout."""


def docs_url(page: str = "index", section: str = "") -> str:
    """Return the link from the dashboard to a page of the documentation.

    Args:
        page: path of the page without its ending, such as `methods/dynamic` or `RESULTS`.
        section: id of a heading on it.
    """
    return f"{MOUNTED_AT}/{page}.html{f'#{section}' if section else ''}"


def site_dir() -> Path:
    """Return the folder of the built site; it may be missing."""
    return app_root() / "site"


def is_built() -> bool:
    """Say whether there is a site to serve."""
    return (site_dir() / "index.html").is_file()


def not_built() -> str:
    """Return why there is no site, and what to do."""
    if (app_root() / "mkdocs.yml").is_file():
        return "the documentation is not built yet; run `make docs`, or `pip install -e '.[docs]'` and `dynlora docs`"
    return (
        "this installation was built without the documentation; install a wheel made by `make wheel`, or read the "
        "folder docs/ of the source"
    )


def can_build() -> bool:
    """Say whether this is a checkout with the packages that build the site."""
    return (
        (app_root() / "mkdocs.yml").is_file() and find_spec("mkdocs") is not None and find_spec("material") is not None
    )


def is_older_than_sources() -> bool:
    """Say whether a source of the site was changed after it was built."""
    built = (site_dir() / "index.html").stat().st_mtime
    root = app_root()
    return any(path.stat().st_mtime > built for pattern in SOURCES for path in root.glob(pattern))


def build() -> None:
    """Build the site in this checkout; a warning is an error.

    Raises:
        DynloraError: MkDocs refused; its output is on stderr.
    """
    done = subprocess.run(python_command("tools.docs"), cwd=app_root(), stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise DynloraError("the documentation could not be built; the lines above say why")


def ready() -> Path:
    """Return the folder of the site, built first where it is missing or old and can be built.

    Raises:
        DynloraError: there is no site and it cannot be built.
    """
    if can_build() and not (is_built() and not is_older_than_sources()):
        build()
    if not is_built():
        raise DynloraError(not_built())
    return site_dir()


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request to the dashboard with a file of the site; without one, with how to build it and the source."""
    from starlette.responses import PlainTextResponse
    from starlette.staticfiles import StaticFiles
    from starlette.websockets import WebSocketClose

    if scope["type"] != "http":
        await WebSocketClose()(scope, receive, send)
    elif is_built():
        await StaticFiles(directory=site_dir(), html=True)(scope, receive, send)
    else:
        source = sources().get(scope["path"].rpartition(f"{MOUNTED_AT}/")[2] or "index.html")
        text = f"\n{source.read_text('utf-8')}" if source else ""
        status = 200 if source else 404
        await PlainTextResponse(f"{not_built()}.\n{text}", status_code=status)(scope, receive, send)


def sources() -> dict[str, Path]:
    """Return the Markdown of each page in a checkout, by the page's path in the site."""
    docs = app_root() / "docs"
    return {path.relative_to(docs).with_suffix(".html").as_posix(): path for path in docs.rglob("*.md")}


class Pages(SimpleHTTPRequestHandler):
    """Serves files to pages of this machine's own name; writes no log."""

    def send_head(self):  # type: ignore[no-untyped-def]
        """Refuse a request under another name, as a rebound one would be."""
        hosts = self.headers.get_all("Host") or [""]
        if len(hosts) != 1 or not is_welcome(hosts[0], None, LOCAL):
            self.send_error(403, "Forbidden", f"The documentation accepts requests for {', '.join(LOCAL)} only.")
            return None
        if "\0" in unquote(self.path):
            self.send_error(404, "File not found")
            return None
        return super().send_head()

    def list_directory(self, path: str | os.PathLike[str]) -> None:
        """Show no list of files: a folder without a page is not found."""
        self.send_error(404, "File not found")

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


class Server(ThreadingHTTPServer):
    """A server that says nothing of a browser which leaves before its answer is there."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, unless the other end is gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of a folder on 127.0.0.1.

    Raises:
        DynloraError: the port is taken.
    """
    try:
        return Server(("127.0.0.1", port), partial(Pages, directory=str(folder)))
    except OSError as error:
        raise DynloraError(f"--port {port}: {error.strerror}; give another port, or 0 for any free one") from None
