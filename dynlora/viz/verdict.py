"""The verdict as the first card of Compare and Run, with one button for what to run next."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from dynlora.analysis import verdict_text
from dynlora.analysis.pairing import RunPairs, same_task
from dynlora.analysis.run_summary import ACTIVE
from dynlora.analysis.seed_groups import launch_key
from dynlora.analysis.verdict import Verdict, verdict
from dynlora.analysis.verdict_text import NextRuns, next_runs
from dynlora.errors import DynloraError
from dynlora.jobs.sweep import enqueue_sweep
from dynlora.store import queries
from dynlora.text import plural
from dynlora.viz.compare import figures as verdict_figures
from dynlora.viz.kit import theme
from dynlora.viz.launch.form_model import UNIFORM
from dynlora.viz.launch.start_from import twin_button
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, in_row, note, rows, safe
from dynlora.viz.ui.live import announce, refusal
from dynlora.viz.ui.run_picker import Chosen, find_run, is_read_only, list_all, runs_dir

UNBROKEN = "95\u00a0%\u00a0CI"

ABOUT = "Which configuration to use, judged by the difference on the same held-out examples, over common seeds."

MOST_READ = 30
"""Most runs of a task that are opened for the verdict on one of them."""


def verdict_of_runs(result: Verdict | None, summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the verdict on runs that are compared; nothing where there is none."""
    if result is None:
        return
    with card("Verdict", "verdict", ABOUT):
        _words(result)
        with in_row("verdict-next"):
            _next(result, next_runs(result, summaries), summaries, list(summaries))
        _evidence(result)


@dataclass(frozen=True)
class JudgedRun:
    """A run among its like.

    Attributes:
        verdict: None where there is none.
        summaries: of the runs that may have a part in it, by id.
        problem: why there is none, where another run cannot be read.
    """

    verdict: Verdict | None = None
    summaries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    problem: str = ""


def judged_run(run: Chosen, summary: Mapping[str, Any]) -> JudgedRun:
    """Return a run set against plain LoRA on the same data, where it has finished and there is such a run."""
    if summary["status"] != "finished":
        return JudgedRun()
    try:
        return JudgedRun(*_against_alike(run, summary))
    except DynloraError as error:  # of another run, which is no reason to keep this one from being seen
        return JudgedRun(problem=f"There is no verdict, because a run on the same data cannot be read: {error}")


def next_step(run: Chosen, summary: Mapping[str, Any], judged: JudgedRun) -> None:
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
    is_judged = judged.verdict is not None or summary["status"] in ACTIVE
    if is_judged and not is_drawn and not _has_twin(summary):
        twin_button(run)


def _has_twin(summary: Mapping[str, Any]) -> bool:
    """Say whether the other side of the comparison with plain LoRA has a run of the same task and seed, or will."""
    alike = same_task(list_all(), summary)
    alike = alike[(alike["seed"] == summary.get("seed")) & alike["status"].isin(["finished", *ACTIVE])]
    is_plain = alike["strategy"] == UNIFORM
    return bool((~is_plain if summary.get("strategy") == UNIFORM else is_plain).any())


def verdict_evidence(judged: JudgedRun, times: float = 1.0) -> None:
    """Draw what the verdict on a run rests on, its chart so many times as large; nothing without one."""
    if judged.verdict is not None:
        with card("Verdict", "verdict", ABOUT):
            _words(judged.verdict)
            _evidence(judged.verdict, times)


def verdict_sentence(run: Chosen, summary: Mapping[str, Any]) -> str:
    """Return the verdict on one run in a sentence, as Markdown; empty where there is none."""
    with suppress(DynloraError):
        result, _ = _against_alike(run, summary)
        if result is not None:
            return bold(result)
    return ""


def _against_alike(run: Chosen, summary: Mapping[str, Any]) -> tuple[Verdict | None, dict[str, dict[str, Any]]]:
    """Return the verdict on a run among those of the same task, and their summaries."""
    folders = {run.id: run.folder} | {one.id: one.folder for one in _runs_like(run, summary)}
    summaries = {key: one for key, folder in folders.items() if (one := _summary(folder)) is not None}
    differences = RunPairs(folders, summaries, cached_queries.ask_events).differences
    return verdict(summaries, differences, focus=run.id), summaries


def bold(result: Verdict) -> str:
    """Return a verdict in a sentence, as Markdown."""
    return f"**{safe(verdict_text.headline(result)).replace('95 % CI', UNBROKEN)}**"


def _summary(folder: Path) -> dict[str, Any] | None:
    """Return the summary of a run; None where it cannot be read."""
    try:
        return cached_queries.ask(queries.run_summary, folder)
    except DynloraError:
        return None


def _runs_like(run: Chosen, summary: Mapping[str, Any]) -> list[Chosen]:
    """Return the newest other runs on the same model and data, of the same length, that have a result or will."""
    alike = same_task(list_all(), summary)
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
        chart(drawn if times == 1 else theme.enlarged(drawn, times), caption, table, "verdict")
    else:
        rows(table)


def _next(
    result: Verdict, runs: NextRuns | None, summaries: Mapping[str, Mapping[str, Any]], compared: Sequence[str]
) -> bool:
    """Draw the one next step, more seeds or a baseline, and say whether there is one or the seeds are under way."""
    if runs is not None and runs.under_way:
        note(verdict_text.under_way(runs))
    newest = max(result.baseline.runs)
    if not result.contests:
        twin_button(find_run(newest))
        return True
    if runs is not None and runs.n and not is_read_only():
        configs = {run: dict(summaries[run]["config"]) for run in runs.seeds}
        if st.button(
            verdict_text.button(runs),
            icon=":material/add:",
            key="verdict-run",
            type="primary" if compared else "secondary",
        ):
            _queue(configs, runs, compared)
        with st.popover("Command line", icon=":material/terminal:", type="tertiary", key="verdict-command"):
            st.code("\n".join(_commands(runs)), language="bash", wrap_lines=True)
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
    token = st.session_state.setdefault("verdict_token", secrets.token_hex(8))
    ids: list[str] = []
    try:
        with st.spinner("Checking the configurations"):
            for run, seeds in runs.seeds.items():
                config, lists = {**configs[run], "name": None}, {"seed": _listed(seeds)}
                key = launch_key(token, {"config": config, "lists": lists})
                ids += enqueue_sweep(config, lists, runs_dir(), key=key)
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
        return
    st.session_state.pop("verdict_token", None)
    announce(f"Queued: {plural(len(ids), 'run')}")
    if compared:  # the new runs come to those that are compared, so that the verdict grows with them
        st.query_params["runs"] = ",".join([*compared, *ids])
    st.rerun()
