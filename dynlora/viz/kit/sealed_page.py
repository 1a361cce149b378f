"""Pages that run no script but their own and ask nobody for anything: their policy, and data inside of them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any


def digest(script: bytes) -> str:
    """Return what a policy calls a script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode('ascii')}"


def policy(*scripts: str, has_pictures: bool = False) -> str:
    """Return the content security policy of a page: nothing is fetched, sent or framed, only these scripts run.

    Styles stay free, because plotly.js sets them; a style cannot run anything, and no picture can be fetched from
    elsewhere.

    Args:
        scripts: digests of the scripts that may run.
        has_pictures: whether it shows pictures that are files beside it.
    """
    rules = {
        "default-src": ["'none'"],
        "script-src": [f"'{script}'" for script in scripts],
        "style-src": ["'unsafe-inline'"],
        "img-src": ["data:", "blob:", *(["'self'"] if has_pictures else [])],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return "; ".join(" ".join([name, *values]) for name, values in rules.items())


def script_json(value: Any) -> str:
    """Return JSON that can be inside a script element: nothing in it can end the element or start another."""
    written = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written
