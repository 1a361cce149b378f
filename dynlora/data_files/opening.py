"""Files opened for reading: unpacked within a limit, and as UTF-8 whatever their encoding; a refusal names the line."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dynlora.errors import DataError
from dynlora.safe_files import printable

FORMATS = {
    ".csv": "CSV", ".tsv": "TSV", ".json": "JSON", ".jsonl": "JSON lines", ".parquet": "Parquet", ".xlsx": "Excel",
}  # fmt: skip
"""File endings that are read, each also with .gz behind it, and what the format is called."""

MAX_UNPACKED = 256 * 2**20
"""A .gz file, or a workbook, that is larger than this once unpacked is refused: a few bytes can stand for any size."""

MAX_LINE_BYTES = 4 * 2**20
"""A line longer than this is refused: such a file is no table of texts."""

MAX_COLUMNS = 2000
_CHUNK = 2**20
_KNOWN_MARKS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"),
                (codecs.BOM_UTF16_BE, "UTF-16"))  # fmt: skip


class FileError(DataError):
    """Something is wrong with a file; the message begins with the file's name."""


def refusal(name: str, problem: str, line: int | None = None, unit: str = "line") -> FileError:
    """Return the error for something wrong with a file: its name, the line where there is one, rule and remedy."""
    place = "" if line is None else f", {unit} {line:,}"
    return FileError(f"{printable(name, 120)}{place}: {problem}")


def ending_of(path: Path) -> str:
    """Return the ending that says a file's format, in small letters; that before `.gz` where it is packed."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return suffixes[0] if len(suffixes) == 2 and suffixes[1] == ".gz" else "".join(suffixes[-1:])


def stem_of(path: Path) -> str:
    """Return a file's name without the endings of format and packing."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).stem


def is_table(path: Path) -> bool:
    """Say whether the name is that of a table that can be read."""
    return ending_of(path) in FORMATS


def endings_text() -> str:
    """Return the endings that are read, for a message."""
    return f"{', '.join(FORMATS)}, each also with .gz"


@dataclass(frozen=True)
class Source:
    """The bytes of a file.

    Attributes:
        path: where it lies.
        data: its bytes where they are not those on the disk: unpacked, or in another encoding.
        encoding: of its text as it lies on the disk.
    """

    path: Path
    data: bytes | None = None
    encoding: str = "UTF-8"

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def open(self) -> BinaryIO:
        """Return the bytes from the start; whoever gets them closes them."""
        return self.path.open("rb") if self.data is None else io.BytesIO(self.data)

    def whole(self) -> bytes:
        """Return all bytes."""
        return self.path.read_bytes() if self.data is None else self.data


def opened(path: Path) -> Source:
    """Return the bytes of a file, unpacked where it is a .gz.

    Raises:
        DataError: when it is missing, empty, no .gz, or too large once unpacked.
    """
    if not path.is_file():
        problem = "is not a file; give a file" if path.exists() else "does not exist; check the path"
        raise refusal(path.name, problem)
    if path.stat().st_size == 0:
        raise refusal(path.name, "the file is empty; add a header line and rows")
    if path.suffix.lower() != ".gz":
        return Source(path)
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error):
        raise refusal(path.name, "is not a whole gzip file; pack it again with gzip, or give it unpacked") from None
    if len(data) > MAX_UNPACKED:
        limit = f"{MAX_UNPACKED // 2**20} MiB"
        raise refusal(path.name, f"has more than {limit} once unpacked; unpack it and give the unpacked file")
    if not data:
        raise refusal(path.name, "holds an empty file; add a header line and rows")
    return Source(path, data)


def as_utf8(source: Source, *, in_lines: bool = True) -> Source:
    """Return text as UTF-8, whatever it was in; the encoding that was taken is named in the result.

    UTF-8 with and without a byte-order mark, UTF-16 and UTF-32; else Windows-1252 or Latin-1. Every byte is a
    character in those two, so a damaged file is recognised only by the words that its bytes spell.

    Args:
        source: bytes of a text file.
        in_lines: refuse a line longer than `MAX_LINE_BYTES`.

    Raises:
        DataError: when it is no text, is damaged, or has a line that is too long.
    """
    with source.open() as file:
        head = file.read(4096)
    if wide := _wide_encoding(head):
        source = Source(source.path, _decoded(source, wide[0]).encode("utf-8"), wide[1])
    elif not _is_utf8(source):
        source = _of_single_bytes(source)
    if in_lines:
        _refuse_long_lines(source)
    return source


def _wide_encoding(head: bytes) -> tuple[str, str] | None:
    """Return Python's name of an encoding of two or four bytes a character, and what people call it."""
    for mark, said in _KNOWN_MARKS:
        if head.startswith(mark):
            return said.lower(), said
    pairs = len(head) // 2
    if pairs and head[1::2].count(0) > 0.4 * pairs > 10 * head[::2].count(0):
        return "utf-16-le", "UTF-16"
    if pairs and head[::2].count(0) > 0.4 * pairs > 10 * head[1::2].count(0):
        return "utf-16-be", "UTF-16"
    return None


def _decoded(source: Source, encoding: str) -> str:
    """Return text of two or four bytes a character."""
    try:
        return source.whole().decode(encoding)
    except UnicodeDecodeError:
        raise refusal(source.name, f"is not whole {encoding[:6].upper()} text; save it as UTF-8") from None


def _chunks(source: Source) -> Iterator[bytes]:
    """Yield the bytes piece by piece."""
    with source.open() as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _is_utf8(source: Source) -> bool:
    """Say whether the bytes are UTF-8; a NUL, which no text holds, is refused."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(source):
            if b"\0" in chunk:
                raise refusal(source.name, "holds NUL bytes, so it is no text; save the table as CSV in UTF-8")
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _of_single_bytes(source: Source) -> Source:
    """Return text of one byte a character; UTF-8 that is damaged in places is refused instead."""
    data = source.whole()
    text = data.decode("utf-8", "surrogateescape")
    broken = sum("\udc80" <= character <= "\udcff" for character in text)
    if sum(character > "\x7f" for character in text) - broken > broken:
        first = next(place for place, character in enumerate(text) if "\udc80" <= character <= "\udcff")
        line = text.count("\n", 0, first) + 1
        raise refusal(source.name, "has bytes that are no UTF-8, unlike the rest; correct or remove them", line)
    if sum(data.count(bytes([control])) for control in (*range(9), *range(14, 32))) * 50 > len(data):
        raise refusal(source.name, "is no text; save the table as CSV in UTF-8")
    encoding, said = ("cp1252", "Windows-1252") if any(0x80 <= byte < 0xA0 for byte in set(data)) else ("latin-1", "")
    try:
        decoded = data.decode(encoding)
    except UnicodeDecodeError:
        decoded, said = data.decode("latin-1"), ""
    return Source(source.path, decoded.encode("utf-8"), said or "Latin-1")


def _refuse_long_lines(source: Source) -> None:
    """Refuse a line that is too long."""
    number, length = 1, 0
    for chunk in _chunks(source):
        first, *others = chunk.split(b"\n")
        for part, following in ((first, False), *((part, True) for part in others)):
            number, length = (number + 1, len(part)) if following else (number, length + len(part))
            if length > MAX_LINE_BYTES:
                problem = f"is longer than {MAX_LINE_BYTES // 2**20} MiB; break the file into lines, one row each"
                raise refusal(source.name, problem, number)


def checked_columns(name: str, names: list[str], line: int | None = None, unit: str = "line") -> list[str]:
    """Return the names of the columns of a file, which must be few enough.

    Raises:
        DataError: when they are more than `MAX_COLUMNS`.
    """
    if len(names) > MAX_COLUMNS:
        problem = f"has {len(names):,} columns, at most {MAX_COLUMNS:,} can be read; keep the text and label columns"
        raise refusal(name, problem, line, unit)
    return names


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says of an error, cut."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0], 150)
