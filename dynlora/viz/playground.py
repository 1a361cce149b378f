"""What the Playground computes before it draws: answers side by side, gates by layer, modules that carry an answer."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas comes without types)
from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dynlora.errors import ConfigError
from dynlora.viz.labels import listed, one_line, percent, plural

MOST_ROWS = 200
"""Rows of a small file that are predicted."""

MAX_FILE_BYTES = 400_000
MAX_SHARED = 1500
"""Characters of a text that travel in the address."""

TEXT_COLUMNS = ("text", "sentence", "sentence1")
PAIR_COLUMNS = ("text_pair", "sentence2")


def side_by_side(answers: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return answers to one text by who gave them: columns who, answer, label, value (a probability or the number)."""
    rows = []
    for who, answer in answers.items():
        probabilities = answer.get("probabilities") or {"number": answer["prediction"]}
        rows += [(who, str(answer["prediction"]), label, float(value)) for label, value in probabilities.items()]
    return pd.DataFrame(rows, columns=["who", "answer", "label", "value"])


def answers_sentence(frame: pd.DataFrame) -> str:
    """Return the sentence under the answers."""
    first = frame.drop_duplicates("who")
    if (frame["label"] == "number").all():
        return "; ".join(f"{row.who}: {row.value:.3f}" for row in first.itertuples()) + "."
    own = frame[frame["label"] == frame["answer"]].drop_duplicates("who")
    words = [f"{row.who} says {one_line(row.answer, 24)} ({percent(row.value)})" for row in own.itertuples()]
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


def modules_sentence(frame: pd.DataFrame, unit: str) -> str:
    """Return the sentence under the modules."""
    flips = frame[frame["flips"]]
    order = frame.sort_values("adds", ascending=False)
    most = f"most comes from {listed([one_line(name, 30) for name in order['short'].head(3)])}"
    if flips.empty:
        return f"No single module carries the answer: taking any one away leaves it. {most.capitalize()}, in {unit}."
    names = listed([one_line(name, 30) for name in flips["short"]], 6)
    return f"Without {names} the answer is another ({plural(len(flips), 'module')}); {most}, in {unit}."


def gates_by_place(gate: Sequence[float | None], modules: pd.DataFrame) -> pd.DataFrame:
    """Return gates as a table of kinds (rows, in their order) over layers (columns)."""
    values = np.array([np.nan if v is None else v for v in gate], dtype=float)
    placed = modules.assign(gate=values[modules["position"].to_numpy(int)])
    table = placed.pivot_table(index="label", columns="layer", values="gate", aggfunc="mean", sort=False)
    return table.reindex(columns=sorted(table.columns))


def texts_of(name: str, data: bytes) -> tuple[list[str], list[str] | None]:
    """Return the texts of a small file, and second texts where it has a column of them.

    `.csv` and `.jsonl` are read by their columns, anything else as one text a line.

    Raises:
        ConfigError: when it is too large, no UTF-8, or lacks a column of texts.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"file of {len(data):,} bytes: at most {MAX_FILE_BYTES:,}; use dynlora predict --file")
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("file: is not UTF-8 text; save it as UTF-8") from None
    ending = name.lower().rpartition(".")[2]
    if ending not in ("csv", "jsonl"):
        found = [line.strip() for line in content.splitlines() if line.strip()]
        return _enough(found)[:MOST_ROWS], None
    rows = _csv_rows(content) if ending == "csv" else _json_rows(content)
    first = rows[0] if rows else {}
    column = next((name for name in TEXT_COLUMNS if name in first), None)
    if column is None:
        raise ConfigError(f"file: needs a column {' or '.join(TEXT_COLUMNS)}; it has {', '.join(first) or 'no rows'}")
    pair = next((name for name in PAIR_COLUMNS if name in first), None)
    kept = [row for row in rows if str(row.get(column) or "").strip()][:MOST_ROWS]
    texts = _enough([str(row[column]) for row in kept])
    return texts, None if pair is None else [str(row.get(pair) or " ") for row in kept]


def answer_table(answers: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return answers to several texts as a table: text, prediction, certainty, and what else is said of each."""
    rows = []
    for answer in answers:
        row = {"text": answer["text"]} | ({"second text": answer["text_pair"]} if "text_pair" in answer else {})
        probabilities = answer.get("probabilities")
        row |= {"prediction": str(answer["prediction"])}
        row |= {} if not probabilities else {"certainty": max(probabilities.values())}
        row |= {"disagreement": answer["disagreement"]} if "disagreement" in answer else {}
        rows.append(row)
    return pd.DataFrame(rows)


def _enough(texts: list[str]) -> list[str]:
    if not texts:
        raise ConfigError("file: holds no text; give one text a line")
    return texts


def _csv_rows(content: str) -> list[dict[str, Any]]:
    try:
        return list(csv.DictReader(io.StringIO(content)))
    except csv.Error as error:
        raise ConfigError(f"file: is no CSV ({error}); save it again") from None


def _json_rows(content: str) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in content.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise ConfigError("file: is no JSONL; put one JSON object on each line") from None
    if not all(isinstance(row, dict) for row in rows):
        raise ConfigError("file: a line is no JSON object; put one on each line")
    return rows
