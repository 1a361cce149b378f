"""What a run recorded that claims to know how much each module matters: the scores ablations are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dynlora.store import queries
from dynlora.store.run import open_run


def module_scores(folder: Path) -> dict[str, np.ndarray]:
    """Return scores by name, each by module as recorded, (n_modules,).

    Importance as the allocator saw it at its first and at its last decision and at the end, the ranks it chose, and
    what was recorded of the update.

    Raises:
        DynloraError: when the run cannot be read.
    """
    recorded = set(open_run(folder).recorded())
    moved = queries.rank_moves(folder)["step"].to_numpy(int)
    end = int(queries.run_summary(folder)["step"])
    wanted = {"importance at the end": ("importance", end), "final rank": ("rank", end)}
    if len(moved):
        wanted["importance at the first decision"] = ("importance", int(moved.min()))
        wanted["importance at the last decision"] = ("importance", int(moved.max()))
    wanted |= {"norm of the update": ("delta_norm", end), "gradient at the end": ("grad_norm", end)}
    found = {}
    for name, (signal, step) in wanted.items():
        if signal in recorded:
            values = queries.signal_at(folder, signal, (step,)).to_numpy(float)[:, 0]
            if np.isfinite(values).any():
                found[name] = values
    return found
