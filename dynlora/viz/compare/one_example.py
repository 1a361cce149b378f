"""One probe example in every run that is compared: what each predicts for it, and at what loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis import results
from dynlora.analysis.seed_groups import Group
from dynlora.text import number, one_line, plural, score

NAMED = ("text", "text_pair", "label")


def shared_examples(frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the runs whose probe set is that of the first run that has one; only there is a position one example.

    Args:
        frames: of the runs by id, as `queries.examples_frame` returns them.
    """
    known = {run: frame for run, frame in frames.items() if len(frame)}
    if not known:
        return {}
    first = next(iter(known.values()))[list(NAMED)].fillna("")
    return {run: frame for run, frame in known.items() if frame[list(NAMED)].fillna("").equals(first)}


def most_disputed(frames: Mapping[str, pd.DataFrame]) -> int:
    """Return the position of the example whose loss differs most between the runs, 0 where none does."""
    losses = np.array([frame["loss"].to_numpy(float) for frame in frames.values()])
    spread = np.nan_to_num(
        np.nanmax(losses, axis=0, initial=-np.inf) - np.nanmin(losses, axis=0, initial=np.inf), neginf=0
    )
    return int(np.argmax(spread)) if spread.size else 0


def in_every_run(
    frames: Mapping[str, pd.DataFrame],
    position: int,
    groups: Sequence[Group],
    summaries: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """Return one row per run, in the order of the groups: configuration, seed, prediction, right, probability, loss.

    Args:
        frames: as `shared_examples` returns them.
        position: of the example in the probe set.
        groups: of the runs.
        summaries: by id.
    """
    rows = []
    for group in groups:
        for run in group.runs:
            if run in frames:
                example = frames[run].iloc[[position]]
                labels = [str(label) for label in summaries[run].get("labels") or []]
                rows.append(
                    (group.label, summaries[run].get("seed"), *_answer(example, labels), example["loss"].iloc[0])
                )
    return pd.DataFrame(rows, columns=["configuration", "seed", "prediction", "right", "probability", "loss (nats)"])


def _answer(example: pd.DataFrame, labels: Sequence[str]) -> tuple[str | None, str | None, float | None]:
    """Return the prediction in words, whether it is right, and its probability; None for what is not known."""
    guess, probability = example["prediction"].iloc[0], example["probability"].iloc[0]
    if pd.isna(guess):
        return None, None, None
    words = results.class_name(guess, labels)
    right = "yes" if results.is_right(example, labels)[0] else "no"
    return words, right if labels else None, None if pd.isna(probability) else round(float(probability), 3)


def as_written(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `in_every_run` as people read them where texts are to be written."""
    names = {"prediction": "right tokens", "probability": "probability of a token (mean)"}
    return table.drop(columns="right").rename(columns=names)


def sentence(table: pd.DataFrame) -> str:
    """Say how many runs are right, and how far their losses are apart."""
    known = table.dropna(subset=["loss (nats)"])
    if known.empty:
        return "These runs have not recorded this example."
    said = ""
    if "right" in table and table["right"].notna().any():
        said = f"{(table['right'] == 'yes').sum()} of {plural(len(table), 'run')} predict its label. "
    ordered = known.sort_values("loss (nats)", kind="stable")
    low, high = ordered.iloc[0], ordered.iloc[-1]
    if score(low["loss (nats)"]) == score(high["loss (nats)"]):
        return f"{said}Its loss is {number(low['loss (nats)'])} nats in every run."
    return (
        f"{said}Its loss runs from {number(low['loss (nats)'])} nats ({one_line(low['configuration'], 60)}) to "
        f"{number(high['loss (nats)'])} nats ({one_line(high['configuration'], 60)})."
    )
