"""Tables of rows as the `datasets` library holds them; `dynlora/data_files` reads, splits and repairs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from dynlora.config import DataConfig
from dynlora.data_files import columns, reader, repairs, scan, similarity
from dynlora.data_files.columns import Columns
from dynlora.data_files.examples import HELD_OUT, TRAIN, Examples, places
from dynlora.data_files.opening import FileError
from dynlora.data_files.repairs import Merge
from dynlora.data_files.table import Table
from dynlora.engine.randomness import stream_seed
from dynlora.errors import DataError


@dataclass(frozen=True)
class Splits:
    """The tables of both sides.

    Attributes:
        train, held_out: rows in their order.
        repaired: what each repair of the configuration did, in sentences.
    """

    train: Dataset
    held_out: Dataset
    repaired: tuple[str, ...] = ()


def read_splits(config: DataConfig, folder: Path, seed: int, label_names: Sequence[str] = ()) -> Splits:
    """Return the training and held-out tables, repaired; one file is split by a keyed draw.

    Args:
        config: which columns are what, how much is held out, and the repairs.
        folder: where the data is: a file, or a folder with a training file.
        seed: of the run.
        label_names: what the numbers of the label column mean, where the data itself does not say so.

    Raises:
        DataError: when nothing readable is there, or a repair cannot be carried out.
    """
    with _as_path(folder):
        sides = reader.read_sides(folder, encoding=config.encoding, repairs=config.repair or ())
        if config.repair:
            return _repaired(config, sides, seed, label_names)
        if sides.held_out is not None:
            return Splits(dataset_of(sides.train), dataset_of(sides.held_out))
        held_out = similarity.held_out_rows(folder.name, len(sides.train), seed, config.eval_fraction)
    table = dataset_of(sides.train)
    return Splits(table.select(np.flatnonzero(~held_out)), table.select(np.flatnonzero(held_out)))


def wanted_columns(config: DataConfig) -> Columns:
    """Return the columns that a config names."""
    return scan.wanted_of(config, 0).columns


def _repaired(config: DataConfig, sides: reader.Sides, seed: int, label_names: Sequence[str]) -> Splits:
    """Return both sides after the repairs."""
    chosen = columns.resolved(sides.train.columns, wanted_columns(config))
    rows = Examples.of(sides, chosen, tuple(label_names) or None)
    rows, done = repairs.repaired(rows, config.repair or (), repairs.Draw(seed, config.eval_fraction))
    is_merged = any(isinstance(repair, Merge) for repair in config.repair or ())
    sets: list[Dataset] = []
    for side in (TRAIN, HELD_OUT):
        at = np.flatnonzero(rows.side == side)
        table = dataset_of(rows.tables[int(rows.table[at[0]])]).select(rows.row[at])
        sets.append(
            _relabelled(table, chosen.label or config.label, [rows.label[row] for row in at]) if is_merged else table
        )
    return Splits(sets[0], sets[1], tuple(item.sentence for item in done))


def _relabelled(table: Dataset, label: str, values: list[Any]) -> Dataset:
    """Return a table with other labels of the same type."""
    feature = table.features[label]
    return table.remove_columns(label).add_column(label, values, feature=feature)  # pyright: ignore


@contextmanager
def _as_path(path: Path, argument: str = "data.path=") -> Iterator[None]:
    """Say the argument before the name of a file that something is wrong with."""
    try:
        yield
    except FileError as error:
        raise DataError(said_of(path, str(error), argument)) from None


def said_of(path: Path, sentence: str, argument: str = "data.path=") -> str:
    """Return a sentence that begins with the name of a file as one about the argument that named it."""
    folder = path.parent if sentence.startswith(path.name) else path
    return f"{argument}{folder / '_'}"[:-1] + sentence


def read_table(path: Path, argument: str = "data.path=") -> Dataset:
    """Read one file; an error begins with the `argument` that named it.

    Raises:
        DataError: when it is missing, empty, or not what its ending says.
    """
    with _as_path(path, argument):
        return dataset_of(reader.read_table(path))


def dataset_of(table: Table) -> Dataset:
    """Return the rows as the `datasets` library holds them."""
    return Dataset(table.rows)


def limited(table: Dataset, limit: int | None, seed: int) -> Dataset:
    """Return at most `limit` rows, drawn once by key and kept in order."""
    return table if limit is None or limit >= len(table) else table.select(limited_rows(len(table), limit, seed))


def limited_rows(n: int, limit: int | None, seed: int) -> np.ndarray:
    """Return which of n rows are left by a limit, in order."""
    if limit is None or limit >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(stream_seed(seed, "limit", limit)).permutation(n)[:limit])


class Places:
    """Places of training examples by position: lines of a file, or numbers of examples where no file is at hand."""

    def __init__(self, config: DataConfig, folder: Path, seed: int, n: int) -> None:
        """Read the places.

        Args:
            config: section `data` of the run.
            folder: where the data is.
            seed: of the run, for the split.
            n: number of training examples.
        """
        self.rows, self.at = None, np.arange(n)
        if config.path is None or config.train_groups is not None:
            return
        rows = scan.split_rows(folder, scan.wanted_of(config, seed))
        at = np.flatnonzero(rows.side == TRAIN)
        at = at[limited_rows(len(at), config.max_train, seed)]
        if len(at) == n:
            self.rows, self.at = rows, at

    def text(self, chosen: Sequence[int] | np.ndarray) -> str:
        """Return the places of training examples in words; empty for none."""
        if not len(chosen):
            return ""
        if self.rows is not None:
            return places(self.rows, self.at[np.asarray(chosen, int)])
        first = ", ".join(f"{int(row) + 1:,}" for row in chosen[:5])
        more = f" and {len(chosen) - 5:,} more" if len(chosen) > 5 else ""
        return f"training example{'s' if len(chosen) != 1 else ''} {first}{more}"
