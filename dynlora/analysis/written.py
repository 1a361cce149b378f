"""Examples of texts to be written, as people read them: no label and no prediction, but tokens that are right."""

from __future__ import annotations

import pandas as pd

WRITTEN = {"text": "prompt", "text_pair": "completion", "second text": "completion"}
"""What columns are called where texts are to be written."""


def as_written(rows: pd.DataFrame) -> pd.DataFrame:
    """Return examples of texts to be written as people read them: right tokens of all, prompt and completion.

    Args:
        rows: with any of the columns label or true, prediction, prediction before, prediction after, text, text_pair.
    """
    label = next((name for name in ("label", "true") if name in rows), None)
    found = rows.copy()
    if label is not None:
        all_of = [_count(value) for value in rows[label]]
        for name in [name for name in rows if str(name).startswith("prediction")]:
            right = [_count(value) for value in rows[name]]
            found[name] = [f"{one} of {other}" for one, other in zip(right, all_of, strict=True)]
        if any(str(name).startswith("prediction") for name in rows):
            found = found.drop(columns=label)
        else:
            found = found.rename(columns={label: "tokens in the loss"})
    names = {
        name: f"right tokens{str(name).removeprefix('prediction')}"
        for name in found
        if str(name).startswith("prediction")
    }
    is_pair = any(name in found for name in ("text_pair", "second text"))
    return found.rename(columns=names | (WRITTEN if is_pair else {}))


def _count(value: object) -> str:
    """Return a number of tokens that was recorded as a number or in words."""
    return str(value).partition(" ")[0].removesuffix(".0")
