"""Tables of rows from local files; every refusal says what to change."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, disable_progress_bars, load_dataset

from dynlora.engine.randomness import stream_seed
from dynlora.errors import DataError

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
"""File endings that are read, with the reader of the `datasets` library."""

HELD_OUT = ("validation", "test", "dev", "valid", "eval")


def read_splits(folder: Path, seed: int, eval_fraction: float) -> dict[str, Dataset]:
    """Return the training and held-out tables; one file is split by a keyed draw.

    Raises:
        DataError: when nothing readable is there.
    """
    if folder.is_dir():
        files = {path.stem.split("-")[0].lower(): path for path in sorted(folder.iterdir()) if path.suffix in FORMATS}
        held_out = next((files[name] for name in HELD_OUT if name in files), None)
        if "train" not in files:
            raise DataError(
                f"data.path={folder}: no train.csv, train.jsonl or train.parquet in it; name the files "
                "train.* and validation.*, or give one file"
            )
        if held_out is not None:
            return {"train": read_table(files["train"]), "held_out": read_table(held_out)}
        folder = files["train"]
    table = read_table(folder)
    n_held_out = max(1, round(len(table) * eval_fraction))
    if len(table) - n_held_out < 1:
        raise DataError(f"data.path={folder}: too few rows ({len(table)}) to train on and hold some out; add rows")
    order = np.random.default_rng(stream_seed(seed, "split")).permutation(len(table))
    return {
        "train": table.select(np.sort(order[n_held_out:])),
        "held_out": table.select(np.sort(order[:n_held_out])),
    }


def read_table(path: Path) -> Dataset:
    """Read a CSV, JSON lines or Parquet file.

    Raises:
        DataError: when it is missing, empty, or not what its ending says.
    """
    reader = FORMATS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"data.path={path}: the ending must be one of {', '.join(FORMATS)}; convert the file")
    if not path.is_file():
        raise DataError(f"data.path={path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise DataError(f"data.path={path}: the file is empty; add a header line and rows")
    options: dict[str, Any] = {"delimiter": "\t"} if path.suffix.lower() == ".tsv" else {}
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
            reader, data_files={"rows": str(path)}, split="rows", cache_dir=cache, keep_in_memory=True, **options
        )
    if not isinstance(table, Dataset):
        raise DataError(f"data.path={path}: does not hold one table; give one file")
    return table


def limited(table: Dataset, limit: int | None, seed: int) -> Dataset:
    """Return at most `limit` rows, drawn once by key and kept in order."""
    if limit is None or limit >= len(table):
        return table
    order = np.random.default_rng(stream_seed(seed, "limit", limit)).permutation(len(table))
    return table.select(np.sort(order[:limit]))
