"""The built documentation site, and the browser that opens it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.browser.conftest import browser as browser  # a fixture
from tools.docs.__main__ import build


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strict into a folder of its own; needs the packages of the extra `docs`."""
    if not all(map(find_spec, ("mkdocs", "material", "mkdocstrings", "latex2mathml"))):
        message = "the site cannot be built here: pip install 'dynlora[docs]'"
        pytest.fail(message) if os.environ.get("DYNLORA_DOCS_REQUIRED") else pytest.skip(message)
    folder = tmp_path_factory.mktemp("site")
    assert build(["--site-dir", str(folder)]) == 0, f"{sys.executable} -m tools.docs says why"
    return folder
