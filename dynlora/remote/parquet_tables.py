"""The tables of a run as Parquet files: the same columns, the run's id in front, vectors as lists of float32.

Any reader of Parquet understands them; `docs/guides/remote.md` asks DuckDB. The same rows give the same bytes, so that
a table that did not change is not sent again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynlora.errors import CorruptRunError
from dynlora.store import schema
from dynlora.store.whole_tables import BATCH_ROWS, MAX_ROWS, TABLES, Row, Snapshot, batches

if TYPE_CHECKING:
    import pyarrow as pa

RUN = "run"
"""Column of the run's id."""

GROUP_ROWS = 50_000
GROUP_BYTES = 64 * 2**20
"""Rows and bytes after which a row group ends, about: a reader skips groups by the steps and signals they hold."""

MAX_GROUP_BYTES = 2**30
"""Unpacked, of a row group that is read."""

_LISTS = {("vectors", "data"): "<f4"}
"""Blobs that are numbers for everybody; those of roll-ups are for dynlora alone and stay bytes."""


def arrow_schema(table: str) -> pa.Schema:
    """Return the columns of a table's file."""
    import pyarrow as pa

    kinds = {"text": pa.string(), "whole": pa.int64(), "real": pa.float64(), "blob": pa.binary()}
    fields = [pa.field(RUN, pa.string(), nullable=False)]
    for column in TABLES[table]:
        kind = pa.list_(pa.float32()) if (table, column.name) in _LISTS else kinds[column.kind]
        fields.append(pa.field(column.name, kind, nullable=column.optional))
    return pa.schema(fields)


def write_tables(run: Snapshot, run_id: str, folder: Path) -> list[Path]:
    """Write each table of a run that has rows as `<table>.parquet`, and return the files.

    Raises:
        CorruptRunError: when a row is not as it was written.
        OSError: when the disk refuses.
    """
    return [path for table in TABLES if (path := _write(run, run_id, table, folder / f"{table}.parquet")) is not None]


def _write(run: Snapshot, run_id: str, table: str, path: Path) -> Path | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, writer = arrow_schema(table), None
    waiting: list[pa.RecordBatch] = []
    try:
        for rows in batches(run, table):
            if writer is None:
                writer = pq.ParquetWriter(path, columns, compression="zstd", store_schema=False)
            waiting.append(_batch(columns, table, run_id, rows))
            if sum(map(len, waiting)) >= GROUP_ROWS or sum(batch.nbytes for batch in waiting) >= GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(waiting, columns))
                waiting.clear()
        if writer is not None and waiting:
            writer.write_table(pa.Table.from_batches(waiting, columns))
    finally:
        if writer is not None:
            writer.close()
    return None if writer is None else path


def _batch(columns: pa.Schema, table: str, run_id: str, rows: list[Row]) -> pa.RecordBatch:
    import pyarrow as pa

    cells = [[run_id] * len(rows), *map(list, zip(*rows, strict=True))]
    arrays = [
        _lists(values, _LISTS[table, field.name]) if (table, field.name) in _LISTS else pa.array(values, field.type)
        for values, field in zip(cells, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=columns)


def _lists(blobs: list[Any], kind: str) -> pa.Array:
    """Return blobs of numbers as lists of numbers, bit for bit."""
    import pyarrow as pa

    ends = np.cumsum([0, *(len(blob) // np.dtype(kind).itemsize for blob in blobs)]).astype(np.int32)
    values = np.frombuffer(b"".join(blobs), kind).astype(np.float32, copy=False)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values))


def read_rows(path: Path, table: str, run_id: str) -> Iterator[list[Row]]:
    """Yield the rows of a table's file, which nobody has to trust, some thousand at a time.

    Raises:
        CorruptRunError: when it is no such file, is too large unpacked, or holds rows of another run.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with closing(pq.ParquetFile(path, memory_map=False)) as file:
            _check_file(file, table)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                yield _rows(batch, table, run_id)
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError, OverflowError) as error:
        raise CorruptRunError(f"table {table} of run {run_id} cannot be read ({type(error).__name__})") from None


def _check_file(file: Any, table: str) -> None:
    """Refuse a file of other columns, or one that says of itself that it is larger than a run's."""
    if not file.schema_arrow.remove_metadata().equals(arrow_schema(table)):
        raise CorruptRunError(f"table {table} has other columns than dynlora writes")
    metadata = file.metadata
    if metadata.num_rows > MAX_ROWS[table]:
        raise CorruptRunError(f"table {table} has {metadata.num_rows:,} rows, the limit is {MAX_ROWS[table]:,}")
    for group in range(metadata.num_row_groups):
        if metadata.row_group(group).total_byte_size > MAX_GROUP_BYTES:
            raise CorruptRunError(f"table {table} has row groups over {MAX_GROUP_BYTES:,} bytes")


def _rows(batch: pa.RecordBatch, table: str, run_id: str) -> list[Row]:
    """Return a batch as rows of the store."""
    if any(value != run_id for value in batch.column(0).to_pylist()):
        raise CorruptRunError(f"table {table} holds rows of another run than {run_id}")
    cells = [
        _blobs(batch.column(place), table) if (table, column.name) in _LISTS else batch.column(place).to_pylist()
        for place, column in enumerate(TABLES[table], start=1)
    ]
    return list(zip(*cells, strict=True))


def _blobs(lists: Any, table: str) -> list[bytes]:
    """Return lists of numbers as blobs, bit for bit."""
    if lists.null_count or lists.values.null_count:
        raise CorruptRunError(f"table {table} lacks numbers")
    ends = lists.offsets.to_numpy()
    values = lists.values.to_numpy(zero_copy_only=False).astype("<f4", copy=False)
    blobs = [values[start:end].tobytes() for start, end in pairwise(ends)]
    if any(len(blob) > schema.MAX_CELL_BYTES for blob in blobs):
        raise CorruptRunError(f"table {table} has a vector over the limit of dynlora")
    return blobs
