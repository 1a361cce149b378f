"""Figures and tables of the Inputs page: groups and gates, the probe set, and where an adapter that writes helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.frames import at_highest
from dynlora.analysis.inputs import large_enough
from dynlora.analysis.module_effects import LEAST_EXAMPLES
from dynlora.analysis.stats import normal_reach
from dynlora.text import one_line, percent, plotly_text, plural, score, sentence_case, signed
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette
from dynlora.viz.kit.token_text import Colouring, TextToken, visible

NO_GROUPS = f"Fewer than two groups have {LEAST_EXAMPLES} examples, so none is named."


def loss_by_group(groups: pd.DataFrame) -> str:
    """Return the held-out loss of each group that is large enough to be named, the lowest first."""
    known = large_enough(groups).dropna(subset=["loss"]).sort_values("loss", kind="stable")
    if len(known) < 2:
        return NO_GROUPS
    pairs = [f"{one_line(group, 40)} {score(loss)}" for group, loss in zip(known["group"], known["loss"], strict=True)]
    return f"Loss by group: {' · '.join(pairs)}."


def without_a_module(table: pd.DataFrame, groups: pd.DataFrame) -> str:
    """Say which group loses most without a module, and what the others lose without it.

    Args:
        table: loss without each module (columns) minus that with it, by group, as `retention.by_group` returns it.
        groups: columns group and n.
    """
    known = table[table.index.isin(large_enough(groups)["group"])].dropna()
    if len(known) < 2:
        return NO_GROUPS
    module = known.max().idxmax()
    losses = known[module].sort_values()
    (least, low), *_, (most, high) = losses.items()
    return (
        f"Without {one_line(module, 40)} the loss of {one_line(most, 40)} changes by {signed(high, 3)}, "
        f"that of {one_line(least, 40)} by {signed(low, 3)}."
    )


def probe(examples: pd.DataFrame) -> str:
    """Say how many probe examples are shown and how many the model gets wrong."""
    known = examples.dropna(subset=["loss"])
    if known.empty:
        return f"{len(examples)} examples, not yet evaluated."
    hardest = known.loc[at_highest(known["loss"])]
    return (
        f"{len(examples)} probe examples, a fixed sample of the held-out ones: mean loss "
        f"{known['loss'].mean():.3f} nats; highest loss {hardest['loss']:.2f}."
    )


def depth(lines: pd.DataFrame) -> str:
    """Say where the gates of the chosen examples differ most over depth; columns example, layer, gate."""
    spread = lines.groupby("layer")["gate"].agg(lambda values: values.max() - values.min())
    count = lines["example"].nunique()
    if count < 2:
        return (
            f"One example; its mean gate ranges from {lines['gate'].min():.3f} to {lines['gate'].max():.3f} "
            "over the layers."
        )
    return f"{count} examples; their mean gates differ most in layer {spread.idxmax()}, by {spread.max():.3f}."


def probe_scatter(
    examples: pd.DataFrame,
    by: str,
    colours: Palette,
    groups: Sequence[str] = (),
    *,
    chosen: Sequence[int] = (),
    title: str = "",
    axes: tuple[str, str] = ("First principal component", "Second principal component"),
) -> go.Figure:
    """Draw the probe set in the plane.

    Args:
        examples: columns text, group, x, y, loss, prediction; maybe one with numbers to colour by.
        by: `group` and `prediction` colour by name, any other column by its number.
        colours: of the mode.
        groups: names of the groups in the order of their colours, the same as in the other charts.
        chosen: positions of the examples to mark; the others fade.
        title: of the colour bar.
        axes: titles of both axes.
    """
    drawn = theme.figure(colours, 400)
    if by in ("group", "prediction"):
        names = examples[by].astype(str)
        style = theme.contrasting(list(dict.fromkeys([*(groups if by == "group" else []), *names])))
        for name, part in examples.groupby(names, sort=False):
            colour, symbol, _ = style[str(name)]
            drawn.add_scatter(**_points(part), name=plotly_text(name, 24), marker={"color": colour, "symbol": symbol})
        drawn.update_layout(showlegend=True)
    else:
        is_gate = by == "gate"
        scale = colours.diverging_scale if is_gate else colours.sequential_scale
        reach = max(float((examples[by] - 1).abs().max()), 1e-3) if is_gate else 0.0
        marker = {"colorscale": scale, "showscale": True, "color": examples[by], "cmin": 1 - reach if is_gate else 0}
        bar = {
            "title": {"text": plotly_text(sentence_case(title or by)), "side": "right"},
            "thickness": 9,
            "outlinewidth": 0,
        }
        drawn.add_scatter(**_points(examples), marker={**marker, "colorbar": bar})
        if is_gate:
            drawn.update_traces(marker={"cmax": 1 + reach})
    drawn.update_traces(marker={"size": 8, "opacity": 0.9, "line": {"width": 0.6, "color": colours.muted}})
    if chosen:
        drawn.for_each_trace(
            lambda trace: trace.update(
                selectedpoints=[i for i, row in enumerate(trace.customdata) if row[0] in set(chosen)]
            )
        )
        drawn.update_traces(unselected={"marker": {"opacity": 0.25}})
    drawn.update_xaxes(title_text=axes[0], zeroline=False)
    drawn.update_yaxes(title_text=axes[1], zeroline=False)
    return drawn


def _points(examples: pd.DataFrame) -> dict[str, object]:
    words = [
        [int(position), _wrapped(text), plotly_text(group, 24), "–" if loss != loss else f"{loss:.3f}"]
        for position, text, group, loss in zip(
            examples.index,
            examples["text"],
            examples["group"],
            examples["loss"],
            strict=True,
        )
    ]
    return {
        "x": examples["x"],
        "y": examples["y"],
        "mode": "markers",
        "customdata": words,
        "hovertemplate": "%{customdata[1]}<br>%{customdata[2]}, loss %{customdata[3]} nats<extra></extra>",
    }


def gates_over_depth(depth: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the mean gate of each layer for some examples; columns example, layer, gate."""
    drawn = theme.figure(colours, 260)
    style = theme.contrasting(list(dict.fromkeys(depth["example"])))
    for example, part in depth.groupby("example", sort=False):
        colour, symbol, dash = style[str(example)]
        drawn.add_scatter(
            x=part["layer"],
            y=part["gate"],
            mode="lines+markers",
            name=plotly_text(sentence_case(str(example)), 32),
            line={"color": colour, "width": 1.6, "dash": dash},
            marker={"symbol": symbol, "size": 7},
            hovertemplate="%{fullData.name}<br>layer %{x}: gate %{y:.4f}<extra></extra>",
        )
    drawn.add_hline(y=1, line={"color": colours.muted, "width": 1, "dash": "dot"})
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text="Layer", dtick=1 if depth["layer"].nunique() <= 16 else None)
    drawn.update_yaxes(title_text="Mean gate (factor)")
    return drawn


def _wrapped(text: str, width: int = 56) -> str:
    short = str(text)[:220]
    return "<br>".join(plotly_text(short[start : start + width]) for start in range(0, max(len(short), 1), width))


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
