"""What held-out rows lose as a run's adapter gets smaller, kept as `compress.json` beside `run.db`.

As little trusted as the rest of a run: what cannot be read, or does not fit together, counts as not measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from dynlora.safe_files import write_text
from dynlora.store.plain_values import count, items, number, read_checked

COMPRESS_NAME = "compress.json"
FORMAT = 1
MAX_BYTES = 16_000_000
MAX_POINTS = 1_000
MAX_MODULES = 20_000
MAX_METRICS = 50

OFFERED = "global"
"""The way to choose components that is offered: one threshold over all modules."""

WEIGHTINGS = ("loss", "inputs", "plain")
"""What a component's effect is measured by: the loss, the module's output on training rows, or its norm alone."""

FEWEST = 50
"""Held-out examples; with fewer, what a size costs is not to be relied on."""


@dataclass(frozen=True)
class Half:
    """What a size of the adapter is worth on one half of the held-out rows.

    Attributes:
        loss: mean loss.
        difference: `loss` less that of the whole adapter on these rows.
        low, high: 95 % interval of `difference` over the rows, paired.
        metrics: by name.
    """

    loss: float
    difference: float
    low: float
    high: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Size:
    """One size of the adapter.

    Attributes:
        method: which components were kept: global, uniform, energy or random.
        share: of the adapter's parameters that was allowed, 0 to 1.
        parameters: kept.
        ranks: of each module, by position.
        chosen_on: on the rows that a size is chosen on.
        reported_on: on the other rows.
    """

    method: str
    share: float
    parameters: int
    ranks: tuple[int, ...]
    chosen_on: Half
    reported_on: Half


@dataclass(frozen=True)
class Compressed:
    """All sizes of one adapter that were measured on the same rows.

    Attributes:
        which: last or best adapter.
        step: optimizer steps the adapter had behind it.
        weighting: what a component's effect was measured by.
        rows: held-out rows, both halves.
        parameters: of the whole adapter.
        modules: names, in order.
        whole: what the whole adapter is worth on the rows that sizes are reported on; its difference is zero.
        planned: how many sizes were to be measured.
        sizes: what was measured so far.
    """

    which: str
    step: int
    weighting: str
    rows: int
    parameters: int
    modules: tuple[str, ...]
    whole: Half
    planned: int
    sizes: tuple[Size, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all sizes were measured that were to be."""
        return len(self.sizes) >= self.planned > 0

    def having(self, size: Size) -> Compressed:
        """Return these with one more."""
        return replace(self, sizes=(*self.sizes, size))

    def of_method(self, method: str = OFFERED) -> list[Size]:
        """Return the sizes of a method, the largest first."""
        return sorted((size for size in self.sizes if size.method == method), key=lambda size: -size.share)

    def smallest(self, tolerance: float, method: str = OFFERED) -> Size | None:
        """Return the smallest size whose interval stays below a tolerance, all larger ones passing too.

        Non-inferiority, tested in a fixed sequence from the largest size down and ended at the first that fails:
        looking at many sizes then needs no correction. Judged on the rows that a size is chosen on.
        """
        found = None
        for size in self.of_method(method):
            if not any(size.ranks) or not size.chosen_on.high <= tolerance:  # an adapter of nothing is not written
                break
            found = size
        return found

    def ranks_of(self, size: Size) -> dict[str, int]:
        """Return the ranks of a size by module name."""
        return dict(zip(self.modules, size.ranks, strict=True))


def read_compressed(path: Path) -> Compressed | None:
    """Return what a file holds, None when there is none or it cannot be trusted."""
    return read_checked(path, MAX_BYTES, _checked)


def write_compressed(path: Path, found: Compressed) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: when it cannot be written.
    """
    write_text(path, json.dumps({"format": FORMAT, **asdict(found)}, allow_nan=False) + "\n")


def _checked(found: Mapping[str, Any]) -> Compressed:
    """Return a file's content, each value of its kind and size; anything else raises."""
    if found["format"] != FORMAT or found["which"] not in ("last", "best"):
        raise ValueError("another format")
    modules = tuple(str(name)[:500] for name in items(found["modules"], MAX_MODULES))
    sizes = tuple(_size(item, len(modules)) for item in items(found["sizes"], MAX_POINTS))
    return Compressed(
        found["which"], count(found["step"]), str(found["weighting"])[:40], count(found["rows"]),
        count(found["parameters"]), modules, _half(found["whole"]), count(found["planned"]), sizes,
    )  # fmt: skip


def _size(item: Any, n_modules: int) -> Size:
    """Return one size of a file."""
    ranks = tuple(count(value) for value in items(item["ranks"], MAX_MODULES))
    share = number(item["share"])
    if len(ranks) != n_modules or not 0 <= share <= 1:
        raise ValueError("ranks that do not fit")
    halves = [_half(item[name]) for name in ("chosen_on", "reported_on")]
    return Size(str(item["method"])[:40], share, count(item["parameters"]), ranks, *halves)


def _half(item: Any) -> Half:
    """Return what one half of the rows says."""
    metrics = cast(Mapping[str, Any], item["metrics"])
    if len(metrics) > MAX_METRICS:
        raise ValueError("too many metrics")
    named = {str(name)[:80]: number(value) for name, value in metrics.items()}
    return Half(*(number(item[name]) for name in ("loss", "difference", "low", "high")), metrics=named)
