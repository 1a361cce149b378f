"""What of an address may be shown, stored or logged: where something is, never how one is let in.

User, password, query and fragment may hold a password or a token, so none of them leaves the process that was given the
address. Addresses are those of fsspec (`s3://bucket/runs`), of the web, and of databases as SQLAlchemy reads them.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

HIDDEN = "***"
"""What a text shows in the place of a secret."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]*")
_USER = re.compile(r"[^:/@?#]*:(?!\d{1,5}(?:/|$))[^@]*@(?:[^/?#]*@)?")
"""User and password as SQLAlchemy reads them: a password may hold '/', '?' and '#'. A port is no password.

A password may also hold an '@' that should have been written %40: the host begins after the last one before a path.
"""

_SHORTEST = 4
"""Characters of a value of a query, or of a part of a password between two '@', that is taken out wherever a text has
it: a shorter one would blot out words."""


def is_url(text: object) -> bool:
    """Say whether a place is written as an address, such as `s3://bucket/runs`, and not as a path."""
    return isinstance(text, str) and _URL.match(text) is not None


def without_secrets(address: str) -> str:
    """Return an address without user, password, query and fragment; a path stays as it is."""
    if not is_url(address):
        return address
    scheme, _, rest = address.partition("://")
    host, slash, path = rest[_end_of_user(rest) :].partition("/")
    host = re.split("[?#]", host)[0].rpartition("@")[2]
    return f"{scheme}://{host}{slash}{re.split('[?#]', path)[0]}"


def _end_of_user(rest: str) -> int:
    """Return where the host begins in what follows `://`, where user and password are before it."""
    user = _USER.match(rest)
    return user.end() if user else 0


def secrets_of(address: str | os.PathLike[str]) -> list[str]:
    """Return the parts of an address that no text may hold, as they are written and decoded, the longest first.

    The name of a user is one of them only where there is no password: it may be a token then.
    """
    if not isinstance(address, str) or not is_url(address):
        return []
    rest = address.partition("://")[2]
    end = _end_of_user(rest)
    login = (rest[:end] or re.split("[/?#]", rest)[0]).rpartition("@")[0]
    query = re.split("[?#]", rest[end:], maxsplit=1)[1:]
    password = login.partition(":")[2]
    values = [part.partition("=")[2] for text in query for part in re.split("[&#?]", text)]
    values += password.split("@")  # a library that ends the password at the first takes the rest for the host
    parts = {login, password, *query, *(value for value in values if len(value) >= _SHORTEST)}
    forms = {form for part in parts for form in (part, unquote(part)) if form}
    return sorted(forms, key=len, reverse=True)


def hidden(text: str, *addresses: str | os.PathLike[str]) -> str:
    """Return a text fit to be shown: addresses in it without their secrets, and no secret of these addresses anywhere.

    Args:
        text: such as what a library says went wrong.
        addresses: that were used.
    """
    for address in addresses:
        text = text.replace(str(address), without_secrets(str(address)))
        for secret in secrets_of(address):
            text = text.replace(secret, HIDDEN)
    return _IN_TEXT.sub(lambda match: _without_end(match.group()), text)


def _without_end(url: str) -> str:
    """Return an address of a text without its secrets; the text's own punctuation after it stays."""
    bare = url.rstrip(".,;:)]}")
    return (without_secrets(bare) if any(sign in bare for sign in "@?#") else bare) + url[len(bare) :]
