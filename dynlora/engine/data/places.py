"""Where training rows are in the files they were read from, for sentences that name lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynlora.config import DataConfig
from dynlora.data_files import scan
from dynlora.data_files.examples import TRAIN
from dynlora.data_files.words import places
from dynlora.engine.data.tables import limited_rows


class Places:
    """Places of training rows by position: lines of a file, or numbers of examples where no file is at hand."""

    def __init__(self, config: DataConfig, folder: Path, seed: int, n: int) -> None:
        """Read the places.

        Args:
            config: section `data` of the run.
            folder: where the data is.
            seed: of the run, for the split.
            n: number of training rows.
        """
        self.rows, self.at = None, np.arange(n)
        if config.path is None or config.train_groups is not None:
            return
        rows = scan.split_rows(folder, scan.wanted_of(config, seed))
        at = np.flatnonzero(rows.side == TRAIN)
        at = at[limited_rows(len(at), config.max_train, seed)]
        if len(at) == n:
            self.rows, self.at = rows, at

    def said(self, chosen: Sequence[int] | np.ndarray) -> str:
        """Return the places of training rows in words; empty for none."""
        if not len(chosen):
            return ""
        if self.rows is not None:
            return places(self.rows, self.at[np.asarray(chosen, int)])
        first = ", ".join(f"{int(row) + 1:,}" for row in chosen[:5])
        more = f" and {len(chosen) - 5:,} more" if len(chosen) > 5 else ""
        return f"training example{'s' if len(chosen) != 1 else ''} {first}{more}"
