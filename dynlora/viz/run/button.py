"""The buttons that take a run's adapter away."""

from __future__ import annotations

import shlex
from functools import partial

import streamlit as st

from dynlora.jobs.export import exported
from dynlora.kinds.registry import kind_of_run
from dynlora.peft_adapter.forms import FORMS, forms_for
from dynlora.store import queries
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.guard import announce
from dynlora.viz.ui.run_picker import Chosen, has_model, is_read_only

MAKING = "Making the zip file: the model is loaded first. The download starts by itself."
"""What the buttons wait for: they show a mark that turns, and no words."""


def export_buttons(run: Chosen) -> None:
    """Draw the download of the adapter, and beside it the other forms by where they go, with the command.

    Nothing without an adapter, and nothing where the dashboard only looks: each download starts a process with torch.
    """
    if not adapter_button(run):
        return
    summary = cached_queries.ask(queries.run_summary, run.folder)
    forms = forms_for(
        kind_of_run(run.folder).formats,
        generates=bool(summary["task_facts"].get("generates")),
        has_gates=bool(summary["params"].get("gate")),
    )
    with st.popover("Export", icon=":material/ios_share:", type="tertiary", key="export"):
        names = [form.name for form in forms]
        usual = names.index("merged") if "merged" in names else 0
        name = st.selectbox(
            "Where does it go?", names, usual, format_func=lambda name: FORMS[name].goes_to, key="export-form"
        )
        form = FORMS[name]
        label = "Merged model" if name == "merged" else f"Adapter for {form.goes_to}"
        st.caption(form.help)
        if name != "peft":  # has a button of its own beside this one
            _download(run, label, name, f"Zip file: {form.help}")
        st.caption("It is made when pressed, which takes a moment. The same on the command line:")
        st.code(_command(run, name), language="bash", wrap_lines=True)


def adapter_button(run: Chosen) -> bool:
    """Draw the download of the adapter where there is one and a process may be started, and say whether it is drawn."""
    if not has_model(run.folder) or is_read_only():
        return False
    _download(run, "Adapter", "peft", "Zip file: the adapter as PEFT loads it, and a model card with the code.")
    return True


def _download(run: Chosen, label: str, format_: str, help_: str) -> None:
    st.download_button(
        label,
        partial(exported, run.folder, format_),
        f"{run.id}-{format_}.zip",
        "application/zip",
        key=f"export-{format_}",
        on_click=announce,
        args=(MAKING, ":material/hourglass_top:"),
        icon=":material/download:",
        type="tertiary",
        help=help_,
    )


def _command(run: Chosen, format_: str) -> str:
    where = ["--out", f"{run.id}-{format_}.zip", "--runs-dir", str(run.folder.parent)]
    return shlex.join(["dynlora", "export", run.id, "--format", format_, *where])
