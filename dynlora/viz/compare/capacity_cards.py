"""Compare, capacity and settings: what the runs ended with, module by module, and what was set differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import streamlit as st

from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import seed_groups
from dynlora.viz.compare import text as compare_text
from dynlora.viz.compare.cards import Compared
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, table
from dynlora.viz.ui.cards import rows as table_rows
from dynlora.viz.ui.conclusion import conclusion
from dynlora.viz.ui.run_picker import link
from dynlora.viz.ui.url_state import segmented

RANKS = {"mean": "Final rank", "spread": "Spread over seeds"}


@dataclass(frozen=True)
class Capacity:
    """The last ranks and the settings of runs that are compared.

    Attributes:
        found: the runs.
        table: last ranks, a row per module name and a column per run.
        rows: the modules in the order of the rows.
    """

    found: Compared
    table: pd.DataFrame
    rows: pd.DataFrame

    @cached_property
    def by_config(self) -> list[seed_groups.Group]:
        """The runs by configuration."""
        return seed_groups.grouped(list(self.found.summaries.values()))

    @cached_property
    def alike(self) -> pd.DataFrame:
        """How alike the ranks of the seeds of a configuration are, as `model.reproducibility` returns it."""
        return compare_model.reproducibility(self.table, self.found.names, self.by_config)

    @cached_property
    def differing(self) -> pd.DataFrame:
        """The settings that are not the same in all runs, as `model.config_difference` returns them."""
        return compare_model.config_difference(list(self.found.summaries.values()), self.found.names)

    def drawn(self, *, spread: bool = False) -> pd.DataFrame:
        """Return the ranks, or their spread over seeds, as the map shows them."""
        groups = self.by_config if spread else self.found.groups
        return compare_model.group_ranks(self.table, self.found.names, groups, spread=spread)

    def read(self, drawn: pd.DataFrame) -> pd.DataFrame:
        """Return what `drawn` returned with the short names of the modules."""
        return drawn.rename(index=dict(zip(self.rows["name"], self.rows["short"], strict=True)))


def read_capacity(found: Compared) -> Capacity:
    """Read the last ranks of the runs.

    Raises:
        DynloraError: when a run cannot be read.
    """
    modules = {run: cached_queries.modules(folder) for run, folder in found.folders.items()}
    return Capacity(found, *compare_model.rank_table(list(found.summaries.values()), modules, found.names))


def capacity_conclusion(capacity: Capacity) -> None:
    """Draw what the section shows, in a sentence, and the link to what that means for the results."""
    sentence = compare_text.capacity(capacity.drawn(), len(capacity.found.names))
    then = f"{compare_text.settings_that_differ(capacity.differing)} {compare_text.reproducible(capacity.alike)}"
    with conclusion(sentence, then):
        link("pages/compare.py", "Does it change the result? Results", **_selection())


def _selection() -> Mapping[str, str]:
    """Return what the address says of the runs that are compared."""
    return {name: st.query_params[name] for name in ("runs", "q") if name in st.query_params}


def compared_ranks(capacity: Capacity) -> None:
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
        title = "Standard deviation of rank (components)" if is_spread else "Rank (components)"
        words = compare_text.allocation(capacity.read(drawn), is_spread)
        figure = compare_figures.final_ranks(drawn, capacity.rows, colours(), title)
        chart(figure, words, compare_model.named_rows(drawn), "ranks")
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
