"""A run, or a comparison, to take away: one HTML file, written when somebody asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dynlora.viz.report import comparison_report, run_report
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
