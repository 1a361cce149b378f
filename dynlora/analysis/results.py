"""What an evaluation says of a run: scores by class, what changed on the probe set, base against adapted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis import run_summary
from dynlora.text import one_line, plural

ANSWERS = ("Correct in both", "Wrong, then correct", "Correct, then wrong", "Wrong in both")
"""What can become of an answer between two models, in the order of the figures."""


def class_scores(counts: Sequence[Sequence[float]], labels: Sequence[str]) -> pd.DataFrame:
    """Return precision, recall and F1 of each class, and its number of examples; NaN where a score is undefined.

    precision = right / predicted, recall = right / true, F1 = 2 · right / (predicted + true).

    Args:
        counts: rows are the truth, columns the prediction.
        labels: names of the classes.
    """
    table = np.asarray(counts, float)
    right, true, predicted = np.diag(table), table.sum(1), table.sum(0)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)

    return pd.DataFrame(
        {
            "class": [str(label) for label in labels],
            "precision": share(right, predicted),
            "recall": share(right, true),
            "F1": share(2 * right, predicted + true),
            "examples": true.astype(int),
        }
    )


def errors(payload: Mapping[str, Any]) -> str:
    """Return how many held-out examples are wrong, and the most frequent error; empty where no classes were counted.

    Args:
        payload: of an evaluation.
    """
    matrix = run_summary.confusion(payload)
    if matrix is None:
        return ""
    counts, labels = np.asarray(matrix[0], float), matrix[1]
    wrong, total = counts - np.diag(np.diag(counts)), int(counts.sum())
    n = int(wrong.sum())
    if not n:
        return f"Nothing: all {plural(total, 'held-out example')} are right."
    truth, guess = np.unravel_index(int(wrong.argmax()), wrong.shape)
    most = f"{one_line(labels[int(truth)], 40)} read as {one_line(labels[int(guess)], 40)}"
    return f"{n:,} of {total:,}. Most often {most} ({int(wrong.max()):,})."


def probe_ends(examples: pd.DataFrame, loss: pd.DataFrame, prediction: pd.DataFrame) -> pd.DataFrame:
    """Return the probe set with its loss and prediction at the first and the last evaluation.

    Added columns: first_loss, last_loss, change, first, last (predictions as recorded). Empty when there are fewer than
    two evaluations, or when the sizes do not fit.

    Args:
        examples: the probe set, with text, text_pair and label.
        loss: signal `probe_loss`, column step and one per example.
        prediction: signal `probe_prediction`, the same.
    """
    fits = all(len(frame) >= 2 and frame.shape[1] - 1 == len(examples) for frame in (loss, prediction))
    if not fits:
        return pd.DataFrame(columns=[*examples.columns, "first_loss", "last_loss", "change", "first", "last"])
    losses, answers = loss.iloc[[0, -1], 1:].to_numpy(float), prediction.iloc[[0, -1], 1:].to_numpy(float)
    return examples.assign(
        first_loss=losses[0], last_loss=losses[1], change=losses[1] - losses[0], first=answers[0], last=answers[1]
    )


def base_ends(examples: pd.DataFrame, loss: np.ndarray | None, prediction: np.ndarray | None) -> pd.DataFrame:
    """Return the probe set with adapters off and on, in the columns of `probe_ends`; empty when not recorded.

    Args:
        examples: the probe set with its last loss and prediction, as `queries.examples_frame` returns it.
        loss: `base_loss`, one per example: the same trained head with all adapters off.
        prediction: `base_prediction`, the same.
    """
    if loss is None or prediction is None or not len(loss) == len(prediction) == len(examples):
        return pd.DataFrame(columns=[*examples.columns, "first_loss", "last_loss", "change", "first", "last"])
    return examples.assign(
        first_loss=loss,
        last_loss=examples["loss"],
        change=examples["loss"] - loss,
        first=prediction,
        last=examples["prediction"],
    )


def answer_names(ends: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Return the ends with names where predictions and labels are positions of classes."""
    frame = ends.copy()
    for column in ("label", "first", "last"):
        frame[column] = [class_name(value, labels) for value in frame[column]]
    return frame


def is_right(examples: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Return 1 for each probe example whose prediction is its label, else 0.

    Args:
        examples: columns label and prediction, as recorded.
        labels: names of the classes.
    """
    pairs = zip(examples["label"], examples["prediction"], strict=True)
    return np.array([float(class_name(true, labels) == class_name(guess, labels)) for true, guess in pairs])


def class_name(value: object, labels: Sequence[str]) -> str | None:
    """Return the name of a class that is recorded by its name or its number, or a number in words; None for nothing."""
    text = "" if value is None else str(value)
    if text in labels:
        return text
    try:
        place = float(text)
    except ValueError:
        return text or None
    if labels and place.is_integer() and 0 <= place < len(labels):
        return str(labels[int(place)])
    return None if place != place else f"{place:.3g}"


def answers(named: pd.DataFrame) -> pd.DataFrame:
    """Return how many answers were right before and after: columns answer (of `ANSWERS`), count."""
    before, after = named["first"] == named["label"], named["last"] == named["label"]
    counts = [(before & after).sum(), (~before & after).sum(), (before & ~after).sum(), (~before & ~after).sum()]
    return pd.DataFrame({"answer": ANSWERS, "count": [int(count) for count in counts]})


def changed(named: pd.DataFrame, at_most: int = 100) -> pd.DataFrame:
    """Return the examples whose loss changed most, as people read them: the greatest change first."""
    order = named["change"].abs().sort_values(ascending=False, kind="stable").index[:at_most]
    return _read(named.loc[order])


def turned(named: pd.DataFrame) -> pd.DataFrame:
    """Return the examples whose answer is another one than before, as people read them: spoilt ones first."""
    rows = named[named["first"] != named["last"]]
    return _read(rows.sort_values("change", ascending=False, kind="stable"))


def _read(rows: pd.DataFrame) -> pd.DataFrame:
    columns = {
        "change": "loss change",
        "first_loss": "loss before",
        "last_loss": "loss after",
        "label": "true",
        "first": "prediction before",
        "last": "prediction after",
        "text": "text",
        "text_pair": "second text",
    }
    renamed = rows[list(columns)].rename(columns=columns)
    renamed[["loss change", "loss before", "loss after"]] = renamed[["loss change", "loss before", "loss after"]].round(
        3
    )
    return renamed.drop(columns="second text") if renamed["second text"].isna().all() else renamed


WRITTEN = {"text": "prompt", "text_pair": "completion", "second text": "completion"}
"""What columns are called where texts are to be written."""


def as_written(rows: pd.DataFrame) -> pd.DataFrame:
    """Return examples of texts to be written as people read them: right tokens of all, prompt and completion.

    Args:
        rows: with any of the columns label or true, prediction, prediction before, prediction after, text, text_pair.
    """
    label = next((name for name in ("label", "true") if name in rows), None)
    frame = rows.copy()
    if label is not None:
        all_of = [_count(value) for value in rows[label]]
        for name in [name for name in rows if str(name).startswith("prediction")]:
            right = [_count(value) for value in rows[name]]
            frame[name] = [f"{one} of {other}" for one, other in zip(right, all_of, strict=True)]
        if any(str(name).startswith("prediction") for name in rows):
            frame = frame.drop(columns=label)
        else:
            frame = frame.rename(columns={label: "tokens in the loss"})
    names = {
        name: f"right tokens{str(name).removeprefix('prediction')}"
        for name in frame
        if str(name).startswith("prediction")
    }
    is_pair = any(name in frame for name in ("text_pair", "second text"))
    return frame.rename(columns=names | (WRITTEN if is_pair else {}))


def _count(value: object) -> str:
    """Return a number of tokens that was recorded as a number or in words."""
    return str(value).partition(" ")[0].removesuffix(".0")
