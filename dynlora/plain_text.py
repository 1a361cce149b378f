"""Text of others that is to be shown or stored: whole characters, printable, of a bounded length."""

from __future__ import annotations

import math


def clean_text(text: str) -> str:
    """Return the text with a question mark in the place of each lone surrogate, which nothing can encode."""
    return text if is_text(text) else text.encode("utf-8", "replace").decode("utf-8")


def is_text(text: str) -> bool:
    """Say whether text can be encoded: a lone surrogate, half of a character, cannot."""
    try:
        return text.isascii() or bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def as_text(value: object) -> str:
    """Return a value as text for a message; of a whole number that is too long for that, its number of digits."""
    try:
        return str(value)
    except (ValueError, RecursionError):
        if isinstance(value, int):
            return f"a whole number of {int(value.bit_length() * math.log10(2)) + 1:,} digits"
        return f"a {type(value).__name__} that cannot be shown"


def printable(text: object, limit: int = 80) -> str:
    """Return text of an untrusted file for a message: printable, on one line, cut to `limit` characters."""
    plain = "".join(filter(str.isprintable, as_text(text)))
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
