"""Finished runs of a benchmark: one compact Parquet file, one row a run, and the only code that reads or writes it.

A run that has just ended is a JSON file of its own below `benchmarks/out/`, so that nothing is lost when the next one
fails; once all that were asked for are there, they are packed into the Parquet file beside the other results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import results

COLUMNS = pa.schema(
    [
        ("file", pa.string()),
        ("job", pa.string()),
        ("steps", pa.int32()),
        ("precision", pa.string()),
        ("made_with", pa.string()),
        ("metrics", pa.string()),
        ("parameters", pa.string()),
        ("train_s", pa.float64()),
        ("ranks", pa.list_(pa.int16())),
        ("loss", pa.list_(pa.int32())),
        ("right", pa.string()),
        ("domain", pa.list_(pa.string())),
        ("diverged", pa.bool_()),
    ]
)
"""What is kept of a run. Losses are whole thousandths of a nat, one per held-out example; `right` a 0 or 1 for each."""

OBJECTS = ("job", "made_with", "metrics", "parameters")
"""Columns that hold an object each, as JSON: its keys differ by method and grew over time."""


@dataclass(frozen=True)
class KeptRuns:
    """The finished runs of one benchmark.

    Attributes:
        packed: the Parquet file, which need not exist yet.
        loose: folder of runs that have just ended.
    """

    packed: Path
    loose: Path

    @classmethod
    def of(cls, name: str) -> KeptRuns:
        """Return those of a benchmark that are committed."""
        return cls(results.RESULTS / f"{name}.parquet", results.QUICK / "kept" / name)

    @classmethod
    def below(cls, folder: Path) -> KeptRuns:
        """Return those of a folder of their own, for quick runs and tests."""
        return cls(folder / "runs.parquet", folder)

    def __contains__(self, file_name: str) -> bool:
        """Say whether a run has ended."""
        return (self.loose / file_name).exists() or file_name in _read(self.packed, _version(self.packed))

    def __getitem__(self, file_name: str) -> dict[str, Any]:
        """Return a run by its name.

        Raises:
            KeyError: when there is no such run.
        """
        path = self.loose / file_name
        return (
            json.loads(path.read_text("utf-8"))
            if path.exists()
            else _read(self.packed, _version(self.packed))[file_name]
        )

    def finished(self, purpose: str) -> list[dict[str, Any]]:
        """Return the finished runs of a purpose, diverged ones too: their loss is None. In the order of their names."""
        names = {*_read(self.packed, _version(self.packed)), *(path.name for path in self.loose.glob("*.json"))}
        return [self[name] for name in sorted(names) if name.startswith(f"{purpose}-")]

    def keep(self, file_name: str, made: Mapping[str, Any]) -> None:
        """Keep a run that has just ended."""
        self.loose.mkdir(parents=True, exist_ok=True)
        partial = self.loose / f"{file_name}.partial"
        partial.write_text(json.dumps(made), "utf-8")
        partial.replace(self.loose / file_name)

    def pack(self) -> None:
        """Move what lies loose into the Parquet file."""
        loose = sorted(self.loose.glob("*.json"))
        if loose:
            runs = dict(_read(self.packed, _version(self.packed)))
            runs |= {path.name: json.loads(path.read_text("utf-8")) for path in loose}
            _write(self.packed, runs)
            for path in loose:
                path.unlink()


_cache: dict[Path, tuple[int, dict[str, dict[str, Any]]]] = {}


def _version(path: Path) -> int:
    """Return what tells this state of a file from others; 0 where it is missing."""
    return path.stat().st_mtime_ns if path.exists() else 0


def _read(path: Path, version: int) -> dict[str, dict[str, Any]]:
    """Return the packed runs by name; read again only when the file has changed."""
    if path not in _cache or _cache[path][0] != version:
        _cache[path] = version, dict(_unpacked(pq.read_table(path).to_pylist())) if version else {}
    return _cache[path][1]


def _unpacked(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each run as it was kept: what it did not have is not there."""
    for row in rows:
        made = {name: value for name, value in row.items() if value is not None and name != "file"}
        yield row["file"], made | {name: json.loads(made[name]) for name in OBJECTS if name in made}


def _write(path: Path, runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write runs, those of like names beside each other: the file is smallest so."""
    rows = []
    for name, made in sorted(runs.items()):
        unknown = set(made) - set(COLUMNS.names)
        if unknown:
            raise ValueError(f"{name}: nothing keeps {', '.join(sorted(unknown))}; add a column")
        rows.append({"file": name, **made, **{key: json.dumps(made[key]) for key in OBJECTS if key in made}})
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=COLUMNS),
        partial,
        compression="zstd",
        compression_level=22,
        use_dictionary=["right", "precision"],  # pyright: ignore[reportArgumentType] - pyarrow takes names too
        column_encoding={"loss.list.element": "BYTE_STREAM_SPLIT"},
    )
    partial.replace(path)
