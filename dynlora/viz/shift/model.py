"""What is computed of shifted inputs: metrics and gates in two states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynlora import assets
from dynlora.analysis.input_frames import told_apart
from dynlora.errors import DataError, system_message
from dynlora.text import metric_words, one_line, percent, plural, score, source_name
from dynlora.viz.launch import data_file
from dynlora.viz.playground.model import Task

KINDS = {
    "cut": "Truncated",
    "typos": "Typing errors",
    "dropped": "Missing words",
    "upper": "Upper case",
    "negated": "Negated",
}
"""Perturbations the inference child knows, and what people call them."""

STRENGTHS = {"cut": "Fraction removed", "negated": "Fraction of texts"}
"""What the strength of a perturbation is a fraction of; of the others it is a fraction of the words."""

FILE_SHARE = 0.5
"""Fraction of the rows of a single file that count as held out; the rest counts as training examples."""


def metric_table(states: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return metrics as rows, states as columns, with the change where there are two."""
    names = list(dict.fromkeys(name for state in states.values() for name in state["metrics"]))
    frame = pd.DataFrame(
        {title: [state["metrics"].get(name) for name in names] for title, state in states.items()}, dtype=float
    )
    frame.insert(0, "metric", names)
    if len(states) == 2:
        first, second = states
        frame["change"] = frame[second] - frame[first]
    return frame


def gate_frame(before: Mapping[str, Any], after: Mapping[str, Any], modules: pd.DataFrame) -> pd.DataFrame:
    """Return each module's mean gate in two states, in the order of `modules`: columns short, before, after."""
    if before.get("gate") is None or after.get("gate") is None:
        return pd.DataFrame({"short": [], "before": [], "after": []})
    order = modules["position"].to_numpy(int)
    sides = (np.array([np.nan if v is None else v for v in state["gate"]], dtype=float) for state in (before, after))
    first, second = (side[order] for side in sides)
    return pd.DataFrame({"short": modules["short"].to_numpy(), "before": first, "after": second})


def group_table(answer: Mapping[str, Any], summary: Mapping[str, Any]) -> pd.DataFrame:
    """Return metrics of each input group: columns group, rows and the metrics; groups not trained on are marked."""
    names = told_apart(list(answer["groups"]), summary)
    parts = [("all", answer["whole"]), *zip(names, answer["groups"].values(), strict=True)]
    return pd.DataFrame([{"group": name, "examples": part["rows"], **part["metrics"]} for name, part in parts])


def group_gates(answer: Mapping[str, Any], summary: Mapping[str, Any], modules: pd.DataFrame) -> pd.DataFrame:
    """Return the mean gate of each group (rows) and module as recorded (columns); no rows without gates."""
    names = modules.sort_values("position")["name"].tolist()
    gates = [part["gate"] for part in answer["groups"].values()]
    if not gates or any(gate is None for gate in gates):
        return pd.DataFrame(columns=names)
    values = np.array([[np.nan if value is None else value for value in gate] for gate in gates], dtype=float)
    return pd.DataFrame(values, index=told_apart(list(answer["groups"]), summary), columns=names)


def group_gates_caption(gates: pd.DataFrame, modules: pd.DataFrame) -> str:
    """Return the sentence under the gates of the groups: where they differ most."""
    values = gates.to_numpy(float)
    if len(gates) < 2 or not np.isfinite(values).all():
        return "The mean gate of each module; 1 is neutral."
    place = int(np.ptp(values, axis=0).argmax())
    column = pd.Series(values[:, place], index=gates.index)
    module = one_line(modules.set_index("position")["short"].get(place, place), 40)
    return (
        f"The mean gates of the groups differ most in {module}: {one_line(column.idxmax(), 40)} "
        f"{column.max():.4f}, {one_line(column.idxmin(), 40)} {column.min():.4f} (1 is neutral)."
    )


SCORED = {
    "half": " Only the first half of each text is perturbed; the loss is that of the second half after it.",
    "completion": " Only what comes before a completion or an answer is perturbed; the loss is that of what follows.",
}
"""What is scored of texts that are written."""


def shift_caption(answer: Mapping[str, Any], metric: str) -> str:
    """Return the sentence under a perturbation."""
    known = answer["before"]["metrics"]
    metric = next((name for name in (metric, "perplexity") if name in known), metric)  # texts are not generated here
    before, after = known.get(metric), answer["after"]["metrics"].get(metric)
    words = KINDS.get(str(answer["kind"]), str(answer["kind"]))
    gates = gate_distance(answer["before"], answer["after"])
    moved = "" if gates is None else f" Gates change by {gates:.4f} on average."
    changed = f"{percent(answer['changed'])} of {plural(answer['before']['rows'], 'prediction')} change"
    blind = " The loss does not change: the tokenizer may ignore upper case." if _only_case(answer) else ""
    return (
        f"{one_line(words.capitalize(), 40)} ({percent(answer['strength'], 0)}): {metric_words(metric)} changes from "
        f"{score(before)} to "
        f"{score(after)}; {changed}.{moved}{blind}{SCORED.get(str(answer.get('scored')), '')}"
    )


def _only_case(columns: Mapping[str, Any]) -> bool:
    """Say whether texts that differ in their case alone leave the model quite unmoved."""
    pairs = [(example["before"], example["after"]) for example in columns.get("examples", [])]
    case = any(a != b for a, b in pairs) and all(a.casefold() == b.casefold() for a, b in pairs)
    first, second = (columns[state]["metrics"].get("loss") for state in ("before", "after"))
    same = first is not None and second is not None and abs(first - second) <= 1e-6 * max(1.0, abs(first))
    return case and same and not columns["changed"]


def gate_distance(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Return how far the mean gates of two states are apart, the mean over the modules; None without gates."""
    if before.get("gate") is None or after.get("gate") is None:
        return None
    pairs = [(a, b) for a, b in zip(before["gate"], after["gate"], strict=False) if a is not None and b is not None]
    return float(np.mean([abs(a - b) for a, b in pairs])) if pairs else None


def elsewhere_caption(own: Mapping[str, Any], other: Mapping[str, Any], name: str, metric: str) -> str:
    """Return the sentence under other data."""
    first, second = own["metrics"].get(metric), other["metrics"].get(metric)
    gates = gate_distance(own, other)
    moved = "" if gates is None else f" Gates differ by {gates:.4f} on average."
    return (
        f"{metric} is {score(first)} on {own['rows']:,} held-out examples of its own data and {score(second)} on "
        f"{other['rows']:,} of {one_line(name, 40)}.{moved}"
    )


def embedded_data(task: Task, own: str | None) -> dict[str, dict[str, Any]]:
    """Return the section `data` of each built-in data set that a model could be tried on, by its name.

    Args:
        task: of the run; where its labels are known they have to be the same.
        own: the run's own data, which is left out.
    """
    return {
        name: {"name": name}
        for name, data in assets.DATASETS.items()
        if name != own and not task.paired and task.kind in (None, "classification")
        if data.label_names and (not task.labels or tuple(sorted(data.label_names)) == task.labels)
    }


def source_labels(sources: Sequence[str]) -> dict[str, str]:
    """Return what a list shows for each source of data: its short name, or the whole where two share one."""
    short = {source: one_line(source_name(source), 60) for source in sources}
    times = Counter(short.values())
    return {source: words if times[words] == 1 else one_line(source, 500) for source, words in short.items()}


def file_section(path: Path, task: Task, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `data` for a file or folder of this machine, its columns called as the run's or guessed.

    Args:
        path: of a table, or of a folder with a training file.
        task: of the run.
        own: section `data` of the run.

    Raises:
        DataError: when there is no table, or none of its columns can be what the model reads.
    """
    try:
        table = data_file.table_of(path)
        is_missing = table is None and not path.exists()
    except OSError as error:
        raise DataError(system_message(error, str(path))) from None
    except ValueError as error:  # a NUL
        raise DataError(f"{path}: cannot be read ({error}); give another path") from None
    if is_missing:
        raise DataError(f"{path}: does not exist; check the path")
    if table is None:
        raise DataError(
            f"{path}: is not a CSV, TSV, JSON, Parquet or Excel file or a folder with a train file; give one of these"
        )
    rows = data_file.first_rows(table)
    guess = data_file.guessed(rows)
    section = {key: own[key] if own.get(key) in rows.columns else guess[key] for key in ("text", "text_pair", "label")}
    section["text_pair"] = section["text_pair"] if task.paired else None
    missing = [key for key, name in section.items() if name is None and (key != "text_pair" or task.paired)]
    if missing:
        raise DataError(f"{path}: has no column for data.{missing[0]}; rename a column to {missing[0]}")
    return {
        "path": str(path),
        **section,
        "task": task.kind or "auto",
        "group_by": "none",
        "eval_fraction": FILE_SHARE,
    }
