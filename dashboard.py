"""The server behind `dynlora ui`: `app.py`, and a door that only its own pages pass."""

from __future__ import annotations

from pathlib import Path

from starlette.middleware import Middleware
from streamlit.starlette import App

from dynlora.origins import OwnPagesOnly

app = App(Path(__file__).with_name("app.py"), middleware=[Middleware(OwnPagesOnly)])
