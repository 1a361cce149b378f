"""What the Playground computes before it draws: answers side by side, gates by layer, modules that carry an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.data_files.columns import PAIRS, PROMPTS, TEXTS
from dynlora.data_files.reader import sent_table, sent_text
from dynlora.data_files.table import Table
from dynlora.errors import ConfigError
from dynlora.store.meta import section
from dynlora.store.summary import RunSummary
from dynlora.text import listed, markdown_text, one_line, percent, plural, sentence_case


@dataclass(frozen=True)
class Task:
    """What a model takes and what it may predict; predictions of models with the same task can be compared.

    Attributes:
        kind: classification or regression, None where it was not recorded.
        labels: names of the classes in alphabetical order, none for numbers.
        paired: whether a question is a pair of texts.
        writes: whether the model continues texts.
    """

    kind: str | None
    labels: tuple[str, ...]
    paired: bool
    writes: bool = False

    @property
    def words(self) -> str:
        """The task in words."""
        if self.writes:
            return "texts to write"
        inputs = "pairs of texts" if self.paired else "single texts"
        if self.kind is None:
            return f"{inputs}, with unknown labels"
        outputs = listed([one_line(name, 24) for name in self.labels], 6) if self.labels else "a number"
        return f"{inputs}, with the labels {outputs}" if self.labels else f"{inputs}, with {outputs} as the label"


MOST_ROWS = 200
"""Rows of a small file that are predicted."""

MAX_FILE_BYTES = 400_000
MAX_SHARED = 1500
"""Characters of a text that travel in the address."""

LIMIT = 20_000
"""Characters of a text."""

TEXT_COLUMNS = ("text", "sentence", "sentence1")
PAIR_COLUMNS = ("text_pair", "sentence2")
"""Usual names of the columns, as messages name them, where a file lacks those that the run learned from."""

Columns = tuple[str | None, str | None]
"""Names of the columns of texts and of second texts; None for one that is not named."""


def task_of(summary: RunSummary, examples: pd.DataFrame) -> Task:
    """Return the task of a run.

    Args:
        summary: as `queries.run_summary` returns it.
        examples: as `queries.examples_frame` returns them.
    """
    labels = tuple(sorted(summary.labels))
    kind = summary.task or ("classification" if labels else None)
    writes = bool(summary.task_facts.get("generates"))
    second = bool(examples["text_pair"].notna().any()) or bool(section(summary.config, "data").get("text_pair"))
    return Task(None if kind is None else str(kind), labels, second and not writes, writes)


def not_comparable(own: Task, other: Task | None) -> str:
    """Return the sentence that says why another run does not answer beside this one."""
    if other is None:
        return "The other run of the link cannot be read; select another run."
    if other == own:
        return "The other run of the link is not finished, has no saved adapter, or is this run; select another run."
    return f"The other run of the link was trained on {other.words}, this run on {own.words}; select another run."


def side_by_side(answers: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return answers to one text by who gave them: columns who, answer, label, value (a probability or the number)."""
    rows = []
    for who, answer in answers.items():
        probabilities = answer.get("probabilities") or {"number": answer["prediction"]}
        rows += [(who, str(answer["prediction"]), label, float(value)) for label, value in probabilities.items()]
    return pd.DataFrame(rows, columns=["who", "answer", "label", "value"])


def answers_caption(frame: pd.DataFrame) -> str:
    """Return the sentence under the answers."""
    first = frame.drop_duplicates("who")
    if (frame["label"] == "number").all():
        return "; ".join(f"{row.who}: {row.value:.3f}" for row in first.itertuples()) + "."
    own = frame[frame["label"] == frame["answer"]].drop_duplicates("who")
    words = [
        f"{who} predicts {one_line(answer, 24)} ({percent(value)})"
        for who, answer, value in zip(own["who"], own["answer"], own["value"], strict=True)
    ]
    return f"{sentence_case('; '.join(words))}. {'All agree.' if first['answer'].nunique() == 1 else 'They disagree.'}"


def without_modules(explanation: Mapping[str, Any], modules: pd.DataFrame) -> pd.DataFrame:
    """Return what each module adds to the answer: columns position, short, label, layer, adds, flips.

    `adds` is the log-odds of the predicted class (or the number) less what it is without the module.
    """
    order = modules["position"].to_numpy(int)
    adds = explanation["margin"] - numbers_of(explanation["without"])
    return modules[["position", "short", "label", "layer"]].assign(
        adds=adds[order], flips=np.array(explanation["flipped"], dtype=bool)[order]
    )


def modules_caption(frame: pd.DataFrame, unit: str) -> str:
    """Return the sentence under the modules."""
    flips = frame[frame["flips"]]
    order = frame.sort_values("adds", ascending=False)
    most = f"the largest contributions are from {listed([one_line(name, 30) for name in order['short'].head(3)])}"
    if flips.empty:
        return (
            "No single module decides the prediction: it does not change without any one module. "
            f"{sentence_case(most)} ({unit})."
        )
    names = listed([one_line(name, 30) for name in flips["short"]], 6)
    return f"Without {names} the prediction changes ({plural(len(flips), 'module')}, in orange); {most} ({unit})."


def numbers_of(values: Sequence[float | None]) -> np.ndarray:
    """Return a number for each module as recorded, NaN where there is none."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def effects_caption(text: np.ndarray, probe: np.ndarray | None = None, *, modules: pd.DataFrame) -> str:
    """Return how strongly the adapter acts on a text.

    Args:
        text: effect of each module as recorded on the text, (n_modules,).
        probe: the mean over the probe examples, (n_modules,); None where it was not recorded.
        modules: as `analysis.frames.described` returns them.
    """
    if not np.isfinite(text).any():
        return "The effect of these modules is not known."
    most = int(np.nanargmax(text))
    name = modules.set_index("position")["short"].get(most, most)
    usual = "" if probe is None else f", {percent(float(np.nanmean(probe)))} on the probe examples"
    return (
        f"The adapter changes a module's output by {percent(float(np.nanmean(text)))} on this text{usual}, most in "
        f"{one_line(name, 40)} ({percent(float(text[most]))})."
    )


@dataclass(frozen=True)
class Texts:
    """What a small file holds.

    Attributes:
        texts: at most `MOST_ROWS` of them.
        pairs: their second texts, None where the file has no column of them.
        of: rows of the file.
    """

    texts: list[str]
    pairs: list[str] | None
    of: int

    @property
    def words(self) -> str:
        """How many rows are shown, in a sentence."""
        if self.of > len(self.texts):
            return f"The first {len(self.texts)} of {plural(self.of, 'row')}. Use dynlora predict for larger files."
        return f"{plural(self.of, 'row')}."


def own_columns(summary: RunSummary) -> Columns:
    """Return the columns that the settings of a run name, None for those that they leave open.

    Args:
        summary: as `queries.run_summary` returns it.
    """
    data = section(summary.config, "data")
    text, pair = data.get("text") or data.get("prompt"), data.get("text_pair")
    return (text if isinstance(text, str) else None, pair if isinstance(pair, str) else None)


def holds(own: Columns, *, paired: bool) -> str:
    """Return what a small file is to hold, as the label of its upload."""
    if paired:
        return sentence_case(markdown_text(_wanted_pair(own).removeprefix("the ")))
    return f"One text per line, or a column {markdown_text(one_line(own[0] or TEXT_COLUMNS[0], 40))}"


def texts_of(name: str, data: bytes, *, paired: bool = False, own: Columns = (None, None)) -> Texts:
    """Return the texts of a small file, and second texts where it has a column of them.

    `.csv` and `.jsonl` are read by their columns, as training reads them; anything else as one text per line.

    Args:
        name: of the file.
        data: its bytes.
        paired: whether the model is asked about pairs of texts.
        own: the columns that the run learned from, which are looked for first.

    Raises:
        ConfigError: when it is too large, lacks a column of texts, or does not hold what the model reads.
        DataError: when it cannot be read.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"file: has {len(data):,} bytes, at most {MAX_FILE_BYTES:,} are allowed; use dynlora predict --file"
        )
    if name.lower().endswith((".csv", ".jsonl")):
        rows = _cells(sent_table(name, data), own, paired=paired)
    elif paired:
        raise ConfigError(f"file: this run reads pairs of texts; give a CSV or JSONL file with {_wanted_pair(own)}")
    else:
        rows = [(line.strip(), None) for line in sent_text(name, data).splitlines()]
    filled = [(number, row) for number, row in enumerate(rows, 1) if row[0].strip() or (row[1] or "").strip()]
    if not filled:
        raise ConfigError("file: has no text; give one text per line")
    for number, row in filled[:MOST_ROWS]:
        _check_row(number, row)
    texts = [row for _, row in filled[:MOST_ROWS]]
    return Texts([row[0] for row in texts], [row[1] or "" for row in texts] if paired else None, len(filled))


def answer_table(answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """Return answers to several texts as a table.

    Columns: text, prediction, certainty, and what else the first says of each; then what each of the others predicts,
    under its name.
    """
    first, *others = answers
    rows = []
    for index, answer in enumerate(answers[first]):
        row = {"text": answer["text"]} | ({"second text": answer["text_pair"]} if "text_pair" in answer else {})
        probabilities = answer.get("probabilities")
        row |= {"prediction": answer["prediction"]}
        row |= {} if not probabilities else {"certainty": max(probabilities.values())}
        row |= {"disagreement": answer["disagreement"]} if "disagreement" in answer else {}
        row |= {who: answers[who][index]["prediction"] for who in others}
        rows.append(row)
    return pd.DataFrame(rows)


def _cells(table: Table, own: Columns, *, paired: bool) -> list[tuple[str, str | None]]:
    """Return the text and second text of each row of a table.

    Raises:
        ConfigError: when it lacks a column that the run reads, or has one that it does not read.
    """
    names = table.columns
    column, pair = _found(names, own, paired=paired)
    columns = listed([one_line(name, 40) for name in names], 20)
    if column is None:
        usual = " or ".join(dict.fromkeys(one_line(name, 40) for name in (own[0], *TEXT_COLUMNS) if name))
        renamed = one_line(own[0] or TEXT_COLUMNS[0], 40)
        raise ConfigError(
            f"file: needs a column {usual}; it has {columns}; rename the column of the texts to {renamed}"
        )
    if paired and pair is None:
        raise ConfigError(f"file: this run reads pairs of texts; it has {columns}; give {_wanted_pair(own)}")
    if pair is not None and not paired and column != own[0]:
        raise ConfigError(f"file: has second texts ({pair}), but this run reads single texts; remove that column")
    seconds = table.values(pair) if paired and pair is not None else [None] * len(table)
    return [
        (_cell(text), _cell(second) if paired else None)
        for text, second in zip(table.values(column), seconds, strict=True)
    ]


def _found(names: Sequence[str], own: Columns, *, paired: bool) -> Columns:
    """Return the columns of texts and second texts: the run's own, else those of usual names, as training finds them.

    Both are found where one is not read, so that it can be named.
    """
    couples = [own, *PAIRS.items()] if paired else []
    if both := next((both for both in couples if set(both) <= set(names)), None):
        return both
    text = next((name for name in (own[0], *TEXTS, *PROMPTS) if name in names), None)
    return text, next((name for name in (own[1], *PAIR_COLUMNS) if name in names and name != text), None)


def _wanted_pair(own: Columns) -> str:
    """Return the columns of pairs in words."""
    text, pair = (one_line(name or usual, 40) for name, usual in zip(own, ("sentence1", "sentence2"), strict=True))
    return f"the columns {text} and {pair}"


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _check_row(number: int, row: tuple[str, str | None]) -> None:
    """Refuse a row that a model cannot be asked about."""
    for text, which in zip(row, ("text", "second text"), strict=True):
        if text is not None and not text.strip():
            raise ConfigError(f"file: row {number} has no {which}; fill it or remove the row")
        if text is not None and len(text) > LIMIT:
            raise ConfigError(f"file: the {which} of row {number} has {len(text):,} characters; at most {LIMIT:,}")
