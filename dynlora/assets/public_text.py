"""The public text in the package: sentences of books and documents in the public domain, one a line."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

PUBLIC_TEXT = Path(__file__).with_name("public_text.txt")


def public_sentences() -> list[str]:
    """Return the public text, a sentence each."""
    return [line for line in PUBLIC_TEXT.read_text("utf-8").splitlines() if line.strip()]


def digest_of(sentences: Sequence[str]) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256("\n".join(sentences).encode()).hexdigest()
