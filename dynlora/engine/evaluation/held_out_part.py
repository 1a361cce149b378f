"""Which held-out examples an evaluation looks at: all of them, or a fixed sample that holds the probe set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynlora.engine.randomness import stream_seed


@dataclass(frozen=True)
class HeldOutPart:
    """Some of the held-out examples.

    Attributes:
        rows: their indices in rising order, (n,).
        of: number of all held-out examples.
    """

    rows: np.ndarray
    of: int

    @property
    def is_whole(self) -> bool:
        """Whether these are all held-out examples."""
        return len(self.rows) == self.of

    def places(self, chosen: np.ndarray) -> np.ndarray:
        """Return where rows of the part are in it."""
        return np.searchsorted(self.rows, chosen)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return one value for every held-out row, (of,): NaN for those that were not looked at."""
        if self.is_whole:
            return values
        whole = np.full(self.of, np.nan, dtype=np.float32)
        whole[self.rows] = values
        return whole


def whole(of: int) -> HeldOutPart:
    """Return all held-out examples."""
    return HeldOutPart(np.arange(of), of)


def sample(probe: np.ndarray, group: np.ndarray | None, of: int, size: int, seed: int) -> HeldOutPart:
    """Return the probe set and further rows, `size` in all: a keyed draw, the same at every evaluation.

    Rows are added where a group has the smallest fraction of its rows in the sample: so the groups come as near to
    their fractions of all rows as the probe set, which takes as many from each, lets them.

    Args:
        probe: row indices of the probe set.
        group: index of each row's group, (of,), or None.
        of: number of held-out examples.
        size: rows of the sample; all where there are no more.
        seed: of the run.
    """
    if size >= of:
        return whole(of)
    group = np.zeros(of, dtype=int) if group is None else group
    order = np.random.default_rng(stream_seed(seed, "held_out_sample")).permutation(of)
    order = np.concatenate([order[np.isin(order, probe)], order[~np.isin(order, probe)]])
    share = np.zeros(of)
    for value in np.unique(group):
        members = order[group[order] == value]
        share[members] = np.arange(len(members)) / len(members)
    share[probe] = -1.0
    return HeldOutPart(np.sort(order[np.argsort(share[order], kind="stable")][:size]), of)
