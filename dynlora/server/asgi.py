"""The server behind `dynlora ui`: `app.py`, and a door that only its own pages pass."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose
from streamlit.starlette import App

from dynlora.server import docs_site
from dynlora.server.app_files import app_root
from dynlora.server.host_check import OwnPagesOnly


async def documentation(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a file of the documentation, or with how to build it."""
    if scope["type"] != "http":
        await WebSocketClose()(scope, receive, send)
    elif docs_site.is_built():
        await StaticFiles(directory=docs_site.site_dir(), html=True)(scope, receive, send)
    else:
        await PlainTextResponse(f"{docs_site.NOT_BUILT}.\n", status_code=404)(scope, receive, send)


app = App(
    app_root() / "app.py",
    routes=[Mount(docs_site.MOUNTED_AT, documentation)],
    middleware=[Middleware(OwnPagesOnly)],
)
