"""Build the data set `sentiment4` from the four files of Hutto and Gilbert (ICWSM 2014).

Each line is `id, rating, text`, separated by tabs, in UTF-8; the rating is the mean of at least 20 raters in [-4, 4].
Rating > 0.5 is positive, < -0.5 negative; what is between is dropped *first*, then repeated texts (compared after
stripping) are dropped, the first kept. In the other order three sentences would be lost whose first occurrence is
neutral. No text occurs in two files, so the order of the files changes nothing but the order of the rows.

An Amazon or NYT id is `document_sentence`, and a document must not be on both sides of the split: a row is held out
when sha256("domain:document") is divisible by five. That gives 15,411 rows to train and 3,678 held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

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


def read_rows(folder: Path) -> list[Row]:
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


def content_sha256(splits: Iterable[Iterable[Row]]) -> str:
    """Digest of the rows themselves: it does not depend on the version of pyarrow that wrote them."""
    digest = hashlib.sha256()
    for rows in splits:
        for row in rows:
            digest.update("\t".join((row.id, repr(row.rating), str(row.label), row.domain, row.text)).encode())
            digest.update(b"\n")
        digest.update(b"\0")
    return digest.hexdigest()


def split_rows(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Sort rows into `train` and `validation`, keeping their order."""
    splits: dict[str, list[Row]] = {"train": [], "validation": []}
    for row in rows:
        splits["validation" if row.is_held_out else "train"].append(row)
    return splits
