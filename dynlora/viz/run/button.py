"""The buttons that take a run's adapter away, and the card of the run's health."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from dynlora.analysis import adapter_frames, health
from dynlora.analysis.health import PROBLEM, Finding, Outcome
from dynlora.analysis.run_reading import read_run
from dynlora.inference.forms import forms, forms_for, targets
from dynlora.jobs.export import cancel_whole, exported, start_whole, whole
from dynlora.kinds.run_kind import kind_of_run
from dynlora.peft_adapter.engines import check_engines
from dynlora.peft_adapter.read import AdapterHeader, expected_header, read_header
from dynlora.store import queries
from dynlora.store.summary import RunSummary, recorded_adapter
from dynlora.text import markdown_text, sentence_case
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, in_row, note, rows
from dynlora.viz.ui.live import announce, fragment, guarded
from dynlora.viz.ui.run_picker import Chosen, has_model, is_read_only, link

STEPS_AT_ONCE = 50
"""A running run is checked again this many times, and after each of its events."""


def health_card(folder: Path, summary: RunSummary) -> None:
    """Draw the findings of a run, or that there are none.

    Raises:
        DynloraError: when the run cannot be read.
    """
    outcome = _outcome(folder, summary, _version(folder, summary))
    method = [f"{finding.title}. {finding.words}" for finding in outcome.findings]
    with card("Health checks", "health", method=" ".join([*method, outcome.conclusion, *outcome.details])):
        if not outcome.findings:
            with in_row("health-good"):
                _good(outcome, has_failed=summary.status == "failed")
        for number, finding in enumerate(outcome.findings):
            _row(finding, number, folder.name)


def _good(outcome: Outcome, *, has_failed: bool) -> None:
    """Say that nothing was found, and whether all checks were possible yet; of a failed run only what was checked."""
    if has_failed:
        note(outcome.conclusion)
    elif outcome.waiting and not outcome.is_over:
        st.badge("No problems so far", color="blue", icon=":material/hourglass_top:")
    else:
        st.badge("No problems", color="green", icon=":material/check:")


def _row(finding: Finding, number: int, run_id: str) -> None:
    with in_row(f"health-{number}"):
        if finding.level == PROBLEM:
            st.badge(PROBLEM, color="red", icon=":material/error:")
        link(f"pages/{finding.page}.py", f"**{markdown_text(finding.title)}**", run=run_id, **finding.address)


def _version(folder: Path, summary: RunSummary) -> tuple[Any, ...]:
    """Return what changes only now and then while a run trains, so that a refresh does not check it each time."""
    event, step, state, opened = cached_queries.version(folder)
    return event, step * STEPS_AT_ONCE // max(1, summary.max_steps), min(step, 1), state, opened


@st.cache_data(max_entries=200, ttl=3600, show_spinner=False)
def _outcome(folder: Path, _summary: RunSummary, version: tuple[Any, ...]) -> Outcome:
    return health.outcome(read_run(folder).evidence)


MAKING = "Making the zip file: the model is loaded first. The download starts by itself."
"""What the buttons wait for: they show a mark that turns, and no words."""


WHOLE = (
    "The gates are replaced by their means; what that changes is measured on a sample. This takes all held-out "
    "examples, and the card in the zip file has the numbers."
)


def export_buttons(run: Chosen) -> None:
    """Draw the download of the adapter, and beside it the other forms by where they go, with the command.

    Nothing without an adapter, and nothing where the dashboard only looks: each download starts a process with torch.
    """
    summary = cached_queries.ask(queries.run_summary, run.folder)
    if not adapter_button(run, is_main=summary.status == "finished"):
        return
    generates, has_gates = bool(summary.task_facts.get("generates")), bool(summary.params.get("gate"))
    offered = forms_for(kind_of_run(run.folder).formats, generates=generates, has_gates=has_gates)
    with st.popover("Export", icon=":material/ios_share:", type="tertiary", key="export"):
        names = [form.name for form in offered]
        usual = names.index("merged") if "merged" in names else 0
        name = st.selectbox(
            "Where does it go?", names, usual, format_func=lambda name: forms()[name].goes_to, key="export-form"
        )
        form = forms()[name]
        label = "Merged model" if name == "merged" else f"Adapter for {form.goes_to}"
        st.caption(form.help)
        if name != "peft":  # has a button of its own beside this one
            _download(run, label, name, f"Zip file: {form.help}")
        if has_gates and not form.keeps_gates:
            _whole(run, name)
        st.caption("It is made when pressed, which takes a moment. The same on the command line:")
        st.code(_command(run, name), language="bash", wrap_lines=True)
        if generates:
            _engines(run, summary)


def _engines(run: Chosen, summary: RunSummary) -> None:
    """Draw how engines read the adapter as it was trained, and which export each of them reads."""
    header = _header(run, summary)
    if header is None:
        return
    readings = check_engines(header)
    with st.expander(f"As trained: {adapter_frames.engines_headline(readings)}", key="export-engines"):
        exports = {engine: f"export for {form.goes_to}" for engine, form in targets().items()}
        rows(adapter_frames.engines(readings, exports))
        note("Read off each engine's source, in the version named. dynlora check FOLDER says the same of a folder.")


def _header(run: Chosen, summary: RunSummary) -> AdapterHeader | None:
    """Return what the header of the exported adapter says; None where the update is no product of two factors."""
    if adapter := recorded_adapter(run.folder):
        return read_header(adapter)
    settings = summary.config.get("adapter") or {}
    rank = settings.get("rank")
    if not isinstance(rank, int) or summary.ranks_are_sums:
        return None
    gates = cached_queries.at_step(run.folder, "gate", summary.step)
    names = list(summary.ranks)
    scalings = {name: value for name, value in summary.scaling.items() if value is not None}
    if gates is not None and len(gates) == len(names):  # an export folds their means into the scaling
        scalings = {name: scalings.get(name, 1.0) * float(gate) for name, gate in zip(names, gates, strict=True)}
    return expected_header(summary.ranks, scalings, rank, float(settings.get("alpha") or 2 * rank))


def _whole(run: Chosen, format_: str) -> None:
    """Draw what measures the averaging of the gates on all held-out examples: a button, a bar, then the file."""
    job, file = whole(run.folder, format_)
    if job is not None and job.status == "running":
        _running(run, format_)
        return
    if job is not None and job.error is not None:
        st.error(markdown_text(job.error.message, 2000))
    if job is not None and job.status == "done" and file.is_file():
        note(sentence_case(job.message.splitlines()[-1].partition("; ")[2]))
        st.download_button(
            "Zip file, measured on all",
            file.read_bytes,
            f"{run.id}-{format_}.zip",
            "application/zip",
            key=f"export-whole-{format_}",
            icon=":material/download:",
            type="tertiary",
        )
    elif st.button("Measure on all held-out examples", icon=":material/speed:", key="export-measure", help=WHOLE):
        with guarded():
            start_whole(run.folder, format_)
        st.rerun()


@fragment(run_every=1.0)
def _running(run: Chosen, format_: str) -> None:
    """Draw how far the export is; the page is drawn again when it ends."""
    job, _ = whole(run.folder, format_)
    if job is None or job.status != "running":
        st.rerun()
    done, of = job.progress.done, job.progress.of
    phase = f"{done:,} of {of:,} held-out examples" if of else "Loading the model"
    st.progress(done / max(1, of), phase)
    if st.button("Cancel", icon=":material/stop:", key="export-cancel"):
        cancel_whole(run.folder, format_)
        st.rerun()


def adapter_button(run: Chosen, *, is_main: bool = False) -> bool:
    """Draw the download of the adapter where there is one and a process may be started, and say whether it is drawn.

    Args:
        run: the run.
        is_main: whether it is the first thing to do on its page.
    """
    if not has_model(run.folder) or is_read_only():
        return False
    help_ = "Zip file: the adapter as PEFT loads it, and a model card with the code."
    _download(run, "Adapter", "peft", help_, "primary" if is_main else "tertiary")
    return True


def _download(
    run: Chosen, label: str, format_: str, help_: str, type_: Literal["primary", "tertiary"] = "tertiary"
) -> None:
    st.download_button(
        label,
        partial(exported, run.folder, format_),
        f"{run.id}-{format_}.zip",
        "application/zip",
        key=f"export-{format_}",
        on_click=announce,
        args=(MAKING, ":material/hourglass_top:"),
        icon=":material/download:",
        type=type_,
        help=help_,
    )


def _command(run: Chosen, format_: str) -> str:
    where = ["--out", f"{run.id}-{format_}.zip", "--runs-dir", str(run.folder.parent)]
    return shlex.join(["dynlora", "export", run.id, "--format", format_, *where])
