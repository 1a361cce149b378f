"""Races at equal budget between recorded runs: a case in which moving rank helps, and one in which it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dynlora.analysis import result_strip, run_summary, seed_groups
from dynlora.analysis.frames import records
from dynlora.analysis.pairing import FEWEST_SEEDS, RunPairs, terms
from dynlora.analysis.verdict import Contest, Verdict, verdict
from dynlora.store import queries
from dynlora.store.meta import section
from dynlora.text import listed, one_line, plotly_text, plural, score, source_name
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare.figures import add_band
from dynlora.viz.kit import theme
from dynlora.viz.kit.run_colours import run_colour
from dynlora.viz.kit.theme import Palette
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, headed, in_row, note, safe
from dynlora.viz.ui.frame import documentation
from dynlora.viz.ui.run_picker import link

HEIGHT = 168
"""Pixels of a race's chart."""


@dataclass(frozen=True)
class Race:
    """A method against plain LoRA at the same budget, over common seeds.

    Attributes:
        summaries: of a run of plain LoRA and of one of the method, as `queries.run_summary` returns them.
        verdict: on the method.
        contest: of the verdict: the method against plain LoRA.
        bands: held-out loss over steps of both, as `seed_groups.bands` returns it; plain LoRA first.
    """

    summaries: tuple[Mapping[str, Any], Mapping[str, Any]]
    verdict: Verdict
    contest: Contest
    bands: pd.DataFrame

    @property
    def summary(self) -> Mapping[str, Any]:
        """Of a run of the method."""
        return self.summaries[1]

    @property
    def is_won(self) -> bool:
        """Whether the method is better."""
        return self.contest.outcome == "better"

    @property
    def runs(self) -> list[str]:
        """Ids of all runs."""
        return [*self.verdict.baseline.runs, *self.contest.group.runs]

    @property
    def names(self) -> list[str]:
        """What plain LoRA and the method are called."""
        return [one_line(group.label, 24) for group in (self.verdict.baseline, self.contest.group)]

    @property
    def answer(self) -> result_strip.Answer:
        """Whether the method helps, with its figure and interval, as the page of one run says it."""
        return result_strip.result_strip(self.summary, self.verdict, None).verdict

    @property
    def title(self) -> str:
        """The task: data, number of classes and rank."""
        classes, rank = len(self.summary["labels"]), section(self.summary["config"], "adapter").get("rank")
        parts = [one_line(source_name(self.summary["data"] or "?"), 30), f"{classes} classes" if classes else ""]
        return ", ".join(filter(None, [*parts, f"rank\u00a0{rank}"]))


def races(runs: pd.DataFrame) -> list[Race]:
    """Return the races among sample runs with enough seeds: the clearest that the method wins, then one it does not.

    Args:
        runs: as `run_picker.list_all` returns them.

    Raises:
        DynloraError: when a run cannot be read.
    """
    samples = records(runs[~runs["is_own"] & (runs["status"] == "finished")])
    return _races(tuple((row["id"], row["folder"]) for row in samples), samples)


@st.cache_data(max_entries=8, ttl=3600, show_spinner=False)
def _races(key: tuple[tuple[str, str], ...], _samples: Sequence[Mapping[str, Any]]) -> list[Race]:
    """Return the races among samples, which `key` names: id and folder."""
    every = [race for rows in _fields(_samples) if (race := _race(rows)) is not None]
    every.sort(key=lambda race: race.contest.gain, reverse=True)
    won = [race for race in every if race.is_won]
    return [*won[:1], *[race for race in every if not race.is_won][:1]]


def _fields(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the runs of each task and budget with at least two configurations of enough seeds, without the others."""
    fields: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        fields.setdefault(terms(row), []).append(row)
    large: list[list[Mapping[str, Any]]] = []
    for field in fields.values():
        groups = [group for group in seed_groups.grouped(field) if len(group.runs) >= FEWEST_SEEDS]
        ids = {run for group in groups for run in group.runs}
        if len(groups) > 1:
            large.append([row for row in field if row["id"] in ids])
    return large


def _race(rows: Sequence[Mapping[str, Any]]) -> Race | None:
    """Return the race of some runs with the method that gains most; None where none of them is plain LoRA."""
    folders = {str(row["id"]): Path(row["folder"]) for row in rows}
    summaries = {run: cached_queries.ask(queries.run_summary, folder) for run, folder in folders.items()}
    result = verdict(summaries, RunPairs(folders, summaries, cached_queries.ask_events).differences)
    contest = None if result is None else result.decisive
    if result is None or contest is None or not result.is_plain:
        return None
    groups = [result.baseline, contest.group]
    each = {run: _losses(folders[run]) for group in groups for run in group.runs}
    series = compare_model.together(each)
    bands = seed_groups.bands(series.assign(x=series["step"]), groups, between=False)
    first, second = (summaries[group.runs[0]] for group in groups)
    return Race((first, second), result, contest, bands)


def _losses(folder: Path) -> pd.DataFrame:
    scalars = cached_queries.ask(queries.scalars_frame, folder, "loss", "validation", 600)
    return run_summary.series(scalars, "loss", "validation")


def race_card(cases: Sequence[Race]) -> None:
    """Draw races side by side, each with the figure that it ends with; nothing where there are none."""
    if not cases:
        return
    with card(f"Does {cases[0].names[1]} help?", "race"):
        note(conditions(cases[0]))
        for race, place in zip(cases, st.columns(len(cases), gap="small"), strict=True):
            with place:
                _one(race)
        with in_row("race-next", "top"):
            link("pages/launch.py", "Test yours", data="upload")
            link("pages/compare.py", "Compare these runs", runs=",".join(cases[0].runs))
            documentation("Where the gain comes from", "RESULTS")


def conditions(race: Race) -> str:
    """Say what the sides do, and what both have: the budget, and where it is so the learning rate of the head."""
    baseline, method = race.names
    gates = " and has gates" if (race.summary["params"] or {}).get("gate") else ""
    words = f"{method} moves rank{gates}; uniform {baseline} does not. Recorded runs of equal budget."
    if any(section(summary["config"], "train").get("head_lr") for summary in race.summaries):
        return words
    return f"{words} The head had the learning rate of the adapters; a rate of its own gains more than the method."


def _one(race: Race) -> None:
    key = "race-won" if race.is_won else "race-open"
    with headed(race.title, key):
        chart(figure(race, colours()), caption(race), race.bands.drop(columns=["x"]), key)
    st.markdown(f"#### {safe(race.answer.answer)}")
    note(race.answer.basis)


def caption(race: Race) -> str:
    """Say what the lines are, and where they end."""
    last = race.bands.drop_duplicates("group", keep="last")
    ends = [f"{name} {score(mean)}" for name, mean in zip(race.names, last["mean"], strict=True)]
    sample = run_summary.interim_rows(race.summary)
    rows = f" Before the end: {sample[0]:,} of {plural(sample[1], 'example')}." if sample else ""
    return f"Held-out loss at the end: {listed(ends)}.{rows}"


def figure(race: Race, colours: Palette) -> go.Figure:
    """Draw the mean loss of both sides over steps, with the band of their seeds, each in its method's colour."""
    drawn = theme.figure(colours, HEIGHT, left=36)
    drawn.update_layout(margin={"t": 6, "r": 6, "b": 40})
    groups = dict.fromkeys(race.bands["group"])
    for group, name, colour in zip(groups, race.names, map(run_colour, race.summaries), strict=True):
        part, label = race.bands[race.bands["group"] == group], plotly_text(name)
        add_band(drawn, part, label, colour)
        drawn.add_scatter(
            x=part["x"],
            y=part["mean"],
            mode="lines",
            name=label,
            line={"color": colour, "width": 2.2},
            hovertemplate="%{fullData.name}<br>loss %{y:.3f} at step %{x:,.0f}<extra></extra>",
        )
    inside = {"orientation": "v", "x": 1, "xanchor": "right", "y": 1.04, "yanchor": "top", "font": {"size": 11}}
    drawn.update_layout(showlegend=True, legend=inside)
    drawn.update_xaxes(title_text="Training step", nticks=4)
    drawn.update_yaxes(title_text="Loss (nats)", nticks=5)
    return drawn
