"""What held-out examples lose as a run's adapter gets smaller, kept as `compress.json` beside `run.db`.

As little trusted as the rest of a run: what cannot be read, or does not fit together, counts as not measured.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator

from dynlora.store.record import Count, Part, Record, Row, Share, Which, cut

COMPRESS_NAME = "compress.json"
MAX_MODULES = 20_000

OFFERED = "global"
"""The way to choose components that is offered: one threshold over all modules."""

WEIGHTINGS = ("loss", "inputs", "plain")
"""What a component's effect is measured by: the loss, the module's output on training examples, or its norm alone."""

FEWEST = 50
"""Held-out examples; with fewer, what a size costs is not to be relied on."""


class Half(Part):
    """The loss of a size of the adapter on one half of the held-out examples.

    Attributes:
        loss: mean loss.
        difference: `loss` less that of the whole adapter on these rows.
        low, high: 95 % interval of `difference` over the rows, paired.
        metrics: by name.
    """

    model_config = ConfigDict(allow_inf_nan=True)  # of an adapter that diverged: printed, and never in a file

    loss: float
    difference: float
    low: float
    high: float
    metrics: dict[Annotated[str, cut(80)], float] = Field(max_length=50)


class Size(Part):
    """One size of the adapter.

    Attributes:
        method: which components were kept: global, uniform, energy or random.
        share: of the adapter's parameters that was allowed, 0 to 1.
        parameters: kept.
        ranks: of each module, by position.
        chosen_on: on the rows that a size is chosen on.
        reported_on: on the other rows.
    """

    method: Annotated[str, cut(40)]
    share: Share
    parameters: Count
    ranks: Row[Count] = Field(max_length=MAX_MODULES)
    chosen_on: Half
    reported_on: Half


class Compressed(Record):
    """All sizes of one adapter that were measured on the same rows.

    Attributes:
        which: last or best adapter.
        step: optimizer steps the adapter had behind it.
        weighting: what a component's effect was measured by.
        rows: held-out examples, both halves.
        parameters: of the whole adapter.
        modules: names, in order.
        whole: the loss of the whole adapter on the rows that sizes are reported on; its difference is zero.
        planned: how many sizes were to be measured.
        sizes: what was measured so far.
    """

    MAX_BYTES: ClassVar[int] = 16_000_000
    VERSION: ClassVar[int] = 1

    which: Which
    step: Count
    weighting: Annotated[str, cut(40)]
    rows: Count
    parameters: Count
    modules: Row[Annotated[str, cut(500)]] = Field(max_length=MAX_MODULES)
    whole: Half
    planned: Count
    sizes: Row[Size] = Field(default=(), max_length=1000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse ranks of other modules than those that are named."""
        if any(len(size.ranks) != len(self.modules) for size in self.sizes):
            raise ValueError("ranks that do not fit")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether all sizes were measured that were to be."""
        return len(self.sizes) >= self.planned > 0

    def having(self, size: Size) -> Compressed:
        """Return these with one more."""
        return self.model_copy(update={"sizes": (*self.sizes, size)})

    def of_method(self, method: str = OFFERED) -> list[Size]:
        """Return the sizes of a method, the largest first."""
        return sorted((size for size in self.sizes if size.method == method), key=lambda size: -size.share)

    def smallest(self, tolerance: float, method: str = OFFERED) -> Size | None:
        """Return the smallest size whose interval stays below a tolerance, all larger ones passing too.

        Non-inferiority, tested in a fixed sequence from the largest size down and ended at the first that fails:
        looking at many sizes then needs no correction. Judged on the rows that a size is chosen on.
        """
        best = None
        for size in self.of_method(method):
            if not any(size.ranks) or not size.chosen_on.high <= tolerance:  # an adapter of nothing is not written
                break
            best = size
        return best

    def ranks_of(self, size: Size) -> dict[str, int]:
        """Return the ranks of a size by module name."""
        return dict(zip(self.modules, size.ranks, strict=True))
