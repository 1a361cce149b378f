"""The server behind `dynlora ui`: `app.py`, and a door that only its own pages pass."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from starlette.middleware import Middleware
from starlette.routing import Mount
from streamlit.runtime.pages_manager import PagesManager
from streamlit.starlette import App

from dynlora.jobs.environment import TIED_VARIABLE
from dynlora.server import docs_site, entry_page
from dynlora.server.host_check import OwnPagesOnly
from dynlora.server.serve import app_root

# Until `st.navigation` has run once, streamlit takes the folder `pages/` for an app of its older kind and runs the page
# of a link without the menu and the look: two tabs opened at the start would race for being the first.
PagesManager.uses_pages_directory = False

ENDS_S = 10.0
"""Seconds that the server may take to close its connections once the command that started it is gone."""


def _end_with_command() -> None:
    """Wait until the command that started this server is gone, by a signal that it could not pass on, and end."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ENDS_S)
    os._exit(128 + signal.SIGTERM)


if os.environ.get(TIED_VARIABLE):
    threading.Thread(target=_end_with_command, daemon=True).start()

app = App(
    app_root() / "app.py",
    routes=[Mount(docs_site.MOUNTED_AT, docs_site.answer), *entry_page.page_routes()],
    middleware=[Middleware(OwnPagesOnly)],
)
