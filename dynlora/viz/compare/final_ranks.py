"""The ranks that compared runs ended with, module by module, and what was set differently; pandas out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from dynlora.analysis import seed_groups
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare.compared import Compared


@dataclass(frozen=True)
class FinalRanks:
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


def final_ranks(found: Compared) -> FinalRanks:
    """Read the last ranks of the runs.

    Raises:
        DynloraError: when a run cannot be read.
    """
    modules = {run: found.store.modules(folder) for run, folder in found.folders.items()}
    return FinalRanks(found, *compare_model.rank_table(list(found.summaries.values()), modules, found.names))
