"""Labelled text: from a folder, a file or the hub to rows ready for a model; every refusal says what to change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset

from dynlora import tasks
from dynlora.config import DataConfig
from dynlora.data_files import columns as data_files_columns
from dynlora.data_files import finders, scan
from dynlora.data_files.columns import Columns, Turn, asked_and_said, conversation
from dynlora.engine.data.tables import Splits, limited, read_splits, said_of, wanted_columns
from dynlora.engine.randomness import stream_seed
from dynlora.errors import DataError
from dynlora.tasks import LabelColumn, LabelledTask, Task, UnlabelledTask

MAX_GROUPS = 50


@dataclass(frozen=True)
class Rows:
    """One side of the data.

    Attributes:
        text: first texts; of texts to be written, what is before a completion, or the whole.
        text_pair: second texts, or completions; None without.
        label: as the task encodes it, (n,): class index, int64; or the target number, float32.
        group: name of each row's input group, or None.
        fields: what else the task needs of each row, by name: `messages`, `answer`.
    """

    text: list[str]
    text_pair: list[str] | None
    label: np.ndarray
    group: list[str] | None
    fields: Mapping[str, list[Any]] = field(default_factory=dict[str, list[Any]])

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
            {name: [values[row] for row in rows] for name, values in self.fields.items()},
        )


@dataclass(frozen=True)
class TextData:
    """Labelled text, split and checked.

    Attributes:
        train, held_out: the two sides.
        task: what is learned, with the names of its classes.
        metric: the number that decides which checkpoint is best.
        digest: of everything above, to recognise the same data at a resume.
        warnings: what a person should know, in sentences.
        repaired: what each repair of `data.repair` did, in sentences.
    """

    train: Rows
    held_out: Rows
    task: Task
    metric: str
    digest: str
    warnings: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in order of their index; empty for a task without."""
        return list(self.task.labels)

    def train_sample(self, n: int, seed: int) -> Rows:
        """Return at most `n` training examples, drawn by key."""
        return _sample(self.train, n, stream_seed(seed, "train sample"))

    def held_out_sample(self, n: int, seed: int) -> Rows:
        """Return at most `n` held-out examples, drawn by key."""
        return _sample(self.held_out, n, stream_seed(seed, "held-out sample"))


def _sample(rows: Rows, n: int, seed: int) -> Rows:
    """Return at most `n` of some rows in their order."""
    return rows.take(np.sort(np.random.default_rng(seed).permutation(len(rows))[:n]))


def load_data(config: DataConfig, folder: Path, seed: int, label_names: Sequence[str] = ()) -> TextData:
    """Read, split and check the data at `folder` (a folder with train and held-out files, or one file).

    Args:
        config: which columns are what, and how many rows are wanted.
        folder: where the data is.
        seed: of the run, for what is drawn.
        label_names: what the numbers of the label column mean, where the data itself does not say so.

    Raises:
        DataError: one sentence that names what does not fit and what to change.
    """
    try:
        splits, sides, task = _read(config, folder, seed, label_names)
    except DataError:
        sentence = (
            None if config.path is None else scan.first_refusal(folder, scan.wanted_of(config, seed, label_names))
        )
        if sentence is None:
            raise
        raise DataError(said_of(folder, sentence)) from None
    metric = task.deciding_metric(config.metric, folder.name)
    if config.train_groups is not None:
        sides = (of_groups(sides[0], config.train_groups), sides[1])
    return TextData(
        *sides, task, metric, _digest(sides), _warnings(sides, task, config.max_length), list(splits.repaired)
    )


def _read(
    config: DataConfig, folder: Path, seed: int, label_names: Sequence[str]
) -> tuple[Splits, tuple[Rows, Rows], Task]:
    """Return the rows of both sides and their task, or refuse the first row or column that does not fit."""
    splits = read_splits(config, folder, seed, label_names)
    tables = [splits.train, splits.held_out]
    columns = data_files_columns.resolved(tables[0].column_names, wanted_columns(config))
    label = columns.label or config.label
    if label_names:
        tables = [table.cast_column(label, ClassLabel(names=[*label_names])) for table in tables]
    train = limited(tables[0], config.max_train, seed)
    held_out = limited(tables[1], config.max_eval, seed)
    for split, table in (("training", train), ("held-out", held_out)):
        _check_columns(columns, table, split)
    task = tasks.choose(config.task, config, columns, lambda: LabelColumn.read(label, train, held_out))
    sides = (_rows(train, columns, task, "training"), _rows(held_out, columns, task, "held-out"))
    _check_groups(columns.group_by, sides[1])
    return splits, sides, task


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
            f"data.train_groups={','.join(groups)}: no training example is in {missing[0] if missing else 'them'}; "
            f"groups are {known}"
        )
    return rows.take(np.flatnonzero(np.isin(np.array(rows.group), list(groups))))


def text_columns(table: Dataset, config: DataConfig) -> tuple[list[str], list[str] | None]:
    """Return the texts of a table without labels, and their second texts.

    Raises:
        DataError: when the columns are not there.
    """
    resolved = data_files_columns.resolved(table.column_names, wanted_columns(config))
    columns = replace(resolved, label=None, group_by=None, answer=None)
    _check_columns(columns, table, "given")
    pair = _texts(table, columns, "text_pair", "given") if columns.text_pair else None
    return _texts(table, columns, "text", "given"), pair


def rows_to_continue(table: Dataset, config: DataConfig, task: Task) -> Rows:
    """Return the prompts of a table, or its conversations; completions and labels may be missing and are not read.

    Raises:
        DataError: when the columns are not there.
    """
    names = table.column_names
    request = replace(wanted_columns(config), text_pair=None, is_generative=True)
    if request.text is None and not any(name in names for name in data_files_columns.MESSAGES):
        request = replace(request, text=next((name for name in data_files_columns.PROMPTS if name in names), None))
    columns = replace(data_files_columns.resolved(names, request), group_by=None, answer=None, text_pair=None)
    _check_columns(columns, table, "given")
    return replace(_rows(table, columns, task, "given"), text_pair=None)


def _check_columns(columns: Columns, table: Dataset, split: str) -> None:
    """Refuse a column that is not there."""
    for role in ("text", "text_pair", "label", "messages", "answer", "group_by"):
        name = getattr(columns, role)
        if name is None or (role == "group_by" and name in SYNTHETIC_GROUPS):
            continue
        if name not in table.column_names:
            raise data_files_columns.missing(columns.setting(role), name, split, table.column_names)


SYNTHETIC_GROUPS = ("length", "label", "clusters", "none")
"""Input groups that are no column: they are made from the rows or the model."""


def _check_groups(group: str | None, held_out: Rows) -> None:
    """Refuse so many groups that none could be looked at."""
    groups = len(set(held_out.group or ()))
    if groups > MAX_GROUPS:
        raise DataError(
            f"data.group_by={group}: {groups:,} groups are too many (at most {MAX_GROUPS}); use another column, or none"
        )


def _rows(table: Dataset, columns: Columns, task: Task, split: str) -> Rows:
    """Return one side as plain lists and an array."""
    fields: dict[str, list[Any]] = {}
    if columns.messages is not None:
        fields["messages"] = _conversations(table, columns.messages, split)
        both = [asked_and_said(turns) for turns in fields["messages"]]
        text, pair = [prompt for prompt, _ in both], [completion for _, completion in both]
    else:
        text = _texts(table, columns, "text", split)
        pair = _texts(table, columns, "text_pair", split) if columns.text_pair else None
    if columns.answer is not None:
        fields["answer"] = ["" if value is None else str(value) for value in table[columns.answer][:]]
    names = getattr(table.features.get(columns.label), "names", None)
    label = task.no_labels(len(table))
    if isinstance(task, LabelledTask) and columns.label is not None:
        label = task.encode(table[columns.label][:], names)
    groups = _groups(table, columns.group_by, text, label, task)
    if isinstance(task, UnlabelledTask):
        label = task.labels_by_group(groups, label)
    return Rows(text, pair, label, groups, fields)


def _conversations(table: Dataset, column: str, split: str) -> list[list[Turn]]:
    """Return a column of conversations; what is none is refused."""
    conversations = []
    for number, value in enumerate(table[column][:]):
        try:
            conversations.append(conversation(value))
        except ValueError as error:
            raise DataError(
                f"data.messages={column}: {split} row {number + 1} {error}; give a list of {{role, content}}"
            ) from None
    return conversations


def _texts(table: Dataset, columns: Columns, role: str, split: str) -> list[str]:
    """Return a column of text; numbers are written out, gaps are refused."""
    column = getattr(columns, role)
    values, setting = table[column][:] if column else [], columns.setting("text" if role == "text" else role)
    setting = "text" if not columns.is_generative else setting
    for number, value in enumerate(values):
        if value is None or (isinstance(value, str) and not value.strip()):
            raise DataError(f"data.{setting}={column}: {split} row {number + 1} is empty; fill it or remove the row")
        if not isinstance(value, str | int | float):
            raise DataError(f"data.{setting}={column}: {split} row {number + 1} is a {type(value).__name__}; give text")
    return [str(value) for value in values]


def _groups(table: Dataset, group: str | None, text: Sequence[str], label: np.ndarray, task: Task) -> list[str] | None:
    """Return the input group of each row, or None when groups come later or are off."""
    if group in ("clusters", "none", None):
        return None
    if group == "label":
        return [task.group_of(value) for value in label]
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


def _digest(sides: Sequence[Rows]) -> str:
    """Return a SHA-256 over all rows, in order."""
    digest = hashlib.sha256()
    for rows in sides:
        digest.update(json.dumps([rows.text, rows.text_pair, rows.group], ensure_ascii=True).encode())
        if rows.fields:
            digest.update(json.dumps(rows.fields, ensure_ascii=True, sort_keys=True).encode())
        digest.update(rows.label.tobytes())
    return digest.hexdigest()


def _warnings(sides: Sequence[Rows], task: Task, max_length: int) -> list[str]:
    """Return what a person should know about the data: classes missing or rare, rows repeated, on both sides or cut."""
    train, held_out = sides
    sentences = task.warnings(train.label, held_out.label)
    repeats = len(train) - len(set(zip(train.text, train.text_pair or train.text, strict=True)))
    if repeats * 20 > len(train):
        sentences.append(f"{repeats:,} of {len(train):,} training examples repeat the text of another example.")
    shared = set(zip(train.text, train.text_pair or train.text, strict=True)) & set(
        zip(held_out.text, held_out.text_pair or held_out.text, strict=True)
    )
    if shared:
        sentences.append(
            f"{len(shared):,} texts are in both the training and the held-out data: the held-out "
            "results are too optimistic."
        )
    pairs = [pair for side in sides for pair in zip(side.text, side.text_pair or [None] * len(side), strict=True)]
    long = sum(finders.is_long(text, pair, max_length) for text, pair in pairs)
    if long:
        sentences.append(
            f"An estimated {long:,} of {len(pairs):,} texts have more than data.max_length={max_length} tokens; the "
            "rest of them is not read."
        )
    return sentences
