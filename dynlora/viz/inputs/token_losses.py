"""Where an adapter helps a run that writes: held-out examples and their tokens, by loss against the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.stats import normal_reach
from dynlora.text import one_line, percent, plural, score, signed
from dynlora.viz.kit.token_text import Colouring, TextToken, visible

DIFFERENCE, LOSS = "difference", "loss"
COLOURINGS = {DIFFERENCE: "Difference from base", LOSS: "Token loss"}

HELPS = Colouring("loss(base) − loss(adapter), nats", ("adapter worse", "adapter better"))
COSTS = Colouring("token loss, −log p(token), nats", ("low", "high"), is_diverging=False)

CONTEXT = 5
"""Tokens before a token that a table shows with it."""


def by_example(examples: pd.DataFrame, base: pd.Series) -> pd.DataFrame:
    """Return the probe set by how much the adapter helps, the most first.

    Columns: example, base, adapter, difference, text, and group and completion where there are any. `base` and
    `adapter` are mean losses over an example's tokens in nats; `difference` is base less adapter.

    Args:
        examples: as `input_frames.named` returns them.
        base: losses of the same examples at step 0, before anything was learned.
    """
    table = pd.DataFrame(
        {
            "example": examples.index,
            "base": base.to_numpy(float),
            "adapter": examples["loss"].to_numpy(float),
            "group": examples["group"],
            "text": examples["text"],
            "completion": examples["text_pair"],
        }
    )
    table.insert(3, "difference", table["base"] - table["adapter"])
    table = table.dropna(subset=["difference"]).sort_values("difference", ascending=False, kind="stable")
    return table.drop(columns=[name for name in ("group", "completion") if table[name].isna().all()])


def example_caption(frame: pd.DataFrame, step: int) -> str:
    """Say on how many examples the adapter helps, and how much."""
    if frame.empty:
        return "No probe example has been evaluated at step 0 and later."
    better = int((frame["difference"] > 0).sum())
    mean = float(frame["difference"].mean())
    half = normal_reach(frame["difference"].to_numpy(float))
    interval = "" if not np.isfinite(half) else f", 95 % CI {signed(mean - half, 3)} to {signed(mean + half, 3)}"
    return (
        f"At step {step:,} the loss is lower than at step 0 on {better} of {plural(len(frame), 'probe example')}: "
        f"mean decrease {score(mean)} nats per token{interval}."
    )


def lines_of(losses: Mapping[str, Mapping[str, Any]], colouring: str) -> dict[str, list[TextToken]]:
    """Return the tokens of an example for each who reads it, coloured by loss or by its difference from the base's.

    Args:
        losses: what the child says of the example, by the name of the adapter; the base's are in each.
        colouring: one of `COLOURINGS`.
    """
    first = next(iter(losses.values()))
    lines = {} if colouring == DIFFERENCE else {"base": _tokens(first, first["base"], first["base"])}
    for name, message in losses.items():
        values = differences(message) if colouring == DIFFERENCE else message["adapter"]
        lines[name] = _tokens(message, values, message["adapter"])
    return lines


def differences(losses: Mapping[str, Any]) -> list[float | None]:
    """Return loss(base) - loss(adapter) of each token in nats, None where it does not count."""
    pairs = zip(losses["base"], losses["adapter"], strict=True)
    return [None if base is None or adapter is None else base - adapter for base, adapter in pairs]


def _tokens(message: Mapping[str, Any], values: Sequence[float | None], own: Sequence[float | None]) -> list[TextToken]:
    return [
        TextToken(text, value, _told(base, loss))
        for text, value, base, loss in zip(message["tokens"], values, message["base"], own, strict=True)
    ]


def _told(base: float | None, loss: float | None) -> str:
    if base is None or loss is None:
        return "not part of the loss"
    probabilities = f"p(token): {percent(np.exp(-loss))}, base {percent(np.exp(-base))}"
    return f"{probabilities}\nloss {score(loss)}, base {score(base)} nats"


def token_frame(losses: Mapping[str, Any], example: int | None = None) -> pd.DataFrame:
    """Return the tokens of an example that count, by difference: token, context, base, adapter, difference (nats)."""
    texts = [visible(text) for text in losses["tokens"]]
    rows = [
        ("".join(losses["tokens"][max(0, place - CONTEXT) : place]), texts[place], base, adapter, base - adapter)
        for place, (base, adapter) in enumerate(zip(losses["base"], losses["adapter"], strict=True))
        if base is not None and adapter is not None
    ]
    frame = pd.DataFrame(rows, columns=["context", "token", "base", "adapter", "difference"])
    frame["context"] = [one_line(text, 60) for text in frame["context"]]
    if example is not None:
        frame.insert(0, "example", example)
    return frame


def token_caption(losses: Mapping[str, Any]) -> str:
    """Say how many tokens of an example count, and what adapter and base lose on them."""
    frame = token_frame(losses)
    masked = len(losses["tokens"]) - len(frame)
    if frame.empty:
        return "No token of this example is part of the loss."
    return (
        f"Mean loss over {plural(len(frame), 'token')}: {score(frame['adapter'].mean())} nats with the adapter (step "
        f"{losses['step']:,}), {score(frame['base'].mean())} without. "
        f"{plural(masked, 'token')} of the prompt {'is' if masked == 1 else 'are'} not part of the loss (pale)."
    )


def all_tokens(messages: Sequence[Mapping[str, Any]], examples: Sequence[int]) -> pd.DataFrame:
    """Return the tokens of several examples, those that the adapter makes most probable first."""
    frames = [token_frame(message, example) for message, example in zip(messages, examples, strict=False)]
    if not frames:
        return pd.DataFrame(columns=["example", "context", "token", "base", "adapter", "difference"])
    whole = pd.concat(frames, ignore_index=True)
    return whole.sort_values("difference", ascending=False, kind="stable").reset_index(drop=True)


def all_tokens_caption(frame: pd.DataFrame, n: int, step: int) -> str:
    """Say how the differences are spread over the tokens of n examples; the adapter has `step` steps behind it."""
    better = int((frame["difference"] > 0).sum())
    tenth = max(1, len(frame) // 10)
    gain = float(frame["difference"].sum())
    words = (
        f"{better:,} of {plural(len(frame), 'token')} in {plural(n, 'example')} are more probable with the adapter "
        f"(step {step:,})."
    )
    if gain <= 0:
        return f"{words} Summed over all tokens the loss rises by {score(-gain)} nats."
    top = float(frame["difference"].head(tenth).sum()) / gain
    return (
        f"{words} The loss falls by {score(gain)} nats in all; {percent(top, 0)} of it is on {plural(tenth, 'token')}."
    )


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
