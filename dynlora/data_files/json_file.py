"""JSON: a row per line, a list of rows, or an object that holds such a list."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.json as arrow_json

from dynlora.data_files.opening import ROWS_OF, Source, as_utf8, checked_columns, refusal
from dynlora.data_files.table import ARROW_REFUSALS, Table, as_text_note, like, of_columns, plain
from dynlora.errors import DataError

PIECE_BYTES = 10 * 2**20
"""A file is read in pieces of this size, which end with a line; their types follow the first."""

NO_LINES = f"has no rows; write {ROWS_OF['.jsonl']}"
_SPACE = re.compile(r"[ \t\r\n]*")


class _TwiceError(ValueError):
    """A key is there twice in an object: which value counts would be a matter of the reader."""


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, whose keys must be there once.

    Raises:
        _TwiceError: naming the key.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(f"the key {next(key for key in keys if keys.count(key) > 1):.40} is there twice")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_object_of)


def read(source: Source, limit: int | None = None) -> Table:
    """Return the table of a JSON or JSON lines file.

    Args:
        source: its bytes.
        limit: most rows that are read of a file in lines; None for all.

    Raises:
        DataError: in one sentence with the line.
    """
    source = as_utf8(source, in_lines=_is_named_lines(source))
    with source.open() as file:
        lines = (line.removeprefix(b"\xef\xbb\xbf") for line in iter(lambda: file.readline(PIECE_BYTES), b""))
        first = next((line for line in lines if line.strip()), b"")
        more = file.read(2**16)
    if not first and _is_named_lines(source):
        raise refusal(source.name, NO_LINES)
    is_list = first.lstrip().startswith(b"[")
    if first.strip() and not is_list and (_is_named_lines(source) or _is_row(first, bool(more.strip()))):
        return _read_lines(source, limit)
    return _read_whole(source)


def _is_named_lines(source: Source) -> bool:
    return source.name.lower().removesuffix(".gz").endswith(".jsonl")


def _is_row(line: bytes, has_more: bool) -> bool:
    """Say whether the first line is a row, and not an object that holds all rows."""
    try:
        parsed = _DECODER.decode(line.decode())
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and (has_more or not any(isinstance(value, list) for value in parsed.values()))


# --- a row a line


def _read_lines(source: Source, limit: int | None) -> Table:
    """Return the rows of a file with an object on each line."""
    places, lines = _object_lines(source, limit)
    if not places:
        raise refusal(source.name, NO_LINES)
    data = lines if lines is not None else source.whole().removeprefix(b"\xef\xbb\xbf")
    mixed: list[str] = []
    try:
        rows = _typed(data)
        if rows.num_rows != len(places):
            raise pa.ArrowInvalid("another number of rows")
    except ARROW_REFUSALS:
        rows, mixed = _of_rows([_DECODER.decode(line.decode()) for line in data.split(b"\n") if line.strip()])
    checked_columns(source.name, rows.column_names)
    return Table.of(source.name, rows, places, (source.encoding, *as_text_note(mixed)), source.guess)


def _object_lines(source: Source, limit: int | None) -> tuple[list[int], bytes | None]:
    """Return the lines that hold a row, each checked to be an object; and their text where only some are wanted."""
    places: list[int] = []
    texts: list[bytes] = []
    with source.open() as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            if limit is not None and len(places) >= limit:
                break
            _check_object(source.name, text, number)
            places.append(number)
            if limit is not None:
                texts.append(text)
    return places, b"".join(texts) if limit is not None else None


def _check_object(name: str, line: bytes, number: int) -> None:
    """Refuse a line that is no object."""
    try:
        row = _DECODER.decode(line.decode())
    except (ValueError, RecursionError) as error:
        problem = getattr(error, "msg", "") or _why(error)
        column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise refusal(name, f"is not JSON ({problem}{column}); write one object {{...}} on each line", number) from None
    if not isinstance(row, dict):
        raise refusal(name, "is not an object; write one object {...} on each line", number)
    checked_columns(name, list(row), number)


def _typed(data: bytes) -> pa.Table:
    """Return rows with the types that pyarrow sees, piece by piece."""
    tables = [plain(_typed_piece(piece)) for piece in _pieces(data)]
    schema = tables[0].schema
    whole = [table if table.schema.equals(schema) else like(table, schema) for table in tables]
    return pa.concat_tables(whole)


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield pieces that end with a line."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + PIECE_BYTES)
        end = len(data) if end < 0 else end + 1
        yield data[start:end]
        start = end


def _typed_piece(piece: bytes) -> pa.Table:
    """Return the rows of a piece; blocks are made larger until each holds whole rows."""
    block = max(PIECE_BYTES // 32, 2**14)
    while True:
        try:
            rows = arrow_json.read_json(io.BytesIO(piece), read_options=arrow_json.ReadOptions(block_size=block))
            rows.validate()
            return rows
        except pa.ArrowInvalid as error:
            if not ("straddling" in str(error) or "JSON conversion to" in str(error)) or block >= len(piece):
                raise
            block *= 2


# --- a list of rows, or an object that holds one


def _read_whole(source: Source) -> Table:
    """Return the rows of a file that is one list, or one object with a list."""
    text = source.whole().decode("utf-8-sig")
    if (columns := _columns(source.name, text)) is not None:
        rows, mixed = of_columns(columns)
        notes = (source.encoding, "a list for each column", *as_text_note(mixed))
        return Table.of(source.name, rows, None, notes, source.guess)
    start, key = _start_of_rows(source.name, text)
    items, places, end = _items(source.name, text, start)
    if not key:
        _check_end(source.name, text, end)
    if items and all(isinstance(item, str) for item in items):
        items = [{"text": item} for item in items]
    for item, line in zip(items, places, strict=True):
        if not isinstance(item, dict):
            raise refusal(source.name, "a row that is not an object {...}; write each row as an object", line)
        checked_columns(source.name, list(item), line)
    if not items:
        raise refusal(source.name, "has no rows; write a list of objects [{...}, {...}]")
    mixed: list[str] = []
    try:
        rows = plain(_typed_piece("\n".join(json.dumps(item) for item in items).encode()))
    except ARROW_REFUSALS:
        rows, mixed = _of_rows(items)
    notes = (source.encoding, *([f"rows of {key!r}"] if key else []), *as_text_note(mixed))
    return Table.of(source.name, rows, places, notes, source.guess)


def _columns(name: str, text: str) -> dict[str, list[Any]] | None:
    """Return the columns of an object with a list of as many values for each, None where it is none."""
    columns = _object(name, text)
    lists = [value for value in columns.values() if isinstance(value, list)]
    is_text_alone = list(columns) == ["text"] and bool(lists) and all(isinstance(each, str) for each in lists[0])
    if (len(lists) < 2 and not is_text_alone) or len(lists) < len(columns) or len({len(value) for value in lists}) > 1:
        return None
    if any(isinstance(value[0], dict) for value in lists if value):
        return None
    checked_columns(name, list(columns))
    return columns


def _object(name: str, text: str) -> dict[str, Any]:
    """Return the object that a text is, empty where it begins with something else."""
    start = _skip(text, 0)
    if text[start : start + 1] != "{":
        return {}
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise _not_json(name, error) from None
    _check_end(name, text, end)
    return value


def _check_end(name: str, text: str, end: int) -> None:
    """Refuse anything but white space after a JSON value: it would be left out without a word."""
    rest = _skip(text, end)
    if rest < len(text):
        line = text.count("\n", 0, rest) + 1
        raise refusal(name, "continues after its list of rows ends; write one list, or one object on each line", line)


def _value_place(text: str, name: str) -> int:
    """Return where the value of a key begins in the object that a text is; of a key that is there twice, the last."""
    place, position = 0, _skip(text, _skip(text, 0) + 1)
    while text[position] != "}":
        key, position = _DECODER.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)  # over the colon
        place = position if key == name else place
        position = _skip(text, _DECODER.raw_decode(text, position)[1])
        position = _skip(text, position + 1) if text[position] == "," else position
    return place


def _start_of_rows(name: str, text: str) -> tuple[int, str]:
    """Return where the list of rows begins in a text, and under which key it is; no key for a bare list."""
    start = _skip(text, 0)
    if text[start : start + 1] != "{":
        return start, ""
    whole = _object(name, text)
    key = _rows_key(whole)
    if key is None:
        lists = [str(each) for each, value in whole.items() if isinstance(value, list)]
        if len(lists) > 1:
            names = ", ".join(lists[:4])
            raise refusal(name, f"holds several lists ({names}); save each as a file of its own, such as train.json")
        raise refusal(name, "is one object without a list of rows; write a list of objects [{...}, {...}]")
    return _value_place(text, key), key


def _rows_key(whole: Mapping[str, Any]) -> str | None:
    """Return the key under which an object holds its rows: the only list of objects in it."""
    lists = [key for key, value in whole.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    others = [key for key, value in whole.items() if isinstance(value, str | int | float) and key in ("text", "label")]
    return lists[0] if len(lists) == 1 and not others else None


def _items(name: str, text: str, start: int) -> tuple[list[Any], list[int], int]:
    """Return the items of a list, the line in which each begins, and where in the text the list ends."""
    items: list[Any] = []
    places: list[int] = []
    line, counted = 1, 0
    position = _skip(text, start + 1)
    if text[start : start + 1] != "[":
        raise refusal(name, "is not JSON; write a list of objects [{...}, {...}]", 1)
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            item, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise _not_json(name, error) from None
        items.append(item)
        places.append(line)
        position = _skip(text, position)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            wrong = text.count("\n", 0, position) + 1
            raise refusal(name, "is not JSON (a comma or ] is missing); check the file", wrong)
    return items, places, position + 1


def _skip(text: str, position: int) -> int:
    """Return the next position that is no white space."""
    match = _SPACE.match(text, position)
    return position if match is None else match.end()


def _not_json(name: str, error: Exception) -> DataError:
    """Return the sentence for text that is no JSON."""
    if isinstance(error, json.JSONDecodeError):
        return refusal(name, f"is not JSON ({error.msg}, column {error.colno}); check the file", error.lineno)
    return refusal(name, f"{_why(error)}; write a list of flat objects [{{...}}, {{...}}]")


def _why(error: Exception) -> str:
    """Return why JSON that is written as it should be cannot be read: too deep, a key twice, or a number too long."""
    if isinstance(error, _TwiceError):
        return str(error)
    is_deep = isinstance(error, RecursionError)
    return "is nested too deep" if is_deep else "holds a whole number of thousands of digits, which no table can hold"


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[pa.Table, list[str]]:
    """Return a table of objects, and the columns that are text because their values are of several types."""
    names = dict.fromkeys(key for row in rows for key in row)
    return of_columns({name: [row.get(name) for row in rows] for name in names})
