"""Where the dashboard's own files are: beside the package in a checkout, inside it once installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def app_root() -> Path:
    """The folder that holds `app.py`, `pages/` and `.streamlit/config.toml`.

    Raises:
        FileNotFoundError: The installation is incomplete.
    """
    for folder in (_PACKAGE.parent, _PACKAGE / "_app"):
        if (folder / "app.py").is_file() and (folder / "pages").is_dir():
            return folder
    raise FileNotFoundError(f"the dashboard's app.py is missing in and next to {_PACKAGE}; install dynlora again")


def sample_runs_dir() -> Path:
    """The folder of the sample runs that come with dynlora; it may be read-only."""
    return app_root() / "sample_runs"
