"""Text that is none: every reader refuses it with its place, or repairs it; what is read can be shown and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynlora.cli.main import main
from dynlora.config import parse_config
from dynlora.data_files import columns, reader, scan
from dynlora.engine.data.tables import dataset_of
from dynlora.errors import DataError
from dynlora.inference.session import texts_of
from dynlora.text import is_text
from tests.data_files.files import write_saved

ANY_TEXT = st.text(st.characters(), max_size=6) | st.sampled_from(["\ud800", "\udfff", "\ude00\ud83d", "a\ud800b"])
"""Also with surrogates that belong to no pair, which `st.text` leaves out."""

ANY_BYTES = st.binary(max_size=6) | st.sampled_from(
    [b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xc0\xaf", b"\xf5\x80\x80\x80"]
)
ROWS = st.lists(ANY_TEXT, min_size=2, max_size=4)


def _as_strings(cells: Sequence[bytes]) -> pa.Array:
    return pa.array(cells, pa.binary()).view(pa.string())


def _write_parquet(path: Path, texts: Sequence[bytes], column: str = "text") -> None:
    parquet.write_table(pa.table({column: _as_strings(texts), "label": list(range(len(texts)))}), path)


def _write_messages(path: Path, texts: Sequence[bytes]) -> None:
    message = pa.StructArray.from_arrays([pa.array(["user"] * len(texts)), _as_strings(texts)], ["role", "content"])
    cells = pa.ListArray.from_arrays(list(range(len(texts) + 1)), message)
    parquet.write_table(pa.table({"messages": cells}), path)


def _write_saved(path: Path, texts: Sequence[bytes]) -> None:
    write_saved(path, [{"text": "x", "label": 1}])
    table = pa.table({"text": _as_strings(texts), "label": list(range(len(texts)))})
    with pa.ipc.new_stream(path / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)


def _json(rows: Sequence[str], how: str) -> str:
    objects = [{"text": text, "label": number} for number, text in enumerate(rows)]
    if how == "columns":
        return json.dumps({"text": list(rows), "label": list(range(len(rows)))})
    if how == "lines":
        return "".join(json.dumps(row) + "\n" for row in objects)
    if how == "messages":
        return "".join(json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n" for text in rows)
    if how == "names":
        return "".join(json.dumps({text: "x", "label": 1}) + "\n" for text in rows)
    return json.dumps({"data": objects} if how == "object" else objects if how == "list" else list(rows))


READERS: dict[str, tuple[str, Callable[[Path, list[str]], Any]]] = {
    **{
        f"JSON {how}": (
            "a.jsonl" if how in ("lines", "messages", "names") else "a.json",
            lambda path, rows, how=how: path.write_text(_json(rows, how)),
        )
        for how in ("lines", "list", "object", "columns", "texts", "messages", "names")
    },
    **{
        name: (file, lambda path, rows, write=write: write(path, [_encoded(text) for text in rows]))
        for name, file, write in (
            ("Parquet", "a.parquet", _write_parquet),
            ("Parquet messages", "b.parquet", _write_messages),
            ("saved by datasets", "saved", _write_saved),
        )
    },
    **{
        f"bytes of {name}": (name, lambda path, rows, head=head: path.write_bytes(head + _lines(rows)))
        for name, head in (("a.csv", b"text,label\n"), ("a.tsv", b"text\tlabel\n"), ("a.jsonl", b""), ("a.txt", b""))
    },
}
"""A way to write texts that may be broken, by what reads it back."""


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _lines(rows: Sequence[str]) -> bytes:
    return b"".join(_encoded(text.replace("\n", " ")) + b",1\n" for text in rows)


def check_reader(kind: str, rows: list[str], folder: Path) -> None:
    """Check that one reader refuses with the file's name, or that everything that it read can be encoded."""
    name, write = READERS[kind]
    path = folder / name
    write(path, rows)
    broken = next((number for number, text in enumerate(rows, 1) if not is_text(text)), None)
    message = ""
    try:
        read = texts_of(path, parse_config({})) if path.suffix == ".txt" else _read(path)
    except DataError as error:
        read, message = [], str(error)
    assert is_text(message + json.dumps(read, ensure_ascii=False, default=str))
    assert not message or message.startswith(path.name)
    if broken is not None and not kind.startswith("bytes of"):
        unit = "row" if kind in ("Parquet", "Parquet messages", "JSON columns") else "line"
        is_placed = unit == "row" or kind in ("JSON lines", "JSON messages")
        assert message.startswith(f"{path.name}, {unit} {broken}: " if is_placed else path.name)


def _read(path: Path) -> Any:
    table = reader.read_sides(path).train
    with suppress(DataError):  # columns of an odd name
        scan.look(path, scan.CheckConfig())
    return [dataset_of(table).to_list(), table.columns]


FILES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FILES, max_examples=10_000)


@FILES
@given(kind=st.sampled_from(list(READERS)), rows=ROWS)
def test_every_reader_refuses_or_repairs_broken_text(kind: str, rows: list[str], tmp_path: Path) -> None:
    check_reader(kind, rows, tmp_path)


@pytest.mark.torture
@MANY
@given(kind=st.sampled_from(list(READERS)), rows=ROWS)
def test_every_reader_refuses_or_repairs_broken_text_in_full(kind: str, rows: list[str], tmp_path: Path) -> None:
    check_reader(kind, rows, tmp_path)


@pytest.mark.parametrize("kind", READERS)
def test_each_reader_takes_what_is_whole_and_names_what_is_not(kind: str, tmp_path: Path) -> None:
    check_reader(kind, ["whole", "übung"], tmp_path)
    check_reader(kind, ["whole", "a\ud800b", "\ud800"], tmp_path)


@FILES
@given(rows=st.lists(ANY_BYTES, min_size=1, max_size=4))
def test_parquet_of_any_bytes_is_refused_by_row(rows: list[bytes], tmp_path: Path) -> None:
    _write_parquet(tmp_path / "a.parquet", rows)
    broken = next((number for number, data in enumerate(rows, 1) if data != data.decode("utf-8", "ignore").encode()), 0)
    if not broken:
        assert reader.read_table(tmp_path / "a.parquet").values("text") == [data.decode() for data in rows]
        return
    problem = rf"^a\.parquet, row {broken}: the cell of column text is not valid text .*; correct or remove it$"
    with pytest.raises(DataError, match=problem):
        reader.read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize("content", ['[{"role": "user", "content": "\\ud800"}]', "[" * 100_000])
def test_a_conversation_in_a_cell_of_text_is_checked_too(content: str) -> None:
    with pytest.raises(ValueError, match="valid text|not JSON"):
        columns.conversation(content)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def _is_one_sentence(result: Result) -> bool:
    return (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1) and is_text(result.stderr)


def test_the_check_of_a_file_says_where_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "\\ud800"}\n')
    result = _run("data", "check", str(path))
    assert _is_one_sentence(result)
    assert result.stderr.startswith("Error: rows.jsonl, line 2: the cell of column label is not valid text")


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--set", "data.repair=\udcff"),
        ("train", "--set", "model.layers=\udcff"),
        ("train", "--name", "\udcff"),
        ("predict", "x", "--text", "\udcff"),
        ("runs", "--where", "\udcff"),
        ("show", "\udcff"),
        ("train", "--set", 'data.repair=["\\ud800"]'),
        ("preflight", "--set", 'name="\\ud800"'),
        ("train", "--set", 'data.repair=[{merge: {"\\ud800": a}}]'),
        ("train", "--set", 'model.layers="\\ud800"'),
        ("train", "--set", 'strategy.x="\\ud800"'),
        ("train", "--set", '"\\ud800"=1'),
        ("data", "check", "a.csv", "--label", "\udcff"),
        ("data", "check", "\udcff.csv"),
        ("tag", "x", "--add", "\udcff"),
    ],
)
def test_arguments_that_are_no_text_are_one_sentence(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _run(*arguments)
    assert _is_one_sentence(result), result.output
    assert "Input should be" not in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_anything_can_be_printed_on_any_terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynlora.cli import options

    monkeypatch.setattr(options.sys, "stdout", type("Stream", (), {"encoding": encoding}))
    assert options.printable("a\ud800\udcff\x1b×\nb").encode(encoding).startswith(rb"a\ud800\udcff\x1b")
