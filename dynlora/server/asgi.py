"""The server behind `dynlora ui`: `app.py`, and a door that only its own pages pass."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.routing import Mount
from streamlit.runtime.pages_manager import PagesManager
from streamlit.starlette import App

from dynlora.server import docs_site, entry_page
from dynlora.server.app_files import app_root
from dynlora.server.host_check import OwnPagesOnly

# Until `st.navigation` has run once, streamlit takes the folder `pages/` for an app of its older kind and runs the page
# of a link without the menu and the look: two tabs opened at the start would race for being the first.
PagesManager.uses_pages_directory = False

app = App(
    app_root() / "app.py",
    routes=[Mount(docs_site.MOUNTED_AT, docs_site.answer), *entry_page.page_routes()],
    middleware=[Middleware(OwnPagesOnly)],
)
