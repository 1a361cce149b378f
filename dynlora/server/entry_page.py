"""What the browser gets for a link to a page: streamlit's own document, told where its server is.

Without that, the document asks below its own address first (`/run/_stcore/health`), is answered with two errors, and
asks again at the root: a detour at every link that is opened in a new tab.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from dynlora.server.app_files import app_root

TOLD = '<script>window.__streamlit = { BACKEND_BASE_URL: window.location.origin + "/" }</script>'
"""Streamlit reads this object before it looks for its server."""


def page_routes() -> list[Route]:
    """Return a route for the address of each page."""
    return [Route(f"/{path.stem}", answer) for path in sorted((app_root() / "pages").glob("*.py"))]


async def answer(_: Request) -> Response:
    """Answer with the document of every page."""
    return HTMLResponse(document(), headers={"Cache-Control": "no-cache"})


@cache
def document() -> str:
    """Return streamlit's document with `TOLD` at the start of its head.

    Raises:
        FileNotFoundError: streamlit is not installed, or not whole.
    """
    found = find_spec("streamlit")
    if found is None or found.origin is None:
        raise FileNotFoundError("streamlit is not installed; install dynlora again")
    text = Path(found.origin).with_name("static").joinpath("index.html").read_text("utf-8")
    return text.replace("<head>", f"<head>\n    {TOLD}", 1)
