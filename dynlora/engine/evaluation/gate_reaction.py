"""What reacting to the input gains: held-out loss with each gate at its mean, minus the loss with the gates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.analysis.stats import normal_reach
from dynlora.engine.data.batches import Tokens, sorted_batches
from dynlora.engine.model.gates import Gates

MEAN_ROWS = 1024
"""Training examples whose gates are averaged; held-out examples would leak into the mean."""

MOST_ROWS = 1024
"""Held-out examples on which the reaction is measured, at most."""


@torch.no_grad()
def averaged_gates(model: nn.Module, gates: Gates, tokens: Tokens, batch_size: int = 64) -> Tensor:
    """Return each gate averaged over rows, (n_modules,) or (n_modules, max_rank).

    They depend on the embeddings alone, so no forward goes further; batches are those of predictions.
    """
    training, device = model.training, next(model.parameters()).device
    sums, means, places = torch.zeros_like(gates.bias), list[np.ndarray](), list[np.ndarray]()
    model.eval()
    try:
        with gates.adding_up(sums):
            for indices in sorted_batches(tokens.length, batch_size):
                batch = tokens.batch(indices, device)
                batch.pop("labels")
                gates.see(partial(model, **batch))
                means.append(gates.values.float().cpu().numpy())  # pyright: ignore[reportOptionalMemberAccess]
                places.append(indices)
    finally:
        model.train(training)
    if gates.mode == "rank":
        return sums.cpu() / len(tokens)
    return torch.from_numpy(np.concatenate(means)[np.argsort(np.concatenate(places), kind="stable")].mean(0))


def reaction(
    at_mean: np.ndarray, with_gates: np.ndarray, of: int, group: np.ndarray | None, names: Sequence[str]
) -> dict[str, Any]:
    """Return what reacting lowers the loss by, with 95 % intervals over examples: of all and of each group.

    Args:
        at_mean: loss of each row with every gate at its mean, (n,).
        with_gates: loss of the same rows with the gates, (n,).
        of: number of all held-out examples.
        group: index of each row's group, (n,), or None.
        names: of the groups.
    """
    lowers = np.asarray(at_mean, np.float64) - np.asarray(with_gates, np.float64)
    parts = [] if group is None else [(name, lowers[group == index]) for index, name in enumerate(names)]
    groups = [{"group": name, **_mean_of(part)} for name, part in parts if len(part)]
    return {"of": of, "loss": float(np.mean(with_gates)), **_mean_of(lowers), "groups": groups}


def _mean_of(lowers: np.ndarray) -> dict[str, Any]:
    """Return the mean of differences, its interval (empty for one row) and their number."""
    mean, reach = float(lowers.mean()), normal_reach(lowers)
    ends = (None, None) if np.isnan(reach) else (mean - reach, mean + reach)
    return {"n": len(lowers), "lowers_by": mean, "low": ends[0], "high": ends[1]}
