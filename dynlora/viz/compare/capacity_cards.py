"""Compare, capacity and settings: what the runs ended with, module by module, and what was set differently."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import pictures
from dynlora.viz.compare import text as compare_text
from dynlora.viz.compare.final_ranks import FinalRanks
from dynlora.viz.ui.cards import card, colours, note, picture, table
from dynlora.viz.ui.cards import rows as table_rows
from dynlora.viz.ui.conclusion import conclusion
from dynlora.viz.ui.run_picker import link
from dynlora.viz.ui.url_state import segmented

RANKS = {"mean": "Final rank", "spread": "Spread over seeds"}


def capacity_conclusion(capacity: FinalRanks) -> None:
    """Draw what the section shows, in a sentence, and the link to what that means for the results."""
    sentence = compare_text.capacity(capacity.drawn(), len(capacity.found.names))
    then = f"{compare_text.settings_that_differ(capacity.differing)} {compare_text.reproducible(capacity.alike)}"
    with conclusion(sentence, then):
        link("pages/compare.py", "Does it change the result? Results", **_selection())


def _selection() -> Mapping[str, str]:
    """Return what the address says of the runs that are compared."""
    return {name: st.query_params[name] for name in ("runs", "q") if name in st.query_params}


def compared_ranks(capacity: FinalRanks) -> None:
    """Draw the last ranks by module and group, or how far they differ between seeds."""
    with card("Rank by module", "ranks"):
        if capacity.rows.empty:
            note("No ranks have been recorded yet.")
            return
        is_spread = segmented("ranks", "Ranks shown", list(RANKS), "mean", RANKS.__getitem__) == "spread"
        drawn = capacity.drawn(spread=is_spread)
        if drawn.empty:
            note("No configuration has two runs, so there is no spread over seeds.")
            return
        picture(pictures.final_ranks(capacity, colours(), is_spread=is_spread), "ranks")
        if drawn.shape[1] > compare_figures.NAMED_COLUMNS:
            with st.expander("Key to the numbered columns, best result first", icon=":material/table_rows:"):
                key = pd.DataFrame({"column": range(1, drawn.shape[1] + 1), "configuration": list(drawn.columns)})
                table_rows(key)


def differing_settings(difference: pd.DataFrame) -> None:
    """Draw the settings that are not the same in all runs."""
    with card("Settings that differ", "settings"):
        if difference.empty:
            note("The configurations are the same.")
        else:
            st.dataframe(difference, hide_index=True, width="stretch")
            table(difference, "settings")
