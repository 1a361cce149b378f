"""The verdict as the first card of Compare and Run, with one button for what to run next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dynlora.analysis import result_strip, run_summary, seed_groups, verdict_text
from dynlora.analysis.frames import records
from dynlora.analysis.pairing import FEWEST_SEEDS, RunPairs, same_task, terms
from dynlora.analysis.run_summary import ACTIVE
from dynlora.analysis.verdict import Contest, Verdict, verdict
from dynlora.analysis.verdict_text import NextRuns, next_runs
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.store.meta import section
from dynlora.store.summary import RunSummary
from dynlora.text import first_sentence, one_line, plotly_text, plural, score, source_name
from dynlora.viz.compare import figures as verdict_figures
from dynlora.viz.compare.panels import compared
from dynlora.viz.compare.panels.trainings import HeldOutMetric
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import add_band
from dynlora.viz.kit.run_colours import run_colour
from dynlora.viz.kit.theme import Palette
from dynlora.viz.launch.form_model import UNIFORM
from dynlora.viz.launch.start_from import twin_button
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, command_popover, headed, in_row, note, rows, safe
from dynlora.viz.ui.frame import documentation
from dynlora.viz.ui.live import announce
from dynlora.viz.ui.run_actions import sweep_once
from dynlora.viz.ui.run_picker import Chosen, find_run, is_read_only, link, list_all, runs_dir

UNBROKEN = "95\u00a0%\u00a0CI"

ABOUT = "Which configuration to use, judged by the difference on the same held-out examples, over common seeds."

MOST_READ = 30
"""Most runs of a task that are opened for the verdict on one of them."""


def verdict_of_runs(
    results: Sequence[Verdict],
    summaries: Mapping[str, RunSummary],
    notes: Sequence[str],
    times: float = 1.0,
) -> None:
    """Draw which configuration to use for each task of runs that are compared, then how the runs differ.

    Args:
        results: a verdict for each task; the chart is of the first.
        summaries: of the runs, by id.
        notes: what else is said of them, such as in which settings they differ.
        times: how much larger the chart is than on its page; a presentation offers no further runs.
    """
    with card("Verdict", "verdict"):
        for result in results:
            first = summaries[result.baseline.runs[0]]
            where = f" :gray[{safe(str(first.model))}, {first.max_steps:,} steps]" if len(results) > 1 else ""
            st.markdown(f"{bold(result)}{where}")
        outlook = verdict_text.outlook(results[0]) if results else ""
        note(" ".join(filter(None, (*notes, outlook))))
        if results and times == 1:
            with in_row("verdict-next"):
                _next(results[0], next_runs(results[0], summaries), summaries, list(summaries))
        if results:
            _evidence(results[0], times)


@dataclass(frozen=True)
class JudgedRun:
    """A run among its like.

    Attributes:
        verdict: None where there is none.
        summaries: of the runs that may have a part in it, by id.
        problem: why there is none, where another run cannot be read.
    """

    verdict: Verdict | None = None
    summaries: Mapping[str, RunSummary] = field(default_factory=dict[str, RunSummary])
    problem: str = ""


def judged_run(run: Chosen, summary: RunSummary) -> JudgedRun:
    """Return a run set against plain LoRA on the same data, where it has finished and there is such a run."""
    if summary.status != "finished":
        return JudgedRun()
    try:
        return JudgedRun(*_against_alike(run, summary))
    except DynloraError as error:  # of another run, which is no reason to keep this one from being seen
        return JudgedRun(problem=f"There is no verdict, because a run on the same data cannot be read: {error}")


def next_step(run: Chosen, summary: RunSummary, judged: JudgedRun) -> None:
    """Draw the one next step to a surer verdict, or why there is none.

    Where no seeds are missing it is the baseline of the same seed, also while the run trains.

    Args:
        run: the run.
        summary: as `queries.run_summary` returns it.
        judged: the run among its like.
    """
    if judged.problem:
        note(judged.problem)
    is_drawn = False
    if judged.verdict is not None:
        with in_row("verdict-next"):
            is_drawn = _next(judged.verdict, next_runs(judged.verdict, judged.summaries), judged.summaries, ())
    is_judged = judged.verdict is not None or summary.status in ACTIVE
    if is_judged and not is_drawn and not _has_twin(summary):
        twin_button(run)


def _has_twin(summary: RunSummary) -> bool:
    """Say whether the other side of the comparison with plain LoRA has a run of the same task and seed, or will."""
    alike = same_task(list_all(), dict(summary))
    alike = alike[(alike["seed"] == summary.seed) & alike["status"].isin(["finished", *ACTIVE])]
    is_plain = alike["strategy"] == UNIFORM
    return bool((~is_plain if summary.strategy == UNIFORM else is_plain).any())


def verdict_evidence(judged: JudgedRun, times: float = 1.0) -> None:
    """Draw what the verdict on a run rests on, its chart so many times as large; nothing without one."""
    if judged.verdict is not None:
        with card("Verdict", "verdict", ABOUT):
            _words(judged.verdict)
            _evidence(judged.verdict, times)


def verdict_sentence(run: Chosen, summary: RunSummary) -> str:
    """Return the verdict on one run in a sentence, as Markdown; empty where there is none."""
    with suppress(DynloraError):
        result, _ = _against_alike(run, summary)
        if result is not None:
            return bold(result)
    return ""


def _against_alike(run: Chosen, summary: RunSummary) -> tuple[Verdict | None, dict[str, RunSummary]]:
    """Return the verdict on a run among those of the same task, and their summaries."""
    folders = {run.id: run.folder} | {one.id: one.folder for one in _runs_like(run, summary)}
    summaries = {key: one for key, folder in folders.items() if (one := _summary(folder)) is not None}
    differences = RunPairs(folders, summaries, cached_queries.ask_events).differences
    return verdict(summaries, differences, focus=run.id), summaries


def bold(result: Verdict) -> str:
    """Return a verdict in a sentence, as Markdown."""
    return f"**{safe(verdict_text.headline(result)).replace('95 % CI', UNBROKEN)}**"


def _summary(folder: Path) -> RunSummary | None:
    """Return the summary of a run; None where it cannot be read."""
    try:
        return cached_queries.ask(queries.run_summary, folder)
    except DynloraError:
        return None


def _runs_like(run: Chosen, summary: RunSummary) -> list[Chosen]:
    """Return the newest other runs on the same model and data, of the same length, that have a result or will."""
    alike = same_task(list_all(), dict(summary))
    return [find_run(run_id) for run_id in alike.loc[alike["status"].isin(["finished", *ACTIVE]), "id"].head(MOST_READ)]


def _words(result: Verdict) -> None:
    """Draw the verdict in a sentence, and what would change it."""
    st.markdown(bold(result))
    notes = " ".join(filter(None, (verdict_text.outlook(result), verdict_text.left_out(result))))
    if notes:
        note(notes)


def _evidence(result: Verdict, times: float = 1.0) -> None:
    """Draw the differences that the verdict rests on; as a table alone where nothing can be drawn."""
    if not result.contests:
        return
    contests, table = verdict_figures.drawable(result), verdict_text.table(result)
    if contests:
        caption = verdict_text.drawn(result, len(contests))
        drawn = verdict_figures.differences(result, colours())
        chart(theme.enlarged(drawn, times), caption, table, "verdict")
    else:
        rows(table)


def _next(result: Verdict, runs: NextRuns | None, summaries: Mapping[str, RunSummary], compared: Sequence[str]) -> bool:
    """Draw the one next step, more seeds or a baseline, and say whether there is one or the seeds are under way."""
    if runs is not None and runs.under_way:
        note(verdict_text.under_way(runs))
    if result.decisive is None and all(contest.is_confounded for contest in result.contests):
        single = result.contests[0].group if result.contests else result.baseline
        twin_button(find_run(max(single.runs)))
        return True
    if runs is not None and runs.n and not is_read_only():
        configs = {run: dict(summaries[run].config) for run in runs.seeds}
        if st.button(
            verdict_text.button(runs),
            icon=":material/add:",
            key="verdict-run",
            type="primary" if compared else "secondary",
        ):
            _queue(configs, runs, compared)
        if compared:
            command_popover("\n".join(_commands(runs)), "verdict-command")
        return True
    return runs is not None


def _commands(runs: NextRuns) -> list[str]:
    return [
        shlex.join(
            [
                "dynlora",
                "sweep",
                "--config",
                str(find_run(run).folder / "config.yaml"),
                "--set",
                f"seed={_listed(seeds)}",
                "--runs-dir",
                str(runs_dir()),
            ]
        )
        for run, seeds in runs.seeds.items()
    ]


def _listed(seeds: Sequence[int]) -> str:
    return ",".join(map(str, seeds))


def _queue(configs: Mapping[str, dict[str, Any]], runs: NextRuns, compared: Sequence[str]) -> None:
    """Queue the missing seeds of each side; a second press before the page is refreshed queues nothing more."""
    sweeps = [({**configs[run], "name": None}, {"seed": _listed(seeds)}) for run, seeds in runs.seeds.items()]
    ids = sweep_once(sweeps, "verdict")
    if ids is None:
        return
    announce(f"Queued: {plural(len(ids), 'run')}")
    if compared:  # the new runs come to those that are compared, so that the verdict grows with them
        st.query_params["runs"] = ",".join([*compared, *ids])
    st.rerun()


HEIGHT = 168
"""Pixels of a race's chart."""

MOST_RACES = 2
"""Races that are drawn side by side."""


@dataclass(frozen=True)
class Race:
    """A method against plain LoRA at the same budget, over common seeds.

    Attributes:
        summaries: of a run of plain LoRA and of one of the method, as `queries.run_summary` returns them.
        verdict: on the method.
        contest: of the verdict: the method against plain LoRA.
        bands: held-out loss over steps of both, as `seed_groups.bands` returns it; plain LoRA first.
    """

    summaries: tuple[RunSummary, RunSummary]
    verdict: Verdict
    contest: Contest
    bands: pd.DataFrame

    @property
    def summary(self) -> RunSummary:
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
        classes, rank = len(self.summary.labels), section(self.summary.config, "adapter").get("rank")
        parts = [one_line(source_name(self.summary.data or "?"), 30), f"{classes} classes" if classes else ""]
        return ", ".join(filter(None, [*parts, f"rank\u00a0{rank}"]))


def races(runs: pd.DataFrame) -> list[Race]:
    """Return two races among sample runs with enough seeds: the clearest that the method wins, then ones it does not.

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
    return [*won[:1], *[race for race in every if not race.is_won]][:MOST_RACES]


def _fields(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the runs of each task and budget with at least two configurations of enough seeds, without the others."""
    fields: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        fields.setdefault(terms(row), []).append(row)
    large: list[list[Mapping[str, Any]]] = []
    for alike in fields.values():
        groups = [group for group in seed_groups.grouped(alike) if len(group.runs) >= FEWEST_SEEDS]
        ids = {run for group in groups for run in group.runs}
        if len(groups) > 1:
            large.append([row for row in alike if row["id"] in ids])
    return large


def _race(rows: Sequence[Mapping[str, Any]]) -> Race | None:
    """Return the race of some runs with the method that gains most; None where none of them is plain LoRA."""
    runs = compared({str(row["id"]): Path(row["folder"]) for row in rows}, cached_queries.CACHED)
    result = runs.judged
    contest = None if result is None else result.decisive
    if result is None or contest is None or not result.is_plain:
        return None
    groups = [result.baseline, contest.group]
    bands = HeldOutMetric().numbers(replace(runs, groups=groups), {"metric": "loss"})
    first, second = (runs.summaries[group.runs[0]] for group in groups)
    return Race((first, second), result, contest, bands)


def race_card(cases: Sequence[Race]) -> None:
    """Draw races side by side, each with the figure that it ends with; nothing where there are none."""
    if not cases:
        return
    first, method = first_sentence(conditions(cases[0]))
    with card(f"Does {cases[0].names[1]} help on real tasks?", "race", method=method):
        note(first)
        for number, place in enumerate(st.columns(len(cases), gap="small")):
            with place:
                _one(cases[number], f"race-{number}")
        with in_row("race-next", "top"):
            link("pages/launch.py", "Test yours", data="upload")
            link("pages/compare.py", "Compare these runs", runs=",".join(cases[0].runs))
            documentation("All results", "RESULTS")


def conditions(race: Race) -> str:
    """Say what the sides do, and what both have: the budget, and where it is so the learning rate of the head."""
    baseline, method = race.names
    gates = " and has gates" if race.summary.params.get("gate") else ""
    words = f"{method} moves rank{gates}; uniform {baseline} does not. Recorded runs of equal budget."
    if any(section(summary.config, "train").get("head_lr") for summary in race.summaries):
        return words
    return f"{words} The head had the learning rate of the adapters; a rate of its own gains more than the method."


def _one(race: Race, key: str) -> None:
    with headed(race.title, key):
        chart(race_figure(race, colours()), race_caption(race), race.bands.drop(columns=["x"]), key)
    st.markdown(f"#### {safe(race.answer.answer)}")
    note(race.answer.basis)


def race_caption(race: Race) -> str:
    """Say what the lines are, and where they end."""
    last = race.bands.drop_duplicates("group", keep="last")
    ends = ", ".join(f"{name} {score(mean)}" for name, mean in zip(race.names, last["mean"], strict=True))
    sample = run_summary.interim_rows(race.summary)
    rows = f" Before the end: {sample[0]:,} of {plural(sample[1], 'example')}." if sample else ""
    return f"Held-out loss: {ends}.{rows}"


def race_figure(race: Race, colours: Palette) -> go.Figure:
    """Draw the mean loss of both sides over steps, with the band of their seeds, each in its method's colour."""
    drawn = theme.figure(colours, HEIGHT, left=36)
    drawn.update_layout(margin={"t": 6, "r": 6, "b": 40})
    groups = dict.fromkeys(race.bands["group"])
    for group, name, colour in zip(groups, race.names, map(run_colour, map(dict, race.summaries)), strict=True):
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
    drawn.update_yaxes(title_text=f"Loss ({run_summary.loss_unit(race.summary)})", nticks=5)
    return drawn
