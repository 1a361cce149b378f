"""Labelled text: from a folder, a file or the hub to rows ready for a model; every refusal says what to change."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset

from dynlora.config import DataConfig
from dynlora.engine.data.labels import label_text, task_and_classes
from dynlora.engine.data.tables import limited, read_splits
from dynlora.engine.randomness import stream_seed
from dynlora.errors import DataError

TEXT_COLUMNS = ("text", "sentence", "sentence1", "question1", "question", "premise", "review", "content")
PAIR_COLUMNS = {"sentence1": "sentence2", "question1": "question2", "premise": "hypothesis", "question": "sentence"}
MAX_GROUPS = 50


@dataclass(frozen=True)
class Rows:
    """One side of the data.

    Attributes:
        text: first texts.
        text_pair: second texts, or None.
        label: class index, (n,), int64; or the target number, float32.
        group: name of each row's input group, or None.
    """

    text: list[str]
    text_pair: list[str] | None
    label: np.ndarray
    group: list[str] | None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.text)

    def take(self, rows: np.ndarray) -> Rows:
        """Return the rows at these positions."""
        pair, group = self.text_pair, self.group
        return Rows(
            [self.text[row] for row in rows],
            None if pair is None else [pair[row] for row in rows],
            self.label[rows],
            None if group is None else [group[row] for row in rows],
        )


@dataclass(frozen=True)
class TextData:
    """Labelled text, split and checked.

    Attributes:
        train, held_out: the two sides.
        task: classification or regression.
        labels: names of the classes, in order of their index; empty for regression.
        metric: the number that decides which checkpoint is best.
        digest: of everything above, to recognise the same data at a resume.
        warnings: what a person should know, in sentences.
    """

    train: Rows
    held_out: Rows
    task: str
    labels: list[str]
    metric: str
    digest: str
    warnings: list[str] = field(default_factory=list)

    def train_sample(self, n: int, seed: int) -> Rows:
        """Return at most `n` training rows, drawn by key."""
        rows = np.random.default_rng(stream_seed(seed, "train sample")).permutation(len(self.train))[:n]
        return self.train.take(np.sort(rows))


def load_data(config: DataConfig, folder: Path, seed: int, label_names: Sequence[str] = ()) -> TextData:
    """Read, split and check the data at `folder` (a folder with train and held-out files, or one file).

    Args:
        config: which columns are what, and how many rows are wanted.
        folder: where the data lies.
        seed: of the run, for what is drawn.
        label_names: what the numbers of the label column mean, where the data itself does not say so.

    Raises:
        DataError: one sentence that names what does not fit and what to change.
    """
    splits = read_splits(folder, seed, config.eval_fraction)
    if label_names:
        splits = {
            split: table.cast_column(config.label, ClassLabel(names=[*label_names])) for split, table in splits.items()
        }
    train = limited(splits["train"], config.max_train, seed)
    held_out = limited(splits["held_out"], config.max_eval, seed)
    columns = _columns(config, train)
    for split, table in (("training", train), ("held-out", held_out)):
        _check_columns(columns, table, split)
    task, labels = task_and_classes(config, train, held_out)
    metric = _metric(config.metric, task, folder, labels)
    sides = (
        _rows(train, columns, config.label, task, labels, "training"),
        _rows(held_out, columns, config.label, task, labels, "held-out"),
    )
    _check_groups(columns["group"], sides[1])
    if config.train_groups is not None:
        sides = (of_groups(sides[0], config.train_groups), sides[1])
    return TextData(*sides, task, labels, metric, _digest(sides), _warnings(sides, labels))


def of_groups(rows: Rows, groups: Sequence[str]) -> Rows:
    """Return the rows of some input groups.

    Raises:
        DataError: when the groups are not known before training, or one of them has no row.
    """
    names = set(rows.group or ())
    missing = [name for name in groups if name not in names]
    if missing or not groups:
        known = ", ".join(sorted(names)[:20]) or "none: set data.group_by to a column, length or label"
        raise DataError(
            f"data.train_groups={','.join(groups)}: no training row is in {missing[0] if missing else 'them'}; "
            f"groups are {known}"
        )
    return rows.take(np.flatnonzero(np.isin(np.array(rows.group), list(groups))))


def _columns(config: DataConfig, table: Dataset) -> dict[str, str | None]:
    """Return which column is what: text, text_pair, label, group."""
    names = table.column_names
    text, pair = config.text, config.text_pair
    if text is None and "text" not in names and pair is None:
        text, pair = next((both for both in PAIR_COLUMNS.items() if set(both) <= set(names)), (None, None))
    text = text or next((name for name in TEXT_COLUMNS if name in names and name != pair), None)
    if text is None:
        raise DataError(f"data.text: none of the columns {_listed(names)} is called text or sentence; name one")
    group = config.group_by
    if group is None:
        group = "domain" if "domain" in names else "length"
    return {"text": text, "text_pair": pair, "label": config.label, "group": group}


def _listed(names: Sequence[str]) -> str:
    """Return column names for a message: the first twenty, each cut, what cannot be printed left out."""
    shown = ["".join(filter(str.isprintable, name))[:40] for name in names[:20]]
    return ", ".join(shown) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "")


def text_columns(table: Dataset, config: DataConfig) -> tuple[list[str], list[str] | None]:
    """Return the texts of a table without labels, and their second texts.

    Raises:
        DataError: when the columns are not there.
    """
    columns = {key: value for key, value in _columns(config, table).items() if key in ("text", "text_pair")}
    _check_columns(columns, table, "given")
    pair = _texts(table, columns["text_pair"], "given") if columns["text_pair"] else None
    return _texts(table, columns["text"], "given"), pair


def _check_columns(columns: dict[str, str | None], table: Dataset, split: str) -> None:
    """Refuse a column that is not there."""
    for role, name in columns.items():
        if name is None or (role == "group" and name in SYNTHETIC_GROUPS):
            continue
        if name not in table.column_names:
            key = {"group": "group_by"}.get(role, role)
            raise DataError(
                f"data.{key}={name}: no such column in the {split} rows; they have {_listed(table.column_names)}"
            )


SYNTHETIC_GROUPS = ("length", "label", "clusters", "none")
"""Input groups that are no column: they are made from the rows or the model."""


def _check_groups(group: str | None, held_out: Rows) -> None:
    """Refuse so many groups that none could be looked at."""
    found = len(set(held_out.group or ()))
    if found > MAX_GROUPS:
        raise DataError(
            f"data.group_by={group}: {found:,} groups are too many (at most {MAX_GROUPS}); name another column, or none"
        )


def _rows(
    table: Dataset, columns: dict[str, str | None], label_column: str, task: str, labels: list[str], split: str
) -> Rows:
    """Return one side as plain lists and an array."""
    text = _texts(table, columns["text"], split)
    pair = _texts(table, columns["text_pair"], split) if columns["text_pair"] else None
    values = table[label_column][:]
    if task == "regression":
        label = np.asarray(values, dtype=np.float32)
    else:
        names = getattr(table.features.get(label_column), "names", None)
        index = {name: position for position, name in enumerate(labels)}
        label = np.array([index[str(names[v]) if names else label_text(v)] for v in values], dtype=np.int64)
    return Rows(text, pair, label, _groups(table, columns["group"], text, label, labels))


def _texts(table: Dataset, column: str | None, split: str) -> list[str]:
    """Return a column of text; numbers are written out, gaps are refused."""
    values = table[column][:] if column else []
    for number, value in enumerate(values):
        if value is None or (isinstance(value, str) and not value.strip()):
            raise DataError(f"data.text={column}: {split} row {number + 1} is empty; fill it or drop the row")
        if not isinstance(value, str | int | float):
            raise DataError(f"data.text={column}: {split} row {number + 1} holds a {type(value).__name__}; give text")
    return [str(value) for value in values]


def _groups(
    table: Dataset, group: str | None, text: Sequence[str], label: np.ndarray, labels: Sequence[str]
) -> list[str] | None:
    """Return the input group of each row, or None when groups come later or are off."""
    if group in ("clusters", "none", None):
        return None
    if group == "label":
        return [labels[int(value)] if labels else f"{value:.0f}" for value in label]
    if group == "length":
        return [_length_group(len(item)) for item in text]
    return [str(value) for value in table[group][:]]


def _length_group(characters: int) -> str:
    """Return a length group by characters; fixed bounds, so that both sides agree."""
    bounds = (0, 40, 80, 160, 320)
    for low, high in zip(bounds, bounds[1:], strict=False):
        if characters <= high:
            return f"{low + 1} to {high} characters"
    return f"over {bounds[-1]} characters"


def _metric(metric: str, task: str, folder: Path, labels: Sequence[str]) -> str:
    """Return the deciding metric: the one named, GLUE's own for its tasks, else accuracy or Pearson's r."""
    if metric != "auto":
        wants_numbers = metric in ("pearson", "spearman", "mse")
        if wants_numbers != (task == "regression"):
            raise DataError(f"data.metric={metric}: does not fit data.task={task}; leave it at auto")
        if metric == "f1" and len(labels) != 2:
            raise DataError(f"data.metric=f1: needs two classes, the data has {len(labels)}; use accuracy")
        return metric
    if task == "regression":
        return "pearson"
    name = folder.name.lower()
    if len(labels) == 2 and name in ("mrpc", "qqp"):
        return "f1"
    return "matthews" if name == "cola" else "accuracy"


def _digest(sides: Sequence[Rows]) -> str:
    """Return a SHA-256 over all rows, in order."""
    digest = hashlib.sha256()
    for rows in sides:
        digest.update(json.dumps([rows.text, rows.text_pair, rows.group], ensure_ascii=True).encode())
        digest.update(rows.label.tobytes())
    return digest.hexdigest()


def _warnings(sides: Sequence[Rows], labels: Sequence[str]) -> list[str]:
    """Return what a person should know about the data: classes missing or rare, rows repeated or on both sides."""
    train, held_out = sides
    found = []
    if labels:
        counts = Counter(train.label.tolist())
        most = max(counts.values())
        rare = [labels[index] for index in range(len(labels)) if counts.get(index, 0) * 20 < most]
        if rare:
            found.append(f"Imbalanced: {', '.join(rare[:5])} is less than a twentieth of the commonest class.")
        if len(set(held_out.label.tolist())) < 2:
            found.append("The held-out rows hold one class only: accuracy says little.")
    repeats = len(train) - len(set(zip(train.text, train.text_pair or train.text, strict=True)))
    if repeats * 20 > len(train):
        found.append(f"{repeats:,} of {len(train):,} training rows repeat the text of another.")
    shared = set(zip(train.text, train.text_pair or train.text, strict=True)) & set(
        zip(held_out.text, held_out.text_pair or held_out.text, strict=True)
    )
    if shared:
        found.append(f"{len(shared):,} texts stand on both sides: the held-out figures flatter.")
    return found
