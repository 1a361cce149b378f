"""One reader: the same rows in every format and encoding are the same table, and files are read as they always were."""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynlora.config import parse_config
from dynlora.data_files import opening, reader
from dynlora.engine.data.tables import dataset_of, read_table
from dynlora.engine.data.text_data import load_data
from dynlora.errors import DataError
from dynlora.inference.session import texts_of
from tests.data_files.files import WRITERS, csv_text, json_lines, write_excel

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\u2028\u2029\x85"),
    max_size=30,
).map(lambda text: f"t{text}") | st.sampled_from(
    ['a; b, "c"\td', "two\nlines", "tab\tend", "'quoted'", "NA", "null", "ü €"]
)
ROWS = st.lists(
    st.fixed_dictionaries({"text": TEXT, "label": st.sampled_from(["good", "bad", "NA"]), "stars": st.integers(0, 9)}),
    min_size=3,
    max_size=12,
)


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_the_same_rows_are_the_same_table_in_every_format(
    kind: str, tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    name, write = WRITERS[kind]
    path = tmp_path_factory.mktemp("rows") / name
    write(path, rows)
    table = reader.read_sides(path).train
    assert {key: table.values(key) for key in table.columns} == {key: [row[key] for row in rows] for key in rows[0]}
    for row, place in enumerate(table.place.tolist()):  # a place is where the row stands
        if table.unit == "line" and name.startswith(("a.csv", "a.tsv", "a.jsonl")):
            assert rows[row]["text"].split("\n")[0][:1] in _lines_of(path)[place - 1]
    assert table.place.tolist() == sorted(table.place.tolist())


def _lines_of(path: Path) -> list[str]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return io.StringIO(data.decode(encoding), newline=None).read().split("\n")


@pytest.mark.parametrize(
    ("encoding", "text", "encoding_name"),
    [
        ("utf-8", "naïve café", "UTF-8"),
        ("utf-16", "naïve €", "UTF-16"),
        ("utf-32", "naïve €", "UTF-32"),
        ("utf-16-le", "plain words", "UTF-16"),
        ("utf-16-be", "plain words", "UTF-16"),
        ("latin-1", "naïve café", "Latin-1"),
        ("cp1252", "“naïve” café €", "Windows-1252"),
    ],
)
def test_the_encoding_is_found_and_named(encoding: str, text: str, encoding_name: str, tmp_path: Path) -> None:
    rows = [{"text": f"{text} {i}", "label": i % 2} for i in range(20)]
    path = tmp_path / "rows.csv"
    path.write_bytes(csv_text(rows).encode(encoding))
    table = reader.read_table(path)
    assert table.values("text") == [row["text"] for row in rows]
    assert table.notes == (f"{encoding_name}, comma between the cells",)


def test_utf8_that_is_damaged_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text,label\nüüü,1\nöö,0\n".encode() + b"bad \xff,1\n")
    with pytest.raises(DataError, match=r"^rows\.csv, line 4: has bytes that are not UTF-8, unlike the rest; correct"):
        reader.read_table(path)


OLD = {
    "blank.csv": "text,label\n\na,1\n   \nb,0\n\n",
    "gaps.csv": "text,label,g\na,1,x\nb,,\n,0,nan\nNA,1,5\n",
    "floats.csv": "text,label\n1,0.5\n2,1\n",
    "quotes.csv": 'text,label\n"a\nb, ""c""",1\n5" pipe,0\n"x"y,1\n',
    "row names.csv": "text,label\n1,a,1\n2,b,0\n",
    "cr.csv": "text,label\ra,1\rb,0\r",
    "one.csv": "text\na\n\nb\n",
    "mark.csv": "\ufefftext,label\na,1\n",
    "short.csv": "text,label\na\nb,1\n",
    "spaces.csv": "text, label\na, 1\nb, 0\n",
    "tabs.tsv": "text\tlabel\na,b\t1\nb\t0\n",
    "bool.csv": "text,label\na,True\nb,False\n",
    "pieces.csv": "text,label,g\n" + "".join(f"{i},{i % 2},{i if i < 15000 else ''}\n" for i in range(21000)),
    "pieces of text.csv": "text,label\n" + "".join(f"{i if i > 15000 else 'r'},{i % 2}\n" for i in range(21000)),
    "a.jsonl": '{"text": "a", "label": 1}\n\n{"text": "2020-01-01", "g": 0.5, "label": 0.25}\n',
    "dates.jsonl": '{"text": "a", "at": "2020-01-01"}\n{"text": "b", "at": "2021-01-01"}\n',
    "lists.jsonl": '{"text": "a", "label": [1]}\n{"text": "b", "label": [1, 2]}\n',
    "list.json": '[{"text": "a", "label": 0.125},\n {"text": "5", "label": null}]',
    "texts.json": '["a", "b"]',
    "lines.json": '{"text": "a\\u2028", "label": true}\n{"text": "b", "label": false}\n',
}
"""Files that were read before there was one reader."""


@pytest.mark.parametrize("name", OLD)
def test_files_are_read_as_the_datasets_library_reads_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(OLD[name], "utf-8", newline="")
    assert_same(path)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(*[st.sampled_from(["", "1", "2.5", "x", "NA", "True", "-1", " ", "a,b", "1e3", "nan"])] * 3),
        min_size=1,
        max_size=6,
    )
)
def test_cells_of_every_kind_are_typed_as_before(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = tmp_path_factory.mktemp("cells") / "rows.csv"
    path.write_text(
        csv_text([{"text": "t", "label": "l", "g": "k"}, *({"text": a, "label": b, "g": c} for a, b, c in rows)])
    )
    assert_same(path)
    path.write_text(csv_text([{"text": a, "label": b, "g": c} for a, b, c in rows]))
    if len(path.read_text().split()) > 1:
        assert_same(path)


def assert_same(path: Path) -> None:
    """Compare types and values with those of `load_dataset`, which read files before."""
    kind = "json" if path.suffix in (".json", ".jsonl") else "csv"
    more: dict[str, Any] = {"keep_default_na": False, "na_values": ["", "nan", "NaN"]} if kind == "csv" else {}
    more |= {"delimiter": "\t"} if path.suffix == ".tsv" else {}
    datasets.disable_progress_bars()
    cache = path.parent / "cache"
    files = {"rows": str(path).replace("[", "[[]")}
    old = datasets.load_dataset(kind, data_files=files, split="rows", cache_dir=str(cache), keep_in_memory=True, **more)
    new = dataset_of(reader.read_table(path))
    assert isinstance(old, datasets.Dataset)
    assert str(new.features) == str(old.features)
    assert repr(new.to_dict()) == repr(old.to_dict())


@pytest.mark.parametrize(
    ("name", "text", "column", "values"),
    [
        (
            "late.csv",
            "text,label\n" + "".join(f"t,{i if i < 15000 else 'x'}\n" for i in range(15001)),
            "label",
            ["0", "1"],
        ),
        ("large.csv", "text,label\n99999999999999999999,1\n9,0\n", "text", ["99999999999999999999", "9"]),
        ("mixed.jsonl", '{"text": 5, "label": "a"}\n{"text": "b", "label": ["x"]}\n', "label", ["a", '["x"]']),
        ("end.csv", "text,label\na,1,\nb,0,\n", "text", ["a", "b"]),
    ],
)
def test_columns_of_several_types_are_text(
    name: str, text: str, column: str, values: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert reader.read_table(tmp_path / name).values(column)[:2] == values


def test_classes_named_by_the_datasets_library_are_known_without_it(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"text": [f"t {i}" for i in range(12)], "label": [i % 2 for i in range(12)]}
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_dict(rows, features), "test": datasets.Dataset.from_dict(rows, features)}
    )
    both.save_to_disk(tmp_path / "saved")
    sides = reader.read_sides(tmp_path / "saved")
    assert (len(sides.train), len(sides.held_out or [])) == (12, 12)
    assert sides.train.class_names("label") == ["no", "yes"]
    assert load_data(parse_config({"data": {"path": "x"}}).data, tmp_path / "saved", 0).labels == ["no", "yes"]


@pytest.mark.parametrize("part", ["../../outside.arrow", "/etc/passwd", "missing.arrow", 5])
def test_a_saved_folder_reads_its_own_parts_only(part: Any, tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"], "label": [1]}).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": part}]}))
    with pytest.raises(DataError, match=r"^saved: names a part that is not in the folder"):
        reader.read_sides(tmp_path / "saved")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_UNPACKED", 2**20)
    monkeypatch.setattr(reader, "MAX_UNPACKED", 2**20)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\n" + b"a,1\n" * 2**19))
    with pytest.raises(DataError, match="has more than 1 MiB once unpacked; unpack it"):
        reader.read_table(tmp_path / "a.csv.gz")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/worksheets/sheet1.xml", b" " * 2**21)
    with pytest.raises(DataError, match="has more than 1 MiB once unpacked; save the table as CSV"):
        reader.read_table(tmp_path / "a.xlsx")


def test_parquet_that_unpacks_to_far_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["x" * 1000] * 40_000, "label": [1] * 40_000}), path)
    assert len(reader.read_table(path)) == 40_000
    monkeypatch.setattr(reader, "MAX_GROUP_BYTES", 2**20)
    with pytest.raises(DataError, match=r"a\.parquet: is more than 200 times as large once unpacked; write it again"):
        reader.read_table(path)


def test_a_large_row_group_is_left_unread_for_a_look_and_read_for_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, n = tmp_path / "a.parquet", 2 * reader.BATCH_ROWS
    pq.write_table(pa.table({"text": [f"text {row}" for row in range(n)], "label": [1] * n}), path)
    monkeypatch.setattr(reader, "MAX_GROUP_BYTES", 2**10)
    with pytest.raises(DataError, match=r"a\.parquet: its first row group is too large to read; write smaller"):
        reader.read_table(path, 200)
    assert len(reader.read_table(path, reader.BATCH_ROWS + 1)) == reader.BATCH_ROWS + 1
    assert len(reader.read_table(path)) == n


def test_a_sheet_that_claims_or_holds_a_far_cell_is_one_sentence(tmp_path: Path) -> None:

    book = openpyxl.Workbook()
    for row in (["text", "label"], ["a", 1]):
        book.worksheets[0].append(row)
    book.worksheets[0]["XFD1048576"] = "far"
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match=r"^a\.xlsx, row 1,048,576: has 16,384 columns, at most 2,000 can be read"):
        reader.read_table(tmp_path / "a.xlsx")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "xlsx"])
def test_too_many_columns_are_one_sentence(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"wide.{ending}"
    names = [f"c{i}" for i in range(50_000)]
    row = dict.fromkeys(names, 1)
    if ending == "parquet":
        import pyarrow.parquet as parquet

        parquet.write_table(pa.table({name: [1] for name in names[:3000]}), path)
    elif ending == "xlsx":
        write_excel(path, [dict.fromkeys(names[:3000], 1)])
    else:
        separator = "\t" if ending == "tsv" else ","
        made = {"jsonl": json_lines([row]), "json": json.dumps([row])}
        path.write_text(made.get(ending) or f"{separator.join(names)}\n{separator.join('1' * 50_000)}\n")
    with pytest.raises(DataError, match=r"^wide\..*has (50|3),000 columns, at most 2,000 can be read; keep the text"):
        reader.read_table(path)


def test_excel_needs_its_extra_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_excel(tmp_path / "a.xlsx", [{"text": "a", "label": 1}])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        DataError, match=r"a\.xlsx: Excel files need the package openpyxl; run pip install 'dynlora\[excel\]'"
    ):
        reader.read_table(tmp_path / "a.xlsx")


def test_rows_of_a_workbook_are_counted_as_excel_does(tmp_path: Path) -> None:

    book = openpyxl.Workbook()
    for row in ([None, None], ["text", "label"], ["a", 1], [None, None], ["b", True]):
        book.worksheets[0].append(row)
    book.save(tmp_path / "a.xlsx")
    table = reader.read_table(tmp_path / "a.xlsx")
    assert (table.unit, table.place.tolist(), table.values("label")) == ("row", [3, 5], ["1", "True"])
    book.worksheets[0].append(["c", 1, "more"])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match=r"a\.xlsx, row 6: has more cells than the header names \(2\)"):
        reader.read_table(tmp_path / "a.xlsx")


def test_training_names_the_path_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('text,label\na,1\n"b, c",1\nd, e,1\n')
    with pytest.raises(DataError) as refused:
        read_table(tmp_path / "rows.csv")
    assert str(refused.value).startswith(f"data.path={tmp_path}/rows.csv, line 4: has 3 cells where the header has 2")


def test_texts_to_predict_are_read_from_any_format(tmp_path: Path) -> None:
    for name, write in (WRITERS["CSV packed"], WRITERS["Excel"], WRITERS["JSON object"]):
        write(tmp_path / name, [{"text": "a, b", "label": "x"}, {"text": "ü", "label": "y"}])
        assert texts_of(tmp_path / name, parse_config({})) == (["a, b", "ü"], None)


@pytest.mark.parametrize(
    ("text", "line"),
    [('[{"text": "a"}]\n[{"text": "b"}]', 2), ('[{"text": "a"}] more', 1), ('{"data":\n[{"text": "a"}]}\n]', 3)],
)
def test_json_that_goes_on_after_its_rows_is_refused(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.json, line {line}: continues after its list of rows ends"):
        reader.read_table(path)


def test_the_rows_of_an_object_are_those_of_its_own_key(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"old": {"data": [{"text": "old"}]}, "da\\u0074a":\n [{"text": "own"}], "n": 1}')
    table = reader.read_table(path)
    assert table.rows.to_pylist() == [{"text": "own"}]
    assert table.place.tolist() == [2]


def test_empty_lines_and_carriage_returns_inside_a_row_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n \n{"text": "a",\r"label": 1}\n\n{"text": "b", "label": "x"}\n')
    table = reader.read_table(path)
    assert table.rows.to_pylist() == [{"text": "a", "label": "1"}, {"text": "b", "label": "x"}]
    assert table.place.tolist() == [3, 5]


def test_a_dictionary_of_parquet_counts_as_often_as_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int32)), pa.array(["x" * 1000]))
    pq.write_table(pa.table({"text": texts}), path)
    assert reader.read_table(path).rows.num_rows == 2000
    monkeypatch.setattr(reader, "MAX_GROUP_BYTES", 2**20)
    with pytest.raises(DataError, match="times as large once unpacked"):
        reader.read_table(path)


def test_a_sheet_that_claims_more_than_a_sheet_can_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = openpyxl.Workbook()
    sheet = book.create_sheet(index=0)
    sheet.append(["text", "label"])
    sheet.cell(5000, 900, "far")
    book.save(tmp_path / "a.xlsx")
    monkeypatch.setattr(reader, "MAX_CELLS", 800)
    with pytest.raises(DataError, match="has more than 800 cells; save the table as CSV"):
        reader.read_table(tmp_path / "a.xlsx")
    monkeypatch.setattr(reader, "MAX_SHEET_ROWS", 4000)
    with pytest.raises(DataError, match="has a row beyond the 4,000 of a sheet"):
        reader.read_table(tmp_path / "a.xlsx")


def test_cells_between_vertical_bars_are_read_and_the_separator_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text|label\na, b|1\nc|0\n")
    table = reader.read_table(path)
    assert table.rows.to_pylist() == [{"text": "a, b", "label": 1}, {"text": "c", "label": 0}]
    assert table.notes == ("UTF-8, vertical bar between the cells",)
    path.write_text("text,label\na | b,1\n")
    assert reader.read_table(path).values("text") == ["a | b"]


def test_an_object_with_a_list_of_texts_alone_is_one_column(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"text": ["a", "b"]}')
    assert reader.read_table(path).rows.to_pylist() == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "\n \n", r"^a\.jsonl: has no rows; write one object \{\.\.\.\} on each line$"),
        ("a.jsonl", '{"label": ' + "9" * 5000 + "}\n", r"^a\.jsonl, line 1: is not JSON \(holds a whole number of"),
        ("a.json", '[{"label": ' + "9" * 5000 + "}]", r"^a\.json: holds a whole number of thousands of digits"),
        ("a.jsonl", '{"label": ' + "[" * 100_000 + "\n", r"^a\.jsonl, line 1: is not JSON \(is nested too deep\)"),
    ],
)
def test_what_is_wrong_with_json_is_said(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        reader.read_table(tmp_path / name)


def test_a_wide_table_takes_no_time_that_grows_with_the_square_of_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("\n".join(",".join(f"{row}{i}" for i in range(2000)) for row in ("c", *range(1, 30))) + "\n")
    start = time.process_time()
    assert len(reader.read_table(path).columns) == 2000
    assert time.process_time() - start < 2


@pytest.mark.parametrize("limit", [1, 5, 6, 100])
def test_the_first_rows_of_parquet_are_those_of_all_its_groups(limit: int, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"t {i}" for i in range(20)], "label": list(range(20))}), path, row_group_size=3)
    assert reader.read_table(path, limit).values("label") == list(range(min(limit, 20)))


def test_lines_of_the_first_rows_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"a\nb",1\n\nc,0\nd,1\n')
    assert reader.read_table(path, 2).place.tolist() == reader.read_table(path).place.tolist()[:2] == [2, 5]
