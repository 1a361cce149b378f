"""The same rows in every format and encoding."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import openpyxl
import pyarrow as pa
import pyarrow.parquet as parquet

Rows = Sequence[Mapping[str, Any]]


def csv_text(rows: Rows, separator: str = ",", line_end: str = "\n") -> str:
    """Return rows as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=separator, lineterminator=line_end)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def json_lines(rows: Rows) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_parquet(path: Path, rows: Rows) -> None:
    """Write rows as Parquet."""
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)


def write_excel(path: Path, rows: Rows) -> None:
    """Write rows as a workbook with two sheets, the second without a table."""
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(list(rows[0]))
    for row in rows:
        sheet.append([row[key] for key in rows[0]])
    book.create_sheet("notes")["A1"] = "nothing"
    book.save(path)


def write_saved(path: Path, rows: Rows) -> None:
    """Write rows as `datasets` saves a table."""
    datasets.disable_progress_bars()
    datasets.Dataset.from_list([dict(row) for row in rows]).save_to_disk(path)


def _text(make: Callable[[Rows], str], encoding: str = "utf-8") -> Callable[[Path, Rows], Any]:
    return lambda path, rows: path.write_bytes(make(rows).encode(encoding))


def _packed(make: Callable[[Rows], str]) -> Callable[[Path, Rows], Any]:
    return lambda path, rows: path.write_bytes(gzip.compress(make(rows).encode()))


WRITERS: dict[str, tuple[str, Callable[[Path, Rows], Any]]] = {
    "comma": ("a.csv", _text(csv_text)),
    "semicolon": ("a.csv", _text(lambda rows: csv_text(rows, ";"))),
    "tab in .csv": ("a.csv", _text(lambda rows: csv_text(rows, "\t"))),
    "tab": ("a.tsv", _text(lambda rows: csv_text(rows, "\t"))),
    "byte-order mark": ("a.csv", _text(csv_text, "utf-8-sig")),
    "Windows line ends": ("a.csv", _text(lambda rows: csv_text(rows, line_end="\r\n"))),
    "UTF-16": ("a.csv", _text(csv_text, "utf-16")),
    "UTF-16, large end first": ("a.csv", _text(lambda rows: "\ufeff" + csv_text(rows, ";"), "utf-16-be")),
    "CSV packed": ("a.csv.gz", _packed(csv_text)),
    "JSON lines": ("a.jsonl", _text(json_lines)),
    "JSON lines with a mark": ("a.jsonl", _text(json_lines, "utf-8-sig")),
    "JSON lines in UTF-16": ("a.jsonl", _text(json_lines, "utf-16")),
    "JSON lines called .json": ("a.json", _text(json_lines)),
    "JSON lines packed": ("a.jsonl.gz", _packed(json_lines)),
    "JSON list": ("a.json", _text(lambda rows: json.dumps(list(rows), indent=1))),
    "JSON list packed": ("a.json.gz", _packed(lambda rows: json.dumps(list(rows)))),
    "JSON object": ("a.json", _text(lambda rows: json.dumps({"version": 1, "data": list(rows)}, ensure_ascii=False))),
    "JSON columns": ("a.json", _text(lambda rows: json.dumps({key: [row[key] for row in rows] for key in rows[0]}))),
    "Parquet": ("a.parquet", write_parquet),
    "Excel": ("a.xlsx", write_excel),
    "saved by datasets": ("a", write_saved),
}
"""How rows are written, by a name: the file's name, and what writes it."""
