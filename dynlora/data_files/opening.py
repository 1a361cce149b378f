"""Files opened for reading: unpacked within a limit, and as UTF-8 whatever their encoding; a refusal names the line."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np

from dynlora.errors import DataError
from dynlora.safe_files import why_not_a_file
from dynlora.text import is_text, printable

Encoding = Literal[
    "utf-8",
    "utf-16",
    "windows-1252",
    "latin-1",
    "windows-1250",
    "iso-8859-2",
    "iso-8859-15",
    "windows-1251",
    "koi8-r",
    "windows-1253",
    "windows-1254",
    "windows-1255",
    "windows-1256",
    "shift-jis",
    "euc-jp",
    "gb18030",
    "big5",
    "euc-kr",
]

ENCODINGS: tuple[str, ...] = get_args(Encoding)
"""Their names, as a configuration holds them."""

CODECS = {"shift-jis": "cp932", "euc-kr": "cp949"}
"""Python's name of an encoding, where another one holds more of what such files hold."""


FORMATS = {
    ".csv": "CSV",
    ".tsv": "TSV",
    ".json": "JSON",
    ".jsonl": "JSON lines",
    ".parquet": "Parquet",
    ".xlsx": "Excel",
}
"""File endings that are read, each also with .gz behind it, and what the format is called."""

MAX_UNPACKED = 256 * 2**20
"""A .gz file, or a workbook, that is larger than this once unpacked is refused: a few bytes can stand for any size."""

MAX_LINE_BYTES = 4 * 2**20
"""A line longer than this is refused: such a file is no table of texts."""

MAX_COLUMNS = 2000
NO_TEXT = "is not valid text (bytes that are not UTF-8, or half of a surrogate pair); correct or remove it"
_CHUNK = 2**20
_KNOWN_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


_NO_BYTES = np.zeros(256, np.int64)
_NOT_IN_WINDOWS = [0x81, 0x8D, 0x8F, 0x90, 0x9D]
"""Bytes that are no character in Windows-1252."""


class FileError(DataError):
    """Something is wrong with a file; the message begins with the file's name."""


class LongRowError(FileError):
    """A row has more cells than the header, which `DROP_LONG_ROWS` leaves out."""


DROP_LONG_ROWS = "drop_long_rows"
"""The repair that reading carries out: rows with more cells than the header are left out."""


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
        path: where it is.
        data: its bytes where they are not those on the disk: unpacked, or in another encoding.
        encoding: of its text as it is on the disk, as people call it.
        wanted: one of `encodings.ENCODINGS` that was given for its text; None: found from the bytes.
        guess: the encoding where the bytes do not say which it is, else empty.
        drops_long_rows: rows of a CSV file with more cells than the header are left out.
    """

    path: Path
    data: bytes | None = None
    encoding: str = "UTF-8"
    wanted: str | None = None
    guess: str = ""
    drops_long_rows: bool = False

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


def opened(path: Path, encoding: str | None = None) -> Source:
    """Return the bytes of a file, unpacked where it is a .gz.

    Args:
        path: of the file.
        encoding: of its text, one of `encodings.ENCODINGS`; None: found from the bytes.

    Raises:
        DataError: when it is missing, empty, no .gz, or too large once unpacked.
    """
    if problem := why_not_a_file(path):
        raise refusal(str(path), problem)
    if path.stat().st_size == 0:
        raise refusal(path.name, f"the file is empty; {to_add(path)}")
    if path.suffix.lower() != ".gz":
        return Source(path, wanted=encoding)
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error):
        raise refusal(path.name, "is not a whole gzip file; pack it again with gzip, or give it unpacked") from None
    if len(data) > MAX_UNPACKED:
        limit = f"{MAX_UNPACKED // 2**20} MiB"
        raise refusal(path.name, f"has more than {limit} once unpacked; unpack it and give the unpacked file")
    if not data:
        raise refusal(path.name, f"holds an empty file; {to_add(path)}")
    return Source(path, data, wanted=encoding)


def to_add(path: Path) -> str:
    """Return what is missing in an empty file of that name."""
    return f"write {ROWS_OF[ending]}" if (ending := ending_of(path)) in ROWS_OF else "add a header line and rows"


ROWS_OF = {".json": "a list of objects [{...}, {...}]", ".jsonl": "one object {...} on each line"}
"""How rows are written in files without a header line, by their ending."""


def as_utf8(source: Source, *, in_lines: bool = True) -> Source:
    """Return text as UTF-8, whatever it was in; the encoding that was taken is named in the result.

    Without one that was given: UTF-8 with and without a byte-order mark, UTF-16 and UTF-32; else Windows-1252 or
    Latin-1, which is a guess, because every byte is a character in those two. UTF-8 that is damaged in places is told
    from them by counting: it holds more sequences that are valid than bytes that are not.

    Args:
        source: bytes of a text file.
        in_lines: refuse a line longer than `MAX_LINE_BYTES`.

    Raises:
        DataError: when it is no text, is damaged, or has a line that is too long.
    """
    with source.open() as file:
        head = file.read(4096)
    if source.wanted is not None:
        source = _as_given(source, source.wanted)
    elif wide := _wide_encoding(head):
        source = replace(source, data=_decoded(source, wide[0]), encoding=wide[1])
    elif not _is_utf8(source):
        source = _of_single_bytes(source)
    if in_lines:
        _refuse_long_lines(source)
    return source


def _wide_encoding(head: bytes) -> tuple[str, str] | None:
    """Return Python's name of an encoding of two or four bytes a character, and what people call it."""
    for mark, encoding in _KNOWN_MARKS:
        if head.startswith(mark):
            return encoding.lower(), encoding
    pairs = len(head) // 2
    if pairs and head[1::2].count(0) > 0.4 * pairs > 10 * head[::2].count(0):
        return "utf-16-le", "UTF-16"
    if pairs and head[::2].count(0) > 0.4 * pairs > 10 * head[1::2].count(0):
        return "utf-16-be", "UTF-16"
    return None


def _decoded(source: Source, encoding: str) -> bytes:
    """Return text of two or four bytes a character as UTF-8; a NUL, which no text holds, is refused."""
    try:
        text = source.whole().decode(encoding)
    except UnicodeDecodeError:
        raise refusal(source.name, f"is not whole {encoding[:6].upper()} text; save it as UTF-8") from None
    return _without_nul(source.name, text).encode("utf-8")


def _as_given(source: Source, encoding: str) -> Source:
    """Return text of the encoding that was given for it.

    Raises:
        DataError: when it is no text of that encoding.
    """
    data = source.whole()
    try:
        text = _without_nul(source.name, data.decode(CODECS.get(encoding, encoding)))
    except UnicodeDecodeError as error:
        line = None if encoding == "utf-16" else data.count(b"\n", 0, error.start) + 1
        problem = f"is not {encoding} text (data.encoding={encoding}); give its encoding, or none to have it found"
        raise refusal(source.name, problem, line) from None
    return replace(source, data=text.removeprefix("\ufeff").encode("utf-8"), encoding=encoding)


def _without_nul(name: str, text: str) -> str:
    """Return a text that holds no NUL."""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise refusal(name, "holds a NUL character, so it is not text; save the table as CSV in UTF-8", line)
    return text


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
                raise refusal(source.name, "holds NUL bytes, so it is not text; save the table as CSV in UTF-8")
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _of_single_bytes(source: Source) -> Source:
    """Return text of one byte a character; UTF-8 that is damaged in places is refused instead."""
    data = source.whole()
    counts = sum((np.bincount(np.frombuffer(chunk, np.uint8), minlength=256) for chunk in _chunks(source)), _NO_BYTES)
    valid = data.decode("utf-8", "ignore")
    broken, sequences = len(data) - len(valid.encode("utf-8")), len(valid) - int(counts[:0x80].sum())
    if sequences > broken:
        line = data.count(b"\n", 0, _first_broken(data)) + 1
        raise refusal(source.name, "has bytes that are not UTF-8, unlike the rest; correct or remove them", line)
    if (counts[:9].sum() + counts[14:32].sum()) * 50 > len(data):
        raise refusal(source.name, "is not text; save the table as CSV in UTF-8")
    is_windows = counts[0x80:0xA0].any() and not counts[_NOT_IN_WINDOWS].any()
    codec, encoding = ("cp1252", "Windows-1252") if is_windows else ("latin-1", "Latin-1")
    return replace(source, data=data.decode(codec).encode("utf-8"), encoding=encoding, guess=encoding)


def _first_broken(data: bytes) -> int:
    """Return the position of the first byte that is no UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return len(data)


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
    """Return the names of the columns of a file, which must be few enough, texts, and each there once.

    Raises:
        DataError: when they are more than `MAX_COLUMNS`, or one of them is no text, or that of two columns.
    """
    if len(names) > MAX_COLUMNS:
        problem = f"has {len(names):,} columns, at most {MAX_COLUMNS:,} can be read; keep the text and label columns"
        raise refusal(name, problem, line, unit)
    if not all(is_text(each) and "\0" not in each for each in names):
        raise refusal(name, "has a column whose name is not valid text, or holds a NUL; rename it", line, unit)
    if len(set(names)) < len(names):
        twice = next((each for each in names if names.count(each) > 1 and each.strip()), None)
        if twice is not None:  # columns without a name are none
            raise refusal(name, f"two columns are called {printable(twice, 40)}; rename one", line, unit)
    return names


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says of an error, cut."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0], 150)
