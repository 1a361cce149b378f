"""Encodings of text files that can be given where the bytes do not say theirs."""

from __future__ import annotations

from typing import Literal, get_args

Encoding = Literal[
    "utf-8", "utf-16", "windows-1252", "latin-1", "windows-1250", "iso-8859-2", "iso-8859-15", "windows-1251", "koi8-r",
    "windows-1253", "windows-1254", "windows-1255", "windows-1256", "shift-jis", "euc-jp", "gb18030", "big5", "euc-kr",
]  # fmt: skip

ENCODINGS: tuple[str, ...] = get_args(Encoding)
"""Their names, as a configuration holds them."""

CODECS = {"shift-jis": "cp932", "euc-kr": "cp949"}
"""Python's name of an encoding, where another one holds more of what such files hold."""
