"""The updates of one module become one, as components: their weighted sum, TIES or DARE.

TIES (Yadav et al. 2023, arXiv 2306.01708): of each update the entries of largest size are kept, the sign of every entry
is that of the larger total, and the entries of that sign are averaged. DARE (Yu et al. 2024, arXiv 2311.03099): entries
are dropped at random, and the others divided by the fraction that is kept. Both work on the product ΔW and not on its
factors, which are not unique: another basis of the same update would give another merge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from dynlora.engine.compress.components import Components, components
from dynlora.engine.given_start import GivenModule
from dynlora.engine.init.input_svd import leading
from dynlora.engine.loop.adapter_state import MOST_RANK
from dynlora.engine.randomness import stream
from dynlora.kinds.merge.settings import STACK, MergeSettings


def merged_components(
    updates: Mapping[int, GivenModule], settings: MergeSettings, module: str, d_out: int, d_in: int, most: int
) -> Components:
    """Return the merged update of a module as components, their scaling 1.

    Args:
        updates: of the sources that adapt the module, by their position.
        settings: of the merge.
        module: its name, which keys what is drawn.
        d_out: rows of the update.
        d_in: columns of the update.
        most: components that the budget could hold, were they all of this module.
    """
    weights = settings.shares
    if settings.method == STACK:
        rows = [one.A.double() for one in updates.values()]
        columns = [weights[source] * one.scaling * one.B.double() for source, one in updates.items()]
        return _single(components(torch.cat(rows), torch.cat(columns, 1), 1.0))
    dense = {source: one.scaling * (one.B.double() @ one.A.double()) for source, one in updates.items()}
    total = METHODS[settings.method](dense, weights, settings, module)
    n = min(d_out, d_in, most, MOST_RANK)
    u, value, v = leading(total, n, stream(settings.seed, module, "merge"))
    return _single(components(v, u * value, 1.0))


def _single(table: Components) -> Components:
    """Return components whose factors are in single precision, as adapters keep them."""
    return Components(table.A.float(), table.B.float(), table.effect, table.scaling, table.cost)


def ties(dense: Mapping[int, Tensor], weights: Sequence[float], settings: MergeSettings, module: str) -> Tensor:
    """Return the TIES merge of updates, (d_out, d_in): trimmed, signs elected, averaged by weight over the agreeing.

    The average of the agreeing entries is scaled by the sum of all weights, as the sum of `stack` is; it is 1 where
    no weights were given.

    Args:
        dense: updates by position of the source, (d_out, d_in) each.
        weights: of all sources.
        settings: of the merge.
        module: not used.
    """
    trimmed = {source: trim(update, settings.kept_share) for source, update in dense.items()}
    elected = torch.stack([weights[source] * update for source, update in trimmed.items()]).sum(0).sign()
    total = torch.zeros_like(elected)
    agreeing = torch.zeros_like(elected)
    for source, update in trimmed.items():
        agrees = (update.sign() == elected) & (elected != 0)
        total += torch.where(agrees, weights[source] * update, 0.0)
        agreeing += weights[source] * agrees
    return sum(weights) * total / torch.where(agreeing > 0, agreeing, 1.0)


def trim(update: Tensor, density: float) -> Tensor:
    """Return an update with its entries of largest size, a fraction `density` of them; the others are zero."""
    n = math.ceil(density * update.numel())
    largest = update.abs().flatten().topk(n).indices
    flat = torch.zeros(update.numel(), dtype=update.dtype)
    flat[largest] = update.flatten()[largest]
    return flat.view_as(update)


def dare(dense: Mapping[int, Tensor], weights: Sequence[float], settings: MergeSettings, module: str) -> Tensor:
    """Return the DARE merge of updates, (d_out, d_in): the weighted sum of entries kept at random and rescaled.

    What is dropped depends on the seed, the source and the module alone.
    """
    total: Tensor | None = None
    for source, update in dense.items():
        draw = torch.rand(update.shape, generator=stream(settings.seed, module, source, "dare"))
        part = torch.where(draw < settings.kept_share, weights[source] * update / settings.kept_share, 0.0)
        total = part if total is None else total + part
    assert total is not None, "a module that no source adapts is not merged"
    return total


METHODS: Mapping[str, Callable[[Mapping[int, Tensor], Sequence[float], MergeSettings, str], Tensor]] = {
    "ties": ties,
    "dare": dare,
}
"""The methods on the product, by name."""
