"""What the Playground computes before it draws: answers side by side, gates by layer, modules that carry an answer."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.errors import ConfigError
from dynlora.store.kinds import DISTIL
from dynlora.viz.kit.task import Task
from dynlora.viz.kit.text import listed, one_line, percent, plural, sentence_case

MOST_ROWS = 200
"""Rows of a small file that are predicted."""

MAX_FILE_BYTES = 400_000
MAX_SHARED = 1500
"""Characters of a text that travel in the address."""

LIMIT = 20_000
"""Characters of a text."""

TEXT_COLUMNS = ("text", "sentence", "sentence1")
PAIR_COLUMNS = ("text_pair", "sentence2")


def task_of(summary: Mapping[str, Any], examples: pd.DataFrame) -> Task:
    """Return the task of a run.

    Args:
        summary: as `queries.run_summary` returns it.
        examples: as `queries.examples_frame` returns them.
    """
    data = (summary.get("config") or {}).get("data")
    labels = tuple(sorted(summary.get("labels") or ()))
    kind = summary.get("task") or ("classification" if labels else None)
    writes = bool((summary.get("task_facts") or {}).get("generates")) or summary.get("kind") == DISTIL
    second = bool(examples["text_pair"].notna().any()) or bool(isinstance(data, dict) and data.get("text_pair"))
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
    return f"{'; '.join(words)}. {'All agree.' if first['answer'].nunique() == 1 else 'They disagree.'}"


def without_modules(found: Mapping[str, Any], modules: pd.DataFrame) -> pd.DataFrame:
    """Return what each module adds to the answer: columns position, short, label, layer, adds, flips.

    `adds` is the log-odds of the predicted class (or the number) less what it is without the module.
    """
    order = modules["position"].to_numpy(int)
    adds = found["margin"] - np.array([np.nan if v is None else v for v in found["without"]], dtype=float)
    return modules[["position", "short", "label", "layer"]].assign(
        adds=adds[order], flips=np.array(found["flipped"], dtype=bool)[order]
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


def gates_by_place(gate: Sequence[float | None], modules: pd.DataFrame) -> pd.DataFrame:
    """Return gates as a table of kinds (rows, in their order) over layers (columns)."""
    values = np.array([np.nan if v is None else v for v in gate], dtype=float)
    placed = modules.assign(gate=values[modules["position"].to_numpy(int)])
    table = placed.pivot_table(index="label", columns="layer", values="gate", aggfunc="mean", sort=False)
    return table.reindex(columns=sorted(table.columns))


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


def texts_of(name: str, data: bytes, *, paired: bool = False) -> Texts:
    """Return the texts of a small file, and second texts where it has a column of them.

    `.csv` and `.jsonl` are read by their columns, anything else as one text a line.

    Args:
        name: of the file.
        data: its bytes.
        paired: whether the model is asked about pairs of texts.

    Raises:
        ConfigError: when it is too large, no UTF-8, lacks a column of texts, or does not hold what the model reads.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"file: has {len(data):,} bytes, at most {MAX_FILE_BYTES:,} are allowed; use dynlora predict --file"
        )
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("file: is not UTF-8 text; save it as UTF-8") from None
    ending = name.lower().rpartition(".")[2]
    if ending in ("csv", "jsonl"):
        rows, column = _cells(_csv_rows(content) if ending == "csv" else _json_rows(content))
    else:
        rows, column = [(line.strip(), None) for line in content.splitlines()], None
    if paired and column is None:
        raise ConfigError(
            "file: this run reads pairs of texts; give a CSV or JSONL file with the columns sentence1 and sentence2"
        )
    if column is not None and not paired:
        raise ConfigError(f"file: has second texts ({column}), but this run reads single texts; remove that column")
    kept = [(number, row) for number, row in enumerate(rows, 1) if row[0].strip() or (row[1] or "").strip()]
    if not kept:
        raise ConfigError("file: has no text; give one text per line")
    for number, row in kept[:MOST_ROWS]:
        _check_row(number, row)
    shown = [row for _, row in kept[:MOST_ROWS]]
    return Texts([row[0] for row in shown], [row[1] or "" for row in shown] if paired else None, len(kept))


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


def _cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[str, str | None]], str | None]:
    """Return the text and second text of each row of a table, and the name of the column of second texts, if any."""
    names = [name for name in (rows[0] if rows else {}) if isinstance(name, str)]
    column = next((name for name in TEXT_COLUMNS if name in names), None)
    if column is None:
        shown = listed([one_line(name, 40) for name in names], 20) if names else "no rows"
        raise ConfigError(f"file: needs a column {' or '.join(TEXT_COLUMNS)}; it has {shown}")
    pair = next((name for name in PAIR_COLUMNS if name in names), None)
    return [(_cell(row.get(column)), None if pair is None else _cell(row.get(pair))) for row in rows], pair


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _check_row(number: int, row: tuple[str, str | None]) -> None:
    """Refuse a row that a model cannot be asked about."""
    for text, which in zip(row, ("text", "second text"), strict=True):
        if text is not None and not text.strip():
            raise ConfigError(f"file: row {number} has no {which}; fill it or remove the row")
        if text is not None and len(text) > LIMIT:
            raise ConfigError(f"file: the {which} of row {number} has {len(text):,} characters; at most {LIMIT:,}")


def _csv_rows(content: str) -> list[dict[str, Any]]:
    try:
        return list(csv.DictReader(io.StringIO(content)))
    except csv.Error as error:
        raise ConfigError(f"file: is not valid CSV ({error}); save it again") from None


def _json_rows(content: str) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in content.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise ConfigError("file: is not valid JSONL; write one JSON object per line") from None
    if not all(isinstance(row, dict) for row in rows):
        raise ConfigError("file: a line is not a JSON object; write one JSON object per line")
    return rows
