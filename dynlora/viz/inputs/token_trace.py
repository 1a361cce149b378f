"""The loss of single tokens at every evaluation, as a run recorded it of the first examples of its probe set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.text import plural

SIGNAL, EVENT = "probe_token_loss", "probe_tokens"


@dataclass(frozen=True)
class TokenTrace:
    """Losses of tokens by evaluation.

    Attributes:
        steps: of the evaluations, rising; the first is 0, the base model.
        texts: what each token of each example adds to its text.
        losses: nats, NaN where a token does not count, (evaluations, tokens of all examples).
    """

    steps: Sequence[int]
    texts: Sequence[Sequence[str]]
    losses: np.ndarray

    def covers(self, example: int) -> bool:
        """Say whether the tokens of an example of the probe set were recorded."""
        return 0 <= example < len(self.texts)

    def at(self, example: int, step: int) -> dict[str, Any]:
        """Return the tokens of an example at an evaluation, as the child returns those of a kept adapter."""
        return {
            "tokens": list(self.texts[example]),
            "step": step,
            "base": self._losses(example, 0),
            "adapter": self._losses(example, list(self.steps).index(step)),
        }

    def _losses(self, example: int, place: int) -> list[float | None]:
        start = sum(len(text) for text in self.texts[:example])
        values = self.losses[place, start : start + len(self.texts[example])]
        return [float(value) if np.isfinite(value) else None for value in values]


def recorded(events: pd.DataFrame, losses: pd.DataFrame) -> TokenTrace | None:
    """Return what a run recorded; None where that is nothing, or not of one piece.

    Args:
        events: those of kind `EVENT`, with the column payload.
        losses: the signal, one row an evaluation: column step, then one for each token.
    """
    texts = _texts(events["payload"].iloc[0]) if len(events) else []
    if not texts or losses.empty or sum(map(len, texts)) != losses.shape[1] - 1:
        return None
    steps = [int(step) for step in losses["step"]]
    return None if steps[0] != 0 else TokenTrace(steps, texts, losses.iloc[:, 1:].to_numpy(float))


def _texts(payload: Any) -> list[list[str]]:
    texts = payload.get("tokens") if isinstance(payload, Mapping) else None
    if not isinstance(texts, list) or not all(isinstance(text, list) for text in texts):
        return []
    return [[str(piece) for piece in text] for text in texts]


def step_words(trace: TokenTrace, best: int | None) -> dict[int, str]:
    """Return what each evaluation is called on a slider: its step, and whether it is the base, best or last one."""
    last = trace.steps[-1]
    marks = {step: [] for step in trace.steps}
    marks[0].append("base")
    if best in marks and best != 0:
        marks[best].append("best")
    if last != 0:
        marks[last].append("last")
    return {step: f"{step:,} ({', '.join(words)})" if words else f"{step:,}" for step, words in marks.items()}


def why_not(trace: TokenTrace | None) -> str:
    """Say why an example has no slider over evaluations."""
    if trace is None:
        return (
            "This run recorded no token losses at its evaluations; runs of this version do. Only the adapters that "
            "were kept can be compared with the base model."
        )
    return (
        f"Each evaluation records the token losses of the first {plural(len(trace.texts), 'probe example')}. For this "
        "one, only the adapters that were kept can be compared with the base model."
    )
