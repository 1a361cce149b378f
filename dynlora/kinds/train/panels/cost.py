"""What a run costs: parameters in use, rank by kind of module, learning rate, step time, numbers of the method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import frames, run_summary
from dynlora.analysis.frames import at_highest
from dynlora.analysis.run_reading import RunReading
from dynlora.store import queries
from dynlora.text import duration, number, one_line, percent, plotly_text, sentence_case, signed
from dynlora.viz.kit import charts, theme
from dynlora.viz.kit.charts import HEIGHT, titled
from dynlora.viz.kit.panel import Panel, Picks, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class Use:
    """The parameters in use by step, as `RunReading.budget` returns them, and their limit."""

    numbers: pd.DataFrame
    limit: int | None


class ParameterBudget(Panel[Use]):
    """The adapter parameters in use, and the budget as a line."""

    id = "budget"
    order = 13
    part = "Cost"
    title = "Parameter budget"
    missing = "The budget is not known yet."

    def data(self, view: RunView) -> Use | None:
        """Return the use of the budget; None before the first step."""
        run: RunReading = view.result
        line = run.store.budget(run.folder, run.summary)
        return None if line.empty else Use(line, run.summary.params.get("budget"))

    def caption(self, data: Use) -> str:
        """Return how much of the budget is in use, and whether it was ever exceeded."""
        return budget(data.numbers, data.limit)

    def figure(self, data: Use, colours: Palette) -> go.Figure:
        """Draw the parameters in use."""
        used = frames.parameters(data.numbers)
        return charts.line(used, "Adapter parameters in use", colours, limit=data.limit, tick=",")


def budget(line: pd.DataFrame, limit: int | None) -> str:
    """Say how much of the budget is in use, and whether it was ever exceeded."""
    known = line.dropna(subset=["parameters"])
    if known.empty or not limit:
        return "The budget is not known yet."
    now, most = float(known["parameters"].iloc[-1]), float(known["parameters"].max())
    over = "never exceeded" if most <= limit else f"exceeded by {number(int(most - limit))}"
    return f"{number(int(now))} of {number(limit)} parameters in use ({percent(now / limit)}); {over}."


@dataclass(frozen=True)
class KindTotals:
    """Components over the steps: column step, then one per kind; and of which modules, in words."""

    numbers: pd.DataFrame
    modules: str


class RankByKind(Panel[KindTotals]):
    """Components by kind of module, stacked."""

    id = "kinds"
    order = 14
    part = "Cost"
    title = "Rank by kind"
    missing = "No ranks have been recorded yet."

    def data(self, view: RunView) -> KindTotals | None:
        """Return the components of the chosen modules; None before the first rank."""
        run: RunReading = view.result
        totals = components_by_kind(run.whole("rank", run.columns), run.selected)
        chosen = " of ".join(one_line(part, 40) for part in (run.kind, run.depth) if part)
        return None if totals.empty else KindTotals(totals, f"the modules of {chosen}" if chosen else "the adapters")

    def picks(self, view: RunView) -> Picks:
        """Return that a click on a band chooses its kind."""
        return Picks("kind", list(dict.fromkeys(view.result.selected["label"])))

    def caption(self, data: KindTotals) -> str:
        """Return which kind gained and which lost most."""
        return by_kind(data.numbers, data.modules)

    def figure(self, data: KindTotals, colours: Palette) -> go.Figure:
        """Draw the components."""
        return ranks_by_kind(data.numbers, colours)


def components_by_kind(ranks: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return the components each kind of module holds: column step, then one per kind.

    Args:
        ranks: one row per module as recorded, one column per step.
        modules: all or some, as `capacity.described` returns them.
    """
    if not ranks.shape[1] or modules["position"].max() >= len(ranks):
        return pd.DataFrame({"step": []})
    columns = {"step": ranks.columns.to_numpy()}
    for label, part in modules.groupby("label", sort=False):
        columns[str(label)] = ranks.to_numpy(float)[part["position"]].sum(axis=0)
    return pd.DataFrame(columns)


def by_kind(totals: pd.DataFrame, modules: str = "the adapters") -> str:
    """Say which kind gained and which lost most components; column step, then one per kind of these modules."""
    first, last = totals.iloc[0, 1:], totals.iloc[-1, 1:]
    change = (last - first).astype(float)
    words = f"At step {int(totals['step'].iloc[-1]):,}, {modules} have {number(int(last.sum()))} components."
    if not change.abs().max():
        return f"No kind changed since the start. {words}"
    won, lost = change.idxmax(), change.idxmin()
    parts = []
    if change.max() > 0:
        parts.append(f"{one_line(won, 24)} gained most ({signed(change.max(), 0)})")
    if change.min() < 0:
        parts.append(f"{one_line(lost, 24)} lost most ({signed(change.min(), 0)})")
    return f"{sentence_case(', '.join(parts))}. {words}"


def ranks_by_kind(totals: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw how many components each kind of module holds over the steps, stacked; column step, then one per kind."""
    drawn = theme.figure(colours, 250)
    styles = theme.kind_styles([str(name) for name in totals.columns[1:]])
    for place, (kind, (colour, _, _)) in enumerate(styles.items()):
        drawn.add_scatter(
            x=totals["step"],
            y=totals[kind],
            mode="lines",
            stackgroup="ranks",
            name=plotly_text(kind, 24),
            line={"color": colour, "width": 0.8, "shape": "hv"},
            fillcolor=theme.faded(colour, 0.55),
            meta={"place": place},
            hovertemplate=f"step %{{x}}<br>{plotly_text(kind, 24)}: %{{y:,}} components<extra></extra>",
        )
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text="Step")
    drawn.update_yaxes(title_text="Components", rangemode="tozero")
    theme.single_step(drawn, totals["step"])
    return drawn


class LearningRate(Panel[pd.DataFrame]):
    """The learning rate by step."""

    id = "lr"
    order = 15
    part = "Cost"
    title = "Learning rate"
    missing = "No learning rate has been recorded yet."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns step and value."""
        series = view.result.series("lr")
        return None if series["value"].isna().all() else series

    def caption(self, data: pd.DataFrame) -> str:
        """Return where the learning rate peaked, and its present value."""
        known = data.dropna(subset=["value"])
        peak = known.loc[at_highest(known["value"])]
        last = number(float(known["value"].iloc[-1]))
        return f"Peak {number(peak['value'])} at step {int(peak['step'])}; current value {last}."

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the line."""
        return charts.line(data, "Learning rate", colours)


SECONDS_FROM = 10_000
"""A median step of so many milliseconds is drawn in seconds."""


@dataclass(frozen=True)
class Times:
    """Columns step, step_ms and strategy_ms; and bytes of the optimizer's state, empty in runs of earlier versions."""

    numbers: pd.DataFrame
    optimizer_bytes: pd.DataFrame


class StepTime(Panel[Times]):
    """The time of the whole step and of the strategy."""

    id = "time"
    order = 16
    part = "Cost"
    title = "Step time"
    missing = "No step has been timed yet."

    def data(self, view: RunView) -> Times | None:
        """Return the times; None before the first step."""
        run: RunReading = view.result
        times = run_summary.step_times(run.scalars)
        return None if times.empty else Times(times, run.series("optimizer_bytes"))

    def caption(self, data: Times) -> str:
        """Return what a step takes, the strategy's part of it, and the size of the optimizer state."""
        return step_time_caption(data.numbers, data.optimizer_bytes)

    def figure(self, data: Times, colours: Palette) -> go.Figure:
        """Draw the times."""
        return step_time(data.numbers, colours)


def step_time_caption(times: pd.DataFrame, kept: pd.DataFrame) -> str:
    """Say what a step takes, the strategy's part of it, and the size of the optimizer state.

    Args:
        times: columns step, step_ms, strategy_ms.
        kept: bytes of the optimizer's state, columns step and value; empty in runs of earlier versions.
    """
    words = (
        f"The median step takes {_step_length(times['step_ms'].median())}; the strategy takes "
        f"{percent(run_summary.strategy_share(times))} of "
        "all step time"
    )
    most = 0.0 if kept.empty else float(kept["value"].max())
    return f"{words}; the optimizer state takes {most / 2**20:.2f} MiB." if most > 0 else f"{words}."


def _step_length(milliseconds: float) -> str:
    return f"{milliseconds:,.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:,.1f} s"


def step_time(times: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the time of each step and the strategy's part of it; columns step, step_ms, strategy_ms."""
    drawn = theme.figure(colours, HEIGHT)
    unit, per = ("s", 1000) if len(times) and times["step_ms"].median() >= SECONDS_FROM else ("ms", 1)
    for column, name, colour in (
        ("step_ms", "Whole step", colours.accent),
        ("strategy_ms", "Strategy", colours.second),
    ):
        drawn.add_scatter(
            x=times["step"],
            y=times[column] / per,
            mode="lines",
            name=name,
            line={"color": colour, "width": 1.5},
            hovertemplate=f"step %{{x}}<br>{name} %{{y:.1f}} {unit}<extra></extra>",
        )
    drawn.update_yaxes(rangemode="tozero", tickformat=",")
    drawn.update_layout(showlegend=True)
    return titled(drawn, f"Time ({unit})")


@dataclass(frozen=True)
class OwnNumber:
    """A number of the method: what it is called, and its columns step and value."""

    word: str
    numbers: pd.DataFrame


class OwnNumbers(Panel[OwnNumber]):
    """A figure for each number that the method counts."""

    id = "own"
    order = 17
    part = "Cost"
    title = "Method metric"
    missing = "The method of this run records no numbers of its own."

    def applies(self, view: RunView) -> bool:
        """Say whether there is one."""
        return bool(self.views(view))

    def views(self, view: RunView) -> Mapping[str, RunView]:
        """Return a view for each number."""
        names = run_summary.own_numbers(view.result.scalars)
        return {f"-{name}": replace(view, chosen={**view.chosen, "own": name}) for name in names}

    def heading(self, view: RunView) -> str:
        """Return the title with the number."""
        return f"{self.title}: {_word(view.chosen['own'])}"

    def data(self, view: RunView) -> OwnNumber | None:
        """Return the chosen number, the first without a choice."""
        run: RunReading = view.result
        names = run_summary.own_numbers(run.scalars)
        name = view.chosen.get("own", next(iter(names), ""))
        return OwnNumber(_word(name), run.series(name)) if name in names else None

    def caption(self, data: OwnNumber) -> str:
        """Return its first and its last value."""
        first, last = (number(data.numbers["value"].iloc[place]) for place in (0, -1))
        if first == last:
            return f"{sentence_case(data.word)} is {last} at the end, as at the start."
        return f"{sentence_case(data.word)} changed from {first} to {last}."

    def figure(self, data: OwnNumber, colours: Palette) -> go.Figure:
        """Draw the line."""
        return charts.line(data.numbers, data.word, colours, zero=False)


def _word(name: str) -> str:
    """Return what people call a number."""
    return one_line(name.replace("_", " ").replace("/", ": "), 60)


class MemoryUse(Panel[pd.DataFrame]):
    """Readings of the memory over the minutes of training.

    Attributes:
        readings: recorded names, and what they are called.
        unit: of the values.
    """

    id = "memory"
    order = 51
    part = "Machine"
    title = "Memory use"
    missing = "Not recorded in this run. Memory and CPU use are recorded about every five seconds of training."
    readings: ClassVar[Mapping[str, str]] = {"rss_mib": "Process", "gpu_memory_mib": "GPU"}
    unit: ClassVar[str] = "MiB"

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return name, minutes since the first reading, and value of each reading; None without any."""
        run: RunReading = view.result
        system = run.store.ask(queries.system_frame, run.folder)
        minutes = (system["time"] - system["time"].min()) / 60
        frame = pd.DataFrame({"name": system["name"], "minutes": minutes, "value": system["value"]})
        known = frame[frame["name"].isin(list(self.readings))].dropna(subset=["value"])
        return None if known.empty else known

    def caption(self, data: pd.DataFrame) -> str:
        """Return the last and the highest value of each reading."""
        unit = self.unit.partition(" of")[0]
        values = data.groupby("name", sort=False)["value"]
        parts = [
            f"{self.readings[str(name)]} {part.iloc[-1]:,.0f} {unit} now, maximum {part.max():,.0f} {unit}"
            for name, part in values
        ]
        return f"{'; '.join(parts)}, over {duration(60 * data['minutes'].max())}."

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw a line for each reading."""
        drawn = theme.figure(colours, 230)
        for name, (colour, _, dash) in theme.contrasting(data["name"].unique().tolist()).items():
            part, called = data[data["name"] == name], self.readings[name]
            drawn.add_scatter(
                x=part["minutes"],
                y=part["value"],
                mode="lines" if len(part) > 20 else "lines+markers",
                name=called,
                line={"color": colour, "width": 1.8, "dash": dash},
                hovertemplate=f"%{{x:.1f}} min<br>{called} %{{y:,.0f}}<extra></extra>",
            )
        drawn.update_layout(showlegend=data["name"].nunique() > 1)
        drawn.update_xaxes(title_text="Minutes since the first reading")
        drawn.update_yaxes(title_text=f"{self.title} ({self.unit})", rangemode="tozero")
        return drawn


class ProcessorUse(MemoryUse):
    """Readings of the processor over the minutes of training."""

    id = "processor"
    order = 52
    title = "CPU use"
    readings: ClassVar[Mapping[str, str]] = {"cpu_percent": "Process"}
    unit = "% of one core"
