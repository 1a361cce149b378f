"""The buttons that take a run's adapter away."""

from __future__ import annotations

import shlex
from functools import partial

import streamlit as st

from dynlora.jobs.export import exported
from dynlora.viz.ui.guard import announce
from dynlora.viz.ui.run_picker import Chosen, has_model, is_read_only

MAKING = "Making the zip file: the model is loaded first. The download starts by itself."
"""What the buttons wait for: they show a mark that turns, and no words."""


def export_buttons(run: Chosen) -> None:
    """Draw the download of the adapter, and beside it the merged model and the commands.

    Nothing without an adapter, and nothing where the dashboard only looks: each download starts a process with torch.
    """
    if not adapter_button(run):
        return
    with st.popover("Export", icon=":material/ios_share:", type="tertiary", key="export"):
        _download(run, "Merged model", "merged", "Zip file: a plain transformers model; no PEFT needed.")
        st.caption("Both are made when pressed, which takes a moment. The same on the command line:")
        st.code("\n".join(_command(run, format_) for format_ in ("peft", "merged")), language="bash", wrap_lines=True)


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
