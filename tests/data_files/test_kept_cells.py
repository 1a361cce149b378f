"""No cell is lost or rewritten without a word: cells beyond the header, small numbers, spellings, unknown encodings."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynlora.data_files import json_file, reader
from dynlora.data_files import table as data_files_table
from dynlora.data_files.opening import DROP_LONG_ROWS
from dynlora.errors import DataError
from tests.data_files.files import csv_text, json_lines, write_excel

FILES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("hello, world,1\ngood, bye,0\n", 2),  # an unquoted comma in every row
        ("a,1,\nb,0,\nc,0,extra\n", 4),  # empty ends, and one that is not
        ("a,1,\n" * 60 + "c,0,extra\n", 62),  # the same behind the first rows, by which the layout is found
        ("a, b,1\n" + "c,0\n" * 3, 2),  # the first row alone
        ("1,a,1\n1,b,0\n", 2),  # numbers that repeat number no rows
        ("1,a,1\nb,c,0\n", 2),
    ],
)
def test_a_cell_without_a_column_is_refused_by_line(rows: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"text,label\n{rows}")
    with pytest.raises(
        DataError, match=rf"^rows\.csv, line {line}: has 3 cells where the header has 2; put texts that"
    ):
        reader.read_table(path)


@FILES
@given(
    rows=st.lists(
        st.lists(st.sampled_from(["", "x", "ü, z", 'say "no"', "two\nlines"]), min_size=2, max_size=4), min_size=1
    ),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
)
def test_rows_with_too_many_cells_are_left_out_and_the_others_keep_cells_and_lines(
    rows: list[list[str]], encoding: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["text", "label"])
    begins = list[int]()
    for row in rows:
        begins.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    path.write_bytes(text.getvalue().encode(encoding))
    kept = [place for place, row in enumerate(rows) if not any(row[2:])]
    try:
        table = reader.read_table(path, repairs=[DROP_LONG_ROWS])
    except DataError:
        assert not kept
        return
    assert table.left_out == tuple(line for place, line in enumerate(begins) if place not in kept)
    assert table.place.tolist() == [begins[place] for place in kept]
    assert [cell or "" for cell in table.values("text")] == [rows[place][0] for place in kept]


@FILES
@given(
    rows=st.lists(st.lists(st.sampled_from(["", "x", "1", "2", " "]), min_size=1, max_size=4), min_size=1, max_size=6)
)
def test_every_cell_of_a_csv_that_is_read_is_in_the_table(
    rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    text = "text,label\n" + "".join(",".join(row) + "\n" for row in rows)
    path.write_text(text)
    try:
        table = reader.read_table(path)
    except DataError:
        return
    records = [row for row in list(csv.reader(io.StringIO(text)))[1:] if len(row) > 1 or "".join(row).strip()]
    filled = [[cell for cell in row if cell.strip()] for row in records]
    are_numbered = any(any(cell.strip() for cell in row[2:]) for row in records)
    kept = [
        [value for value in (row["text"], row["label"]) if str(value or "").strip()] for row in table.rows.to_pylist()
    ]
    assert [len(row) for row in kept] == [len(row) - are_numbered for row in filled]


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [1e-12, 0.1 + 0.2, 1e300, 123456789.123456]
)


@FILES
@given(numbers=st.lists(NUMBERS, min_size=2, max_size=5))
def test_numbers_are_equal_to_the_last_digit_in_every_form_of_json(
    numbers: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows = [{"text": f"t {i}", "label": number} for i, number in enumerate(numbers)]
    (folder / "a.jsonl").write_text(json_lines(rows))
    (folder / "a.json").write_text(json.dumps(rows))
    (folder / "b.json").write_text(json.dumps({"data": rows}))
    for name in ("a.jsonl", "a.json", "b.json"):
        assert reader.read_table(folder / name).values("label") == numbers


@pytest.mark.parametrize("odd", ["007", "True", "1.50", "+5", "1e3"])
@pytest.mark.parametrize("texts_first", [True, False])
def test_a_text_is_kept_as_it_is_spelled_though_other_pieces_hold_words(
    odd: str, texts_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_files_table, "PIECE", 4)
    words, odds = [f"word {i}" for i in range(4)], [odd] * 4
    texts = [*words, *odds] if texts_first else [*odds, *words]
    path = tmp_path / "rows.csv"
    path.write_text(csv_text([{"text": text, "label": i % 2} for i, text in enumerate(texts)]))
    table = reader.read_table(path)
    assert table.values("text") == texts
    assert table.notes[-1] == "text as text, because cells are of several types"


def test_yes_and_no_are_not_made_of_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files_table, "PIECE", 2)
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,True\nb,False\nc,5\nd,0\n")
    assert reader.read_table(path).values("label") == ["True", "False", "5", "0"]


def test_gaps_in_a_piece_make_no_text_of_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files_table, "PIECE", 2)
    path = tmp_path / "rows.csv"
    path.write_text("text,label,g\na,1,x\nb,0,y\nc,1,\nd,0,\n")
    table = reader.read_table(path)
    assert table.values("g") == ["x", "y", None, None]
    assert table.notes == ("UTF-8, comma between the cells",)


def test_a_date_is_not_rewritten_where_other_pieces_hold_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file, "PIECE_BYTES", 60)
    path = tmp_path / "rows.jsonl"
    texts = ["some words", "more words", "2020-01-01", "2021-01-01", "2022-01-01", "2023-01-01"]
    path.write_text(json_lines([{"text": text, "label": i} for i, text in enumerate(texts)]))
    assert reader.read_table(path).values("text") == texts


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "columns.json", "rows.xlsx"])
def test_a_column_of_several_types_says_that_it_is_text(name: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "label": 1}, {"text": "b", "label": "x"}]
    path = tmp_path / name
    if name == "rows.xlsx":
        write_excel(path, rows)
    else:
        columns = json.dumps({key: [row[key] for row in rows] for key in rows[0]})
        path.write_text({"rows.jsonl": json_lines(rows), "rows.json": json.dumps(rows)}.get(name, columns))
    table = reader.read_table(path)
    assert table.values("label") == ["1", "x"]
    assert table.notes[-1] == "label as text, because cells are of several types"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_nul_is_refused_in_wide_encodings_too(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text,label\na,1\nb\0c some more words,0\n".encode(encoding))
    with pytest.raises(DataError, match=r"^rows\.csv, line 3: holds a NUL character, so it is not text; save"):
        reader.read_table(path)


def test_running_out_of_memory_is_not_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_excel(tmp_path / "rows.xlsx", [{"text": "a", "label": 1}])
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")

    def no_room(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(parquet, "ParquetFile", no_room)
    monkeypatch.setattr("openpyxl.load_workbook", no_room)
    for name in ("rows.parquet", "rows.xlsx"):
        with pytest.raises(MemoryError):
            reader.read_table(tmp_path / name)
