"""Puts the dashboard's files into the wheel, so that `dynlora ui` works outside a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

APP_FILES = ("app.py", "pages", "sample_runs", ".streamlit/config.toml")
"""Paths in the checkout that are copied into the package; `dynlora/server/serve.py` finds them there."""

SITE = "site"
"""The built documentation (`make docs`); building it needs torch and MkDocs, so a wheel made without it has none."""


class AppFilesHook(BuildHookInterface[Any]):
    """Copies the files for a real wheel; an editable install finds them in the checkout, where they can be edited."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to what the wheel includes."""
        if version != "editable":
            site = (SITE,) if (Path(self.root) / SITE / "index.html").is_file() else ()
            build_data["force_include"].update({path: f"dynlora/_app/{path}" for path in (*APP_FILES, *site)})
