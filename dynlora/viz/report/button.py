"""A run, or a comparison, to take away: its report, and pictures of a run, made when somebody asks for them."""

from __future__ import annotations

import html
import shlex
from base64 import b64encode
from collections.abc import Sequence

import streamlit as st

from dynlora.analysis.result_strip import ResultStrip
from dynlora.analysis.run_reading import read_run
from dynlora.viz.report import comparison_report, run_report
from dynlora.viz.report.pictures import Missing, Shared, Subject, pictures_of
from dynlora.viz.ui.cached_queries import CACHED
from dynlora.viz.ui.cards import colours, in_row, is_opened, note, open_dialog
from dynlora.viz.ui.live import guarded
from dynlora.viz.ui.run_picker import Chosen


def report_button(runs: Sequence[Chosen]) -> None:
    """Draw the button that downloads one run's report, or that of a comparison."""
    folders = [run.folder for run in runs]
    one = len(folders) == 1
    st.download_button(
        "Report",
        lambda: run_report(folders[0]) if one else comparison_report(folders),
        f"dynlora-{runs[0].id if one else 'comparison'}.html",
        "text/html",
        key="report",
        on_click="ignore",
        icon=":material/description:",
        type="tertiary",
        help="One HTML file with these charts. It opens in any browser, offline.",
    )


SHARE, DRAWN = "share", "shared-pictures"
"""Key of the dialog, and of the session: the pictures of the run whose dialog is open, as it was when it was opened."""


def share_button(run: Chosen, strip: ResultStrip) -> None:
    """Draw the button that opens the pictures and the report of a run, and what it opened.

    Args:
        run: the run.
        strip: its answers.
    """
    st.button(
        "Share",
        key=f"open-{SHARE}",
        icon=":material/share:",
        type="tertiary",
        on_click=_open,
        help="Pictures with the verdict on them, a moving one, and the report. Made here; nothing is sent.",
    )
    if is_opened(SHARE):
        st.dialog("Share", width="large", on_dismiss=open_dialog)(_show)(run, strip)


def _open() -> None:
    st.session_state.pop(DRAWN, None)
    open_dialog(SHARE)


def _show(run: Chosen, strip: ResultStrip) -> None:
    """Draw what can be shared of a run."""
    with in_row("share-report"):
        report_button([run])
        note("One HTML file with all charts. It opens in any browser, offline.")
    with guarded():
        key = (run.id, colours().mode)
        before, pictures = st.session_state.get(DRAWN, (None, []))
        if before != key:
            pictures = _drawn(run, strip)
            st.session_state[DRAWN] = (key, pictures)
    for place, one in zip([*st.columns(2), *st.columns(2)], pictures, strict=False):
        with place:
            _picture(one)
    st.caption("The same files on the command line:")
    command = ["dynlora", "share", run.id, "--runs-dir", str(run.folder.parent)]
    st.code(shlex.join(command), language="bash", wrap_lines=True)


def _drawn(run: Chosen, strip: ResultStrip) -> list[Shared | Missing]:
    """Return the pictures of a run; a bar says how far the moving one is."""
    place = st.empty()
    place.progress(0.0, "Drawing the pictures")

    def progress(done: int, of: int) -> None:
        place.progress(done / of, f"Drawing the moving picture: {done} of {of} frames")

    made = list(pictures_of(Subject(read_run(run.folder, CACHED), strip), colours(), progress))
    place.empty()
    return made


def _picture(one: Shared | Missing) -> None:
    """Draw a picture and its download, or why there is none."""
    if isinstance(one, Missing):
        st.markdown(f"**{one.name}**")
        note(one.reason)
        return
    address = f"data:{one.mime};base64,{b64encode(one.content).decode()}"
    st.html(f'<img class="dl-shared" src="{address}" alt="{html.escape(one.alt)}">')
    form = one.mime.removeprefix("image/").upper()
    st.download_button(
        f"{one.name} ({form}, {len(one.content) / 1e6:.1f} MB)",
        one.content,
        one.file,
        one.mime,
        key=f"share-{one.name}",
        on_click="ignore",
        icon=":material/download:",
        type="tertiary",
    )
