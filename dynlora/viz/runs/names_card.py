"""The runs of the list as lines of text: a narrow window cuts their names in the table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from dynlora.analysis.frames import records
from dynlora.text import score

MOST_NAMES = 100
"""Most runs that are listed."""


def names_below(table: pd.DataFrame) -> None:
    """Draw the whole names as links, each with its dot, status and result; wide windows, whose table has them, do not.

    Args:
        table: as `table.runs_table` returns it, in the order shown.
    """
    with st.container(key="names"):
        st.html(f'<div class="dl-names">{"".join(map(line, records(table.head(MOST_NAMES))))}</div>')


def line(row: Mapping[str, Any]) -> str:
    """Return a run as a paragraph: markup, in which all text of the run is escaped."""
    result = "" if pd.isna(row["result"]) else f" · {row['metric']} {score(row['result'])}"
    about = f"{row['strategy'] or 'no strategy'} · {row['status']}{result}"
    return (
        f'<p><i style="background: {row["colour"]}"></i><a href="run?run={quote(row["id"], safe="")}" target="_self">'
        f"{escape(row['name'] or row['id'])}</a><small>{escape(about)}</small></p>"
    )
