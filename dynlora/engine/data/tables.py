"""Tables of rows from local files; every refusal says what to change."""

from __future__ import annotations

import glob
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets, disable_progress_bars, load_dataset

from dynlora.engine.randomness import stream_seed
from dynlora.errors import DataError

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
"""File endings that are read, with the reader of the `datasets` library."""

SHARD = re.compile(r"-\d+-of-\d+$")

CSV_OPTIONS: dict[str, Any] = {"keep_default_na": False, "na_values": ["", "nan", "NaN"]}
"""A text or class may be called NA, None or null; an empty cell, or a number that is none, is a gap."""

HELD_OUT = ("validation", "test", "dev", "valid", "eval")


def read_splits(folder: Path, seed: int, eval_fraction: float) -> dict[str, Dataset]:
    """Return the training and held-out tables; one file is split by a keyed draw.

    Raises:
        DataError: when nothing readable is there.
    """
    if folder.is_dir():
        files = _files_of(folder)
        held_out = next((files[name] for name in HELD_OUT if name in files), None)
        if "train" not in files:
            raise DataError(
                f"data.path={folder}: has no train.csv, train.jsonl or train.parquet; name the files "
                "train.* and validation.*, or give one file"
            )
        table = _read_together(files["train"])
        if held_out is not None:
            return {"train": table, "held_out": _read_together(held_out)}
    else:
        table = read_table(folder)
    n_held_out = max(1, round(len(table) * eval_fraction))
    if len(table) - n_held_out < 1:
        raise DataError(f"data.path={folder}: too few rows ({len(table)}) for training and held-out examples; add rows")
    order = np.random.default_rng(stream_seed(seed, "split")).permutation(len(table))
    return {
        "train": table.select(np.sort(order[n_held_out:])),
        "held_out": table.select(np.sort(order[:n_held_out])),
    }


def _files_of(folder: Path) -> dict[str, list[Path]]:
    """Return the tables of a folder by split; shards such as train-00000-of-00002 stand together.

    Raises:
        DataError: when a split lies there twice.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in FORMATS and not path.name.startswith("."):
            found.setdefault(path.stem.split("-")[0].lower(), []).append(path)
    for split in ("train", *HELD_OUT):
        paths = found.get(split, [])
        if len(paths) > 1 and not all(SHARD.search(path.stem) for path in paths):
            raise DataError(
                f"data.path={folder}: has {' and '.join(path.name for path in paths[:3])}; keep one of them, "
                "or give that file"
            )
    return found


def _read_together(paths: list[Path]) -> Dataset:
    """Return the rows of one file, or of several shards in order."""
    tables = [read_table(path) for path in paths]
    try:
        return tables[0] if len(tables) == 1 else concatenate_datasets(tables)
    except ValueError as error:
        reason = (str(error).strip().splitlines() or ["unlike columns"])[0]
        raise DataError(
            f"data.path={paths[0]}: has other columns or types than the other shards ({reason[:150]}); check the shards"
        ) from None


def read_table(path: Path) -> Dataset:
    """Read a CSV, JSON lines or Parquet file.

    Raises:
        DataError: when it is missing, empty, or not what its ending says.
    """
    reader = FORMATS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"data.path={path}: the ending must be one of {', '.join(FORMATS)}; convert the file")
    if not path.is_file():
        raise DataError(f"data.path={path}: does not exist; check the path")
    if path.stat().st_size == 0:
        raise DataError(f"data.path={path}: the file is empty; add a header line and rows")
    options = dict(CSV_OPTIONS) if reader == "csv" else {}
    if path.suffix.lower() == ".tsv":
        options["delimiter"] = "\t"
    disable_progress_bars()
    try:
        table = _load(reader, path, options)
    except Exception as error:  # the readers of `datasets` raise whatever their backend raises
        if "corresponds to no data" in str(error):
            raise DataError(f"data.path={path}: has a header but no rows; add rows") from None
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise DataError(
            f"data.path={path}: cannot be read as {path.suffix[1:]} ({reason[:150]}); check the file"
        ) from None
    if len(table) == 0:
        raise DataError(f"data.path={path}: has a header but no rows; add rows")
    return table


def _load(reader: str, path: Path, options: dict[str, Any]) -> Dataset:
    """Read a file into memory; nothing is left in a cache."""
    with tempfile.TemporaryDirectory(prefix="dynlora-data-") as cache:
        table = load_dataset(
            reader,
            data_files={"rows": glob.escape(str(path.absolute()))},
            split="rows",
            cache_dir=cache,
            keep_in_memory=True,
            **options,
        )
    if not isinstance(table, Dataset):
        raise DataError(f"data.path={path}: is not one table; give one file")
    return table


def limited(table: Dataset, limit: int | None, seed: int) -> Dataset:
    """Return at most `limit` rows, drawn once by key and kept in order."""
    if limit is None or limit >= len(table):
        return table
    order = np.random.default_rng(stream_seed(seed, "limit", limit)).permutation(len(table))
    return table.select(np.sort(order[:limit]))
