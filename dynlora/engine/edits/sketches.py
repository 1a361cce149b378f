"""Sketches of gradients: they look on while training, without changing the function."""

from __future__ import annotations

from collections.abc import Sequence

from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gradient_sketch import GradientSketch
from dynlora.engine.model.lora_linear import LoraLinear


def listen(adapters: Adapters, indices: Sequence[int], step: int, *, whitened: bool = False) -> None:
    """Begin an empty sketch on each of these modules, and none on the others."""
    for index, module in enumerate(adapters):
        wanted = index in indices
        module.sketch = _empty_sketch(module, adapters.seed, step, whitened) if wanted else None


def _empty_sketch(module: LoraLinear, seed: int, step: int, whitened: bool) -> GradientSketch:
    """Return a sketch that can tell apart as many directions as the module has room for components."""
    info = module.info
    return GradientSketch.empty(
        info.d_in, info.d_out,
        seed=seed, key=f"{info.name}/{step}", device=module.lora_A.device, triplets=module.max_rank,
        whitened=whitened,
    )  # fmt: skip
