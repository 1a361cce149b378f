"""The token that lets another machine's browser launch and delete, where the dashboard is served beyond this one.

It comes from a file or the environment, is asked for on the page, and never is in an address, a log or a list of
arguments.
"""

from __future__ import annotations

import hmac
import os
import threading
import time
from pathlib import Path

from dynlora.errors import ConfigError
from dynlora.jobs.environment import TOKEN_VARIABLE
from dynlora.safe_files import read_plain

MIN_LENGTH = 16
MAX_LENGTH = 512
WRONG_COSTS_S = 1.0
"""How long a wrong token is thought about, one at a time over the whole server."""

_one_at_a_time = threading.Lock()


def read_token(path: Path | None) -> str | None:
    """Return the token in a file, else that of the environment; None when neither holds one.

    Raises:
        ConfigError: when the file cannot be read, or the token is too short, too long or holds odd characters.
    """
    if path is None:
        source, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    else:
        source = f"--token-file {path}"
        found = read_plain(os.path.realpath(path), MAX_LENGTH + 2)  # secrets are often mounted as links
        if found is None:
            raise ConfigError(
                f"{source}: is not a regular file of at most {MAX_LENGTH} characters; write the token into such a file"
            )
        token = found.strip()
    if not MIN_LENGTH <= len(token) <= MAX_LENGTH or not (token.isascii() and token.isprintable()):
        raise ConfigError(
            f"{source}: has {len(token)} characters; give {MIN_LENGTH} to {MAX_LENGTH} letters, digits and "
            "signs, such as the output of `openssl rand -hex 16`"
        )
    return token


def is_token(entered: str) -> bool:
    """Say whether this is the token of the environment, in a time that tells nothing about it; a wrong one takes long.

    Without a token nothing is one.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if token and hmac.compare_digest(entered.strip().encode("utf-8", "replace"), token.encode("utf-8", "replace")):
        return True
    with _one_at_a_time:
        time.sleep(WRONG_COSTS_S)
    return False
