"""The server behind `dynlora ui`: `app.py`, and a door that only its own pages pass."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from streamlit.starlette import App

from dynlora.server import docs_site
from dynlora.server.app_files import app_root
from dynlora.server.host_check import OwnPagesOnly

NOT_BUILT = PlainTextResponse(f"{docs_site.NOT_BUILT}.\n", status_code=404)
documentation = StaticFiles(directory=docs_site.site_dir(), html=True) if docs_site.is_built() else NOT_BUILT

app = App(
    app_root() / "app.py",
    routes=[Mount(docs_site.MOUNTED_AT, documentation)],
    middleware=[Middleware(OwnPagesOnly)],
)
