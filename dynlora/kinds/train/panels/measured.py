"""Figures of what is measured of a trained adapter: the loss without each module, and the cost of each smaller size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import retention
from dynlora.analysis.retention import compress_file
from dynlora.analysis.run_reading import RunReading
from dynlora.store.measurements import FEWEST, Compressed, Half, Knockouts, Size
from dynlora.store.run import module_scores
from dynlora.store.summary import CALLBACK, RunSummary
from dynlora.text import number, percent, plotly_text, plural, score, sentence_case, signed
from dynlora.viz.kit import rank_picture, theme
from dynlora.viz.kit.charts import add_band
from dynlora.viz.kit.module_map import MapView, colour_of
from dynlora.viz.kit.panel import Choice, Panel, Picks, Picture, RunView
from dynlora.viz.kit.theme import Palette

LOST = "Loss without − with the module"
HOVERED = ["short", "low", "high", "changed", "position"]


def why_not(recorded_by: str | None) -> str:
    """Return why a run without an adapter that could be loaded here is not ablated, and where it is instead.

    Args:
        recorded_by: as `queries.recorded_by` returns it.
    """
    if recorded_by is None:
        return "This run has no saved adapter, so no new measurement is possible."
    if recorded_by == CALLBACK:
        return "This run was recorded, so it is ablated in its own script: RecordCallback(..., ablate_rows=256)."
    return "This run was recorded, and its adapter is not here, so no new measurement is possible."


@dataclass(frozen=True)
class Ablation:
    """What was measured of a run without its modules.

    Attributes:
        knockouts: the ablations.
        numbers: as `retention.effects` returns them; at least one.
        run: as it is read.
    """

    knockouts: Knockouts
    numbers: pd.DataFrame
    run: RunReading


def ablation_of(run: RunReading) -> Ablation | None:
    """Return the ablations of a run; None where no module was measured alone."""
    knockouts = None if run.modules.empty else retention.kept(run.folder)
    effect = retention.effects(knockouts, run.modules)
    return None if knockouts is None or effect.empty else Ablation(knockouts, effect, run)


class ModuleAblation(Panel[Ablation]):
    """What held-out examples lose without each module, with its interval."""

    id = "knockouts"
    order = 41
    part = "Module ablation"
    title = "Module ablation"
    missing = "No module ablation was measured."
    command = ("ablate",)
    is_wide = True

    def picks(self, view: RunView) -> Picks:
        """Return that a click chooses a module, by its position."""
        return Picks("module", view.result.modules.sort_values("position")["name"].tolist())

    def data(self, view: RunView) -> Ablation | None:
        """Return the ablations of single modules; None without any."""
        return ablation_of(view.result)

    def caption(self, data: Ablation) -> str:
        """Return how many modules help, and on which adapter that was measured."""
        words = retention.effect_caption(data.numbers, len(data.run.modules), data.knockouts.rows)
        return f"{words} {retention.adapter_caption(data.knockouts, data.run.summary.step)}"

    def table(self, data: Ablation) -> pd.DataFrame:
        """Return a row for each module, with names that need no page beside them."""
        names = {"short": "module", "delta": "loss change", "low": "low", "high": "high"}
        table = data.numbers[list(names)].rename(columns=names)
        sure = ["yes" if sure else "no" for sure in data.numbers["sure"]]
        more = {"changed predictions (%)": 100 * data.numbers["changed"], "CI excludes 0": sure}
        return table.assign(**more, name=data.numbers["name"])

    def figure(self, data: Ablation, colours: Palette) -> go.Figure:
        """Draw a bar for each module with its interval, in the order of the effects; those in doubt are pale."""
        effect, drawn = data.numbers, theme.figure(colours, 300)
        x = list(range(len(effect)))
        names = [plotly_text(name) for name in effect["short"]]
        shade = [
            (colours.accent if delta > 0 else colours.second) if sure else theme.faded(colours.muted, 0.6)
            for delta, sure in zip(effect["delta"], effect["sure"], strict=True)
        ]
        drawn.add_bar(
            x=x,
            y=effect["delta"],
            marker={
                "color": shade,
                "line": {
                    "color": colours.text,
                    "width": [2.0 if name == data.run.module else 0.0 for name in effect["name"]],
                },
            },
            customdata=effect.assign(short=names, changed=100 * effect["changed"])[HOVERED].to_numpy(),
            error_y=theme.interval(effect["delta"], effect, colours.muted, thickness=1, width=2),
            hovertemplate="%{customdata[0]}<br>%{y:+.5f} (%{customdata[1]:+.5f} to %{customdata[2]:+.5f})"
            "<br>%{customdata[3]:.1f} % of the predictions change<extra></extra>",
        )
        drawn.add_hline(y=0, line={"color": colours.muted, "width": 1})
        drawn.update_xaxes(**theme.name_axis(names, colours))
        drawn.update_yaxes(title_text=LOST)
        return drawn


class AblationByGroup(Panel[pd.DataFrame]):
    """What each input group loses without each module."""

    id = "knockouts_by_group"
    order = 42
    part = "Module ablation"
    title = "Loss change by input group"
    missing = "No ablation of this run has input groups."
    is_wide = True
    is_optional = True

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return a row for each group, a column for each module; None of fewer than two groups."""
        ablation = ablation_of(view.result)
        groups = pd.DataFrame() if ablation is None else retention.by_group(ablation.knockouts, view.result.modules)
        return groups if len(groups) > 1 else None

    def caption(self, data: pd.DataFrame) -> str:
        """Return what the colours mean."""
        return (
            "Above 0: the group's loss rises without the module, which helps it. Below 0: the module harms the group."
        )

    def table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the loss changes with the names of the groups."""
        return data.reset_index(names="group")

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw groups by modules."""
        drawn = theme.figure(colours, int(np.clip(170 + 34 * len(data), 240, 640)))
        names = [plotly_text(name) for name in data.columns]
        drawn.add_heatmap(
            z=data.to_numpy(float),
            x=list(range(len(names))),
            y=[plotly_text(group, 24) for group in data.index],
            hoverongaps=False,
            xgap=theme.column_gap(len(names)),
            ygap=1,
            customdata=np.tile(np.array(names, dtype=object), (len(data), 1)),
            hovertemplate="%{y}<br>%{customdata}<br>%{z:+.5f}<extra></extra>",
            **colour_of(data, MapView("Loss change", centre=0.0, least=1e-6), colours, 1.0),
        )
        drawn.update_xaxes(**theme.name_axis(names, colours))
        drawn.update_yaxes(type="category", autorange="reversed", showgrid=False)
        return drawn


@dataclass(frozen=True)
class Scored:
    """Effects of modules beside what claims to know them: all scores, and the name of the one that is drawn."""

    numbers: pd.DataFrame
    scores: Mapping[str, np.ndarray]
    name: str


class ScoresAgainstAblation(Panel[Scored]):
    """A recorded score of each module against what is lost without it."""

    id = "scores"
    order = 43
    part = "Module ablation"
    title = "Scores against the ablation"
    missing = "Too few modules were ablated, or no score was recorded."
    is_wide = True
    is_optional = True

    def choice(self, view: RunView) -> Choice | None:
        """Return the scores that can be drawn."""
        scores = recorded_scores(view.result)
        return Choice("score", "Score", {name: name for name in scores}, next(iter(scores))) if scores else None

    def data(self, view: RunView) -> Scored | None:
        """Return the chosen score beside the effects."""
        ablation, choice = ablation_of(view.result), self.choice(view)
        if ablation is None or choice is None or len(ablation.numbers) < retention.LEAST:
            return None
        scores, name = recorded_scores(view.result), choice.of(view)
        effect = ablation.numbers
        return Scored(effect.assign(score=np.asarray(scores[name], float)[effect["position"]]), scores, name)

    def caption(self, data: Scored) -> str:
        """Return how well the score ranks the modules."""
        return retention.agreement_caption(data.name, retention.agreement(data.scores[data.name], data.numbers))

    def figure(self, data: Scored, colours: Palette) -> go.Figure:
        """Draw a point for each module, one colour a kind."""
        drawn = theme.figure(colours, 360)
        style = theme.kind_styles(data.numbers["label"].tolist())
        for label, part in data.numbers.groupby("label", sort=False):
            colour, symbol, _ = style[str(label)]
            drawn.add_scatter(
                x=part["score"],
                y=part["delta"],
                mode="markers",
                name=plotly_text(label, 24),
                marker={"color": colour, "symbol": symbol, "size": 9},
                customdata=[plotly_text(name) for name in part["short"]],
                error_y=theme.interval(part["delta"], part, colours.muted, thickness=0.8, width=0),
                hovertemplate="%{customdata}<br>score %{x:.4~g}<br>%{y:+.5f} without the module<extra></extra>",
            )
        drawn.add_hline(y=0, line={"color": colours.muted, "width": 1})
        drawn.update_layout(showlegend=True)
        drawn.update_xaxes(title_text=plotly_text(sentence_case(data.name), 60), exponentformat="power")
        drawn.update_yaxes(title_text=LOST)
        return drawn

    def more(self, data: Scored) -> Mapping[str, pd.DataFrame]:
        """Return how well each score ranks the modules (Spearman, 95 % CI over modules), and its errors."""
        wrong = retention.misjudged(data.scores[data.name], data.numbers)
        return {
            "Rank correlation of each score with the loss change": retention.agreements(data.scores, data.numbers),
            f"Largest rank errors of {data.name}": wrong.assign(score=wrong["score"].map(number)),
        }


def recorded_scores(run: RunReading) -> dict[str, np.ndarray]:
    """Return the recorded scores; one of another width is none of this run's."""
    return {name: score for name, score in module_scores(run.folder).items() if len(score) == len(run.modules)}


METHODS = ("global", "uniform", "energy", "random")
"""How components are chosen, the one that is offered first."""

TITLES = {
    "global": "one threshold",
    "uniform": "equal ranks",
    "energy": "equal energy (PEFT)",
    "random": "random components",
}
"""What each of them is called."""

SCORES = ("accuracy", "f1", "matthews", "pearson", "exact_match", "token_accuracy")
"""Metrics that a size is told by, the first that there is."""


TOLERANCES = (0.001, 0.005, 0.01, 0.02, 0.05)
"""Increases of the held-out loss that can count as none, nats; the second one is the usual."""


def measured(folder: Path, summary: RunSummary) -> Compressed | None:
    """Return the sizes that were measured of the adapter as it is now, None where there are none to choose from.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
    """
    result = Compressed.read(compress_file(folder))
    fits = result is not None and result.is_whole and result.step == summary.step and offered(result)
    return result if fits else None


def best(result: Compressed, tolerance: float) -> Size:
    """Return the smallest size shown to cost at most a tolerance, in nats; the largest where none is."""
    return result.smallest(tolerance) or offered(result)[-1]


def curve_points(result: Compressed) -> pd.DataFrame:
    """Return one row per method and size, on the rows that no size was chosen on.

    Columns: method, share (kept, of the parameters), parameters, loss, difference, low, high, and the score's name.
    """
    name = score_of(result)
    return pd.DataFrame(
        [
            {
                "method": size.method,
                "share": kept_share(result, size),
                "parameters": size.parameters,
                "loss": size.reported_on.loss,
                "difference": size.reported_on.difference,
                "low": size.reported_on.low,
                "high": size.reported_on.high,
                **({} if name is None else {name: size.reported_on.metrics.get(name)}),
            }
            for size in result.sizes
        ]
    )


def kept_share(result: Compressed, size: Size) -> float:
    """Return the fraction of the adapter's parameters that a size keeps, 0 to 1."""
    return size.parameters / result.parameters if result.parameters else 0.0


def score_of(result: Compressed) -> str | None:
    """Return the metric that the sizes are told by; None where there is only the loss."""
    return next((name for name in SCORES if name in result.whole.metrics), None)


def offered(result: Compressed) -> list[Size]:
    """Return the sizes that can be chosen, the smallest first; one for each number of parameters."""
    sizes = {size.parameters: size for size in result.of_method(METHODS[0]) if size.parameters}
    return [sizes[n] for n in sorted(sizes)]


def pattern(result: Compressed, size: Size, modules: pd.DataFrame) -> pd.DataFrame:
    """Return the kept rank of each module as a picture of the model: rows are layers, columns kinds of modules.

    Args:
        result: the sizes.
        size: one of them.
        modules: as `analysis.frames.described` returns them.
    """
    return rank_picture.pattern(result.ranks_of(size), modules)


def by_kind(result: Compressed, size: Size, modules: pd.DataFrame) -> pd.DataFrame:
    """Return one row per kind of module: kind, modules, before and kept (mean ranks), share (kept, of its parameters).

    Args:
        result: the sizes; the largest is what there was before.
        size: one of them.
        modules: as `analysis.frames.described` returns them.
    """
    before, after = result.ranks_of(offered(result)[-1]), result.ranks_of(size)
    frame = modules[["name", "label", "cost"]].copy()
    frame["before"] = [before.get(name, 0) for name in frame["name"]]
    frame["kept"] = [after.get(name, 0) for name in frame["name"]]
    rows: list[Mapping[str, Any]] = []
    for label, part in frame.groupby("label", sort=False):
        whole = float((part["before"] * part["cost"]).sum())
        share = float((part["kept"] * part["cost"]).sum()) / whole if whole else np.nan
        rows.append(
            {
                "kind": label,
                "modules": len(part),
                "mean rank before": part["before"].mean(),
                "mean rank kept": part["kept"].mean(),
                "kept": share,
            }
        )
    return pd.DataFrame(rows).sort_values("kept", ascending=False, kind="stable").reset_index(drop=True)


def empty_modules(size: Size) -> int:
    """Return how many modules keep nothing."""
    return sum(rank == 0 for rank in size.ranks)


def uniform_rank(size: Size, modules: pd.DataFrame) -> int:
    """Return the rank at which plain LoRA on all modules has about as many parameters, 1 or more."""
    cost = float(modules["cost"].sum())
    return max(1, round(size.parameters / cost)) if cost else 1


def values_text(values: Mapping[str, Any]) -> list[str]:
    """Return settings as arguments of the command line."""
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def compared_share(result: Compressed, share: float) -> float | None:
    """Return the size nearest to a fraction at which every way to choose was measured; None where there is none."""
    measured = [{size.share for size in result.of_method(method)} for method in METHODS]
    common = set.intersection(*measured)
    return min(common, key=lambda one: abs(one - share)) if common else None


def compared(result: Compressed, share: float) -> pd.DataFrame:
    """Return what each way to choose costs at a size: parameters, loss and its change with the interval."""
    rows = []
    for method in METHODS:
        size = next(one for one in result.of_method(method) if one.share == share)
        worth = size.reported_on
        rows.append(
            {
                "kept by": TITLES[method],
                "parameters": size.parameters,
                "loss": worth.loss,
                "loss change": worth.difference,
                "95 % CI from": worth.low,
                "to": worth.high,
            }
        )
    return pd.DataFrame(rows)


DASHES = {"global": "solid", "uniform": "dash", "energy": "dashdot", "random": "dot"}
TICKS = (1, 2, 5, 10, 20, 50, 100)
"""Percent of the parameters that the axis names."""


def curve(points: pd.DataFrame, share: float, tolerance: float, colours: Palette) -> go.Figure:
    """Draw the loss change over the kept fraction of the parameters, a line for each way to choose.

    Args:
        points: as `model.points` returns them.
        share: that is chosen, 0 to 1.
        tolerance: nats that count as none.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 340)
    ink = dict(zip(METHODS, (colours.accent, colours.second, *theme.CATEGORICAL[2:4]), strict=True))
    for method in METHODS:
        part = points[points["method"] == method].sort_values("share")
        if part.empty:
            continue
        if method == METHODS[0]:
            add_band(drawn, part.assign(x=100 * part["share"]), TITLES[method], ink[method])
        drawn.add_scatter(
            x=100 * part["share"],
            y=part["difference"],
            mode="lines+markers",
            name=plotly_text(TITLES[method]),
            line={"color": ink[method], "dash": DASHES[method], "width": 2.4 if method == METHODS[0] else 1.5},
            marker={"size": 6 if method == METHODS[0] else 4},
            customdata=part[["parameters", "low", "high"]],
            hovertemplate="%{x:.1f} % of the parameters (%{customdata[0]:,})<br>%{y:+.4f} nats "
            "(%{customdata[1]:+.4f} to %{customdata[2]:+.4f})<extra>%{fullData.name}</extra>",
        )
    drawn.add_hline(y=0, line={"color": colours.muted, "width": 1})
    drawn.add_hline(y=tolerance, line={"color": colours.muted, "width": 1, "dash": "dot"})
    drawn.add_vline(x=100 * share, line={"color": colours.text, "width": 1.4})
    ticks = [tick for tick in TICKS if tick >= 100 * points["share"].min() * 0.7]
    drawn.update_xaxes(
        type="log", title_text="Parameters kept (%)", tickmode="array", tickvals=ticks, ticktext=list(map(str, ticks))
    )
    drawn.update_yaxes(title_text="Loss change (nats)")
    drawn.update_layout(showlegend=True)
    _zoom(drawn, points)
    return drawn


def _zoom(drawn: go.Figure, points: pd.DataFrame) -> None:
    """Leave room for the line that is offered: random choice may cost many times as much."""
    mine = points[points["method"] == METHODS[0]]
    top, bottom = float(mine["high"].max()), float(min(mine["low"].min(), 0.0))
    reach = max(top - bottom, 1e-3)
    drawn.update_yaxes(range=[bottom - 0.08 * reach, top + 0.6 * reach])


WHAT = (
    "Takes the update of each module apart (singular values) and keeps the components with the largest effect per "
    "parameter, by one threshold over all modules. No training. Each size is measured on held-out examples."
)
"""What the page does, where nothing has been measured yet."""


def without_adapter(recorded_by: str | None) -> str:
    """Say how to get sizes where a run has no adapter.

    Args:
        recorded_by: as `queries.recorded_by` returns it.
    """
    none = "This run has no saved adapter, so no new measurement is possible. Select a run that has one, or"
    if recorded_by is None:
        return f"{none} train this one again: a run that is trained here keeps its adapter."
    if recorded_by == CALLBACK:
        return f"{none} record it again: RecordCallback keeps the adapter unless keep_adapter=False."
    return f"{none} train it here."


def headline(result: Compressed, size: Size) -> str:
    """Say what a size keeps, what that costs, and whether too few examples say so."""
    worth, seen = size.reported_on, _seen(result)
    few = f". It rests on {plural(seen, 'held-out example')}: too few to rely on." if seen < FEWEST else ""
    return (
        f"Keep {percent(kept_share(result, size), 0)} of the parameters "
        f"({size.parameters:,} of {result.parameters:,}): held-out loss {change(worth)}{_scores(result, worth)}{few}"
    )


def _seen(result: Compressed) -> int:
    """Return how many held-out examples a size is reported on."""
    return result.rows - result.rows // 2


def change(worth: Half) -> str:
    """Say how far the loss differs from that of the whole adapter."""
    return f"{signed(worth.difference, 4)} nats (95 % CI {signed(worth.low, 4)} to {signed(worth.high, 4)})"


def _scores(result: Compressed, worth: Half) -> str:
    name = score_of(result)
    if name is None or name not in worth.metrics:
        return ""
    return f"; {name.replace('_', ' ')} {score(worth.metrics[name])} against {score(result.whole.metrics[name])}"


def basis(result: Compressed, size: Size, tolerance: float) -> str:
    """Say what a size rests on: which rows it was chosen and reported on, and whether it is the one to take."""
    chosen, judged = result.smallest(tolerance), result.rows // 2
    basis_text = f"{_unsure(size, tolerance)}Measured on {_seen(result):,} held-out examples, which chose no size."
    if chosen is None:
        return f"{basis_text} No size was shown to cost at most {tolerance:g} nats on the other {judged:,}."
    within = f"the smallest size shown to cost at most {tolerance:g} nats"
    if chosen.parameters == size.parameters:
        return f"{basis_text} It was chosen on {judged:,} others, as {within}."
    fraction = percent(kept_share(result, chosen), 0)
    side = "Larger than needed" if size.parameters > chosen.parameters else "Smaller than what was shown good enough"
    return f"{basis_text} {side}: {fraction} is {within} on {judged:,} others."


def _unsure(size: Size, tolerance: float) -> str:
    """Say that the interval of what is reported ends above a tolerance; nothing where it does not."""
    if size.reported_on.high <= tolerance:
        return ""
    return f"The interval ends above {tolerance:g} nats, so it may cost more. "


def picture(size: Size) -> str:
    """Say what the picture of the model shows."""
    gone = empty_modules(size)
    keep = "keeps" if gone == 1 else "keep"
    without = f"; {gone} of {plural(len(size.ranks), 'module')} {keep} no adapter" if gone else ""
    return f"Kept rank of each module, {min(size.ranks)} to {max(size.ranks)}{without}."


def curve_caption(result: Compressed) -> str:
    """Say what the curve shows."""
    return (
        "At 0 a size is as good as the whole adapter. Further left is smaller. "
        f"On {_seen(result):,} held-out examples, with 95 % CI for the threshold over all modules."
    )


def curve_picture(result: Compressed, size: Size, tolerance: float, colours: Palette) -> Picture:
    """Return the cost of every size, with that of the other ways to choose.

    Args:
        result: the sizes.
        size: the one that is marked.
        tolerance: nats that count as none, a line.
        colours: of the mode.
    """
    points, share = curve_points(result), kept_share(result, size)
    return Picture(curve(points, share, tolerance, colours), curve_caption(result), points)
