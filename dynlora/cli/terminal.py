"""A terminal: text of others is shown and never obeyed; and the exit code of a run that ended."""

from __future__ import annotations

import re
import signal
import sys
from typing import Any

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but tab and line feed, which our own tables use; what turns the direction of writing round; surrogates."""


def shown(text: str) -> str:
    r"""Return text without anything that drives a terminal, or that it cannot encode.

    An escape becomes the four characters `\x1b`, a byte of the command line that is not UTF-8 the six `\udcff`.
    """
    safe = _COMMANDS.sub(lambda match: ascii(match.group())[1:-1], text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def exit_code(outcome: Any) -> int:
    """Return 0 for a run that finished, 1 for one that failed, and 128 and the signal for one that was stopped."""
    return {"finished": 0, "failed": 1}.get(outcome.state, 128 + (outcome.signal or signal.SIGTERM))
