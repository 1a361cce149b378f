"""What was measured of a finished run: `knockout.json`, `compress.json` and `effects.json`.

They hold modules switched off, sizes of the adapter, and how strongly each module acts on an input. They are not in
`run.db`, which has one writer, the training process. A file is as little trusted as the rest of a run: what cannot be
read, or does not fit the run, counts as not measured.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, ConfigDict, Field, Strict, model_validator

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


EFFECTS_NAME = "effects.json"


class Effects(Record):
    """How strongly each module of a trained adapter acts on each probe example, of a run that did not record it.

    Attributes:
        which: last or best adapter.
        step: optimizer steps the adapter had behind it.
        effects: ‖h - h₀‖ / ‖h₀‖, a row for each example with a number for each module; None where it is not known.
    """

    MAX_BYTES: ClassVar[int] = 16_000_000
    VERSION: ClassVar[int] = 1

    which: Which
    step: Count
    effects: Row[Row[float | None]] = Field(max_length=100_000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse rows of different lengths."""
        if len({len(row) for row in self.effects}) > 1 or any(len(row) > MAX_MODULES for row in self.effects[:1]):
            raise ValueError("effects that do not fit")
        return self


KNOCKOUT_NAME = "knockout.json"
MAX_GROUPS = 200


class KnockedOut(Part):
    """What held-out examples lose without some modules.

    Attributes:
        modules: which are off, by position.
        loss: mean loss of the rows without them.
        delta: `loss` less that with all modules; above zero they help.
        low, high: 95 % interval of `delta` over the rows.
        changed: fraction of the rows whose prediction is another, 0 to 1.
        by_group: `delta` by input group, None for one without rows.
        halves: `delta` of every second row and of the others; None where an older version measured.
    """

    modules: Row[Count] = Field(min_length=1, max_length=64)
    loss: float
    delta: float
    low: float
    high: float
    changed: Share
    by_group: Row[float | None] = Field(default=(), max_length=MAX_GROUPS)
    halves: Annotated[tuple[float, float], Strict(False)] | None = None


def _last_of_each(effects: tuple[KnockedOut, ...]) -> tuple[KnockedOut, ...]:
    """Return one effect of each set of modules."""
    return tuple({effect.modules: effect for effect in effects}.values())


class Knockouts(Record):
    """All that was measured on one adapter and the same rows.

    Attributes:
        which: last or best adapter.
        step: optimizer steps the adapter had behind it.
        rows: held-out examples.
        loss: their mean loss with all modules.
        groups: names of the input groups, in order.
        n_modules: modules of the run.
        effects: by what was switched off; modules alone and together.
    """

    MAX_BYTES: ClassVar[int] = 16_000_000
    VERSION: ClassVar[int] = 1

    which: Which
    step: Count
    rows: Count
    loss: float
    groups: Row[Annotated[str, cut(200)]] = Field(max_length=MAX_GROUPS)
    n_modules: Count
    effects: Annotated[Row[KnockedOut], AfterValidator(_last_of_each)] = Field(default=(), max_length=50_000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse effects of modules or groups that the run does not have."""
        for effect in self.effects:
            modules = effect.modules
            if len(set(modules)) < len(modules) or max(modules) >= self.n_modules:
                raise ValueError("modules that the run does not have")
            if len(effect.by_group) not in (0, len(self.groups)):
                raise ValueError("groups that the run does not have")
        return self

    @property
    def alone(self) -> dict[int, KnockedOut]:
        """The modules that were switched off alone, by position."""
        return {effect.modules[0]: effect for effect in self.effects if len(effect.modules) == 1}

    def having(self, effect: KnockedOut) -> Knockouts:
        """Return these with one more, in the place of an earlier one of the same modules."""
        others = tuple(one for one in self.effects if one.modules != effect.modules)
        return self.model_copy(update={"effects": (*others, effect)})

    def without(self, sets: Collection[tuple[int, ...]]) -> Knockouts:
        """Return these less what was measured of some sets of modules."""
        return self.model_copy(update={"effects": tuple(one for one in self.effects if one.modules not in sets)})

    def same_rows(self, other: Knockouts | None) -> bool:
        """Say whether the other was measured on the same adapter and rows, so that its effects hold here."""
        return other is not None and other.model_copy(update={"effects": self.effects}) == self

    def replaces(self, other: Knockouts | None) -> bool:
        """Say whether nothing whole is lost when these take the other's place."""
        if other is None or len(other.alone) < other.n_modules:
            return True
        if self.same_rows(other):
            return {one.modules for one in self.effects} >= {one.modules for one in other.effects}
        return len(self.alone) == self.n_modules


def kept_knockouts(path: Path) -> tuple[Knockouts, ...]:
    """Return what is kept at a path: first what was begun and not ended, then what the file itself holds."""
    candidates = (Knockouts.read(_begun(path)), Knockouts.read(path))
    return tuple(one for one in candidates if one is not None)


def keep_knockouts(path: Path, knockouts: Knockouts) -> None:
    """Keep what is known so far; beside the file as long as taking its place would lose something whole.

    Raises:
        OSError: when it cannot be written.
    """
    if not knockouts.effects:
        return
    if not knockouts.replaces(Knockouts.read(path)):
        knockouts.write(_begun(path))
        return
    knockouts.write(path)
    _begun(path).unlink(missing_ok=True)


def _begun(path: Path) -> Path:
    return path.with_name(f"{path.stem}-begun{path.suffix}")
