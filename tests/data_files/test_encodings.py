"""Encodings: what was guessed is a fault with its texts, what is given is read or refused, and counting is exact."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.config import parse_config
from dynlora.data_files import opening, reader, scan
from dynlora.engine.data.text_data import load_data
from dynlora.errors import DataError
from dynlora.text import printable
from tests.data_files.files import csv_text, json_lines, write_parquet

ROWS = {
    "windows-1251": "очень хороший фильм",
    "shift-jis": "とても良い映画",
    "latin-1": "très naïve",
    "windows-1252": "“naïve” €",
    "gb18030": "很好的电影",
    "koi8-r": "хороший",
    "utf-8": "很好 naïve",
    "utf-16": "naïve €",
    "euc-kr": "아주 좋은 영화",
}


def look(path: Path, encoding: str | None = None) -> scan.CheckResult:
    """Check a file."""
    return scan.look(path, scan.wanted_of(parse_config({"data": {"path": "x", "encoding": encoding}}).data, 0))


@pytest.mark.parametrize("encoding", ["windows-1251", "shift-jis", "latin-1", "windows-1252", "koi8-r", "euc-kr"])
def test_a_guessed_encoding_is_a_fault_with_its_texts_until_it_is_given(encoding: str, tmp_path: Path) -> None:
    rows = [{"text": f"{ROWS[encoding]} {i}" if i < 3 else f"plain {i}", "label": i % 2} for i in range(40)]
    path = tmp_path / "rows.csv"
    path.write_bytes(csv_text(rows).encode(encoding))
    (fault,) = look(path).faults
    assert (fault["kind"], fault["refuses"], fault["count"]) == ("encoding", False, 3)
    assert fault["sentence"].startswith("rows.csv, lines 2, 3 and 4: the file does not say its encoding, ")
    assert "set data.encoding, such as data.encoding=windows-1251" in fault["sentence"]
    assert fault["examples"][0]["text"] == printable(reader.read_table(path).values("text")[0])
    assert look(path, encoding).faults == []
    config = parse_config({"data": {"path": "x", "encoding": encoding}}).data
    data = load_data(config, path, 0)
    assert sorted([*data.train.text, *data.held_out.text]) == sorted(row["text"] for row in rows)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
@pytest.mark.parametrize("encoding", ROWS)
def test_a_given_encoding_is_the_one_that_is_read(encoding: str, name: str, tmp_path: Path) -> None:
    rows = [{"text": f"{ROWS[encoding]} {i}", "label": i % 2} for i in range(4)]
    path = tmp_path / name
    path.write_bytes((csv_text if name.endswith("csv") else json_lines)(rows).encode(encoding))
    table = reader.read_table(path, encoding=encoding)
    assert table.values("text") == [row["text"] for row in rows]
    assert (table.notes[0].split(",")[0], table.guess) == (encoding, "")


def test_bytes_of_another_encoding_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text,label\na,1\nnaïve,0\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"^rows\.csv, line 3: is not utf-8 text \(data\.encoding=utf-8\); give its"):
        reader.read_table(path, encoding="utf-8")


def test_a_format_that_knows_its_encoding_is_read_as_ever(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rows.parquet", [{"text": "naïve", "label": 1}])
    assert reader.read_table(tmp_path / "rows.parquet", encoding="koi8-r").values("text") == ["naïve"]


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.sampled_from([b"a", b"\n", "ü".encode(), "€".encode(), b"\xff", b"\xe9", b"\x99"]), max_size=30)
)
def test_damaged_text_is_told_from_other_encodings_as_by_counting(parts: list[bytes]) -> None:
    data = b"text," + b"".join(parts)
    text = data.decode("utf-8", "surrogateescape")
    broken = [place for place, character in enumerate(text) if "\udc80" <= character <= "\udcff"]
    sequences = sum(character > "\x7f" for character in text) - len(broken)
    if not broken:
        assert opening.as_utf8(opening.Source(Path("a.csv"), data)).guess == ""
    elif sequences > len(broken):
        with pytest.raises(DataError, match=rf"line {text.count(chr(10), 0, broken[0]) + 1}: has bytes that are no"):
            opening.as_utf8(opening.Source(Path("a.csv"), data))
    else:
        decoded = opening.as_utf8(opening.Source(Path("a.csv"), data))
        assert decoded.guess == ("Windows-1252" if b"\x99" in data or "€".encode() in data else "Latin-1")
        assert decoded.whole().decode() == data.decode("cp1252" if decoded.guess == "Windows-1252" else "latin-1")
