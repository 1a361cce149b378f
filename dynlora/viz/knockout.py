"""The card of the Capacity page that knocks modules out: start it, watch it, and read whether importance was right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import retention, run_summary
from dynlora.analysis.retention import knockout_file, knockout_target
from dynlora.analysis.run_reading import read_run
from dynlora.errors import DynloraError
from dynlora.kinds.run_kind import registry
from dynlora.kinds.train.panels.measured import why_not
from dynlora.store import queries
from dynlora.store.measurements import Knockouts
from dynlora.store.run import module_scores
from dynlora.store.summary import RunSummary
from dynlora.viz.capacity import with_chosen_modules
from dynlora.viz.kit.panel import RunView
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, colours, in_row, note, picture, rows, safe
from dynlora.viz.ui.live import fragment, guarded
from dynlora.viz.ui.model_client import Streamed, begin, stream_bar
from dynlora.viz.ui.panel_cards import panel_cards
from dynlora.viz.ui.run_picker import Chosen, find_run, has_model, is_read_only, link, list_all, run_labels
from dynlora.viz.ui.url_state import choose, follow_address

SIZES = (128, 512, 2048)
"""Held-out examples that can be looked at."""

ABOUT = (
    "Turns off the adapter of one module at a time and measures the change in held-out loss. Importance scores "
    "estimate this change. Each module needs about one forward pass over the held-out examples."
)
"""What an ablation is."""

MOST_TWINS = 24
"""Runs that are looked at for one that spreads the same budget evenly."""

BEGUN: dict[Path, Streamed] = {}
"""The last ablation of each run that this server began: whoever looks at the run watches it and may stop it."""


def knockout_card(run: Chosen, summary: RunSummary, modules: pd.DataFrame) -> None:
    """Draw the ablations of a run; while some are under way, again and again.

    Args:
        run: the run.
        summary: as `queries.run_summary` returns it.
        modules: as `capacity.described` returns them.
    """
    twins = uniform_twins(run.folder, summary, list_all())
    under_way = _under_way(run.folder)

    @fragment(run_every=1.5 if under_way else None)
    def live() -> None:
        follow_address()
        if under_way is not None:
            under_way.read()
            if under_way.ended:
                st.rerun()  # there is no more need to refresh
        _draw(run, summary, modules, twins)

    live()


def _under_way(folder: Path) -> Streamed | None:
    stream = BEGUN.get(folder)
    return None if stream is None or stream.ended else stream


def _draw(run: Chosen, summary: RunSummary, modules: pd.DataFrame, twins: pd.DataFrame) -> None:
    reading = with_chosen_modules(read_run(run.folder, cached_queries.CACHED, summary))
    view = RunView(run.folder, reading, reading.store)
    panel, *others = [one for one in registry()["train"].panels if one.part == "Module ablation"]
    drawn, knockouts = panel.picture(view, colours()), Knockouts.read(knockout_file(run.folder))
    with card("Module ablation", "knockout"):
        _controls(run, summary, knockouts)
        if knockouts is None or drawn is None:
            note(ABOUT)
            return
        picture(drawn, "effects", panel.picks(view))
        note(retention.adapter_caption(knockouts, summary.step))
        _pairs(run, knockouts, modules, summary.step)
    panel_cards(others, view)
    _baseline(run.folder, twins, modules)


def _controls(run: Chosen, summary: RunSummary, knockouts: Knockouts | None) -> None:
    """Draw what starts and stops an ablation, and how far the one under way has come."""
    stream = BEGUN.get(run.folder)
    if stream is not None and not stream.ended:
        stream_bar(stream, "modules measured", "Stop", "knockout-stop")
        return
    if stream is not None and stream.error:
        st.error(safe(f"The ablation ended early, and what it measured is saved: {stream.error}"))
    if is_read_only():
        note("This dashboard is read-only. Start the ablation on the machine of the dashboard, or with dynlora ablate.")
        return
    if not summary.step:
        note("The run has not trained any step yet.")
        return
    if not has_model(run.folder):
        note(why_not(cached_queries.ask(queries.recorded_by, run.folder)))
        return
    with in_row("knockout-controls", "bottom"):
        size = choose("heldout", "Held-out examples", SIZES, SIZES[1], width=160)
        words = "Measure all modules" if knockouts is None else "Measure again"
        if st.button(words, icon=":material/science:", key="knockout-start") and _start(run, None, int(size)):
            st.rerun()


def _baseline(folder: Path, twins: pd.DataFrame, modules: pd.DataFrame) -> None:
    """Draw how well the scores agree with the effects in a uniform baseline, or what leads to measuring it."""
    scores, (twin, title, uniform) = module_scores(folder), _twin(twins, modules)
    if not scores or not twin:
        return
    with card(f"The scores in a uniform baseline: {title}", "baseline"):
        if uniform is not None:
            note("No rank moved there. Rank correlation of each score of this run with its loss changes:")
            rows(retention.agreements(scores, uniform).round(3))
        else:
            note("It has the same budget and equal ranks. Measure it too, to compare the scores with its loss changes.")
            link("pages/capacity.py", "Open the baseline run", run=twin)


def _twin(twins: pd.DataFrame, modules: pd.DataFrame) -> tuple[str, str, pd.DataFrame | None]:
    """Return id and name of the uniform baseline and its effects, None while not measured; no id without one."""
    words = run_labels(twins) if len(twins) else {}
    able = [run for run in words if has_model(find_run(run).folder)]
    for run in words:
        effect = retention.effects(Knockouts.read(knockout_file(find_run(run).folder)), modules)
        if len(effect) == len(modules):
            return run, words[run], effect
    return (able[0], words[able[0]], None) if able else ("", "", None)


def _pairs(run: Chosen, knockouts: Knockouts, modules: pd.DataFrame, step: int) -> None:
    """Draw the pairs measured so far and what measures another."""
    with st.expander("Pairs of modules"):
        names = {int(p): short for p, short in zip(modules["position"], modules["short"], strict=True)}
        able = has_model(run.folder) and not is_read_only() and knockouts.step == step
        with in_row("knockout-pairs", "bottom"):
            chosen = st.multiselect(
                "Two modules", list(names), format_func=names.__getitem__, max_selections=2, key="knockout-pair"
            )
            if st.button("Measure pair", key="knockout-pair-start", disabled=len(chosen) != 2 or not able):
                pair = sorted(int(one) for one in chosen)
                if _start(run, [pair], knockouts.rows):
                    st.rerun()
        measured = retention.pairs(knockouts, modules)
        if len(measured):
            rows(measured.round(5))
            note(
                "If `beyond` is above zero, the pair matters more than both modules alone: each can replace the other."
            )


def ablation_button(run: Chosen) -> None:
    """Draw what leads to the ablations of a run: a button that starts them where none were measured, else a link.

    Nothing is drawn where they can neither be measured nor read.
    """
    place = {"run": run.id, "section": "ablation"}
    if retention.kept(run.folder) is not None:
        link("pages/capacity.py", "Ablation", **place)
    elif has_model(run.folder) and not is_read_only():
        label, icon = "Ablate modules", ":material/science:"
        if st.button(label, icon=icon, type="tertiary", key="ablate", help=ABOUT) and _start(run, None, SIZES[1]):
            st.switch_page("pages/capacity.py", query_params=place)


def _start(run: Chosen, sets: list[list[int]] | None, size: int) -> bool:
    """Let the child begin an ablation and return whether it has begun; else the page says why not."""
    if _under_way(run.folder):
        st.error("Another ablation of this run is in progress. Wait until it ends, or stop it.")
        return False
    with guarded():
        file = knockout_target(run.folder, is_own=run.is_own)
    stream = begin(run.folder, "knockout", file=str(file), sets=sets, rows=size, again=True)
    if stream.error:
        st.error(safe(stream.error))
        return False
    BEGUN[run.folder] = stream
    return True


def uniform_twins(folder: Path, summary: RunSummary, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the finished runs that spread the same budget evenly over the same model and data, the nearest seed first.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        runs: as `queries.list_runs` lists them.
    """
    same = runs[(runs["status"] == "finished") & (runs["id"] != folder.name)]
    for column in ("model", "data", "max_steps"):
        same = same[same[column] == getattr(summary, column)]
    same = same.loc[_mask(same, [(params or {}).get("budget") == budget_of(summary) for params in same["params"]])]
    apart = (pd.to_numeric(same["seed"], errors="coerce") - (summary.seed or 0)).abs()
    near = same.assign(apart=apart).sort_values("apart", kind="stable").head(MOST_TWINS)
    return near.loc[_mask(near, [_is_uniform(Path(path)) for path in near["folder"]])]


def _is_uniform(folder: Path) -> bool:
    """Say whether another run is plain LoRA; one that cannot be read is none, and no matter of this page."""
    try:
        return run_summary.is_uniform(cached_queries.ask(queries.run_summary, folder))
    except DynloraError:
        return False


def _mask(rows: pd.DataFrame, mask: list[bool]) -> pd.Series:
    """Return which rows are kept; a bare list that is empty would choose columns."""
    return pd.Series(mask, index=rows.index, dtype=bool)


def budget_of(summary: RunSummary) -> Any:
    """Return the parameters a run may spend."""
    return summary.params.get("budget")
