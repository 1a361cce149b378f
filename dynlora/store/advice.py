"""Advice before training, as `dynlora advise --out` writes it: ranks and modules, and how sure that is."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from dynlora.store.record import Count, Part, Record, Row, Whole


class AdvisedModule(Part):
    """A module and the rank it is to have."""

    name: str
    layer: Whole | None
    kind: str
    d_in: Count
    d_out: Count
    rank: Count
    gain_share: float


class AdvisedFamily(Part):
    """Modules of one kind, and whether they may be left out."""

    name: str
    modules: Count
    mean_rank: float
    parameters_share: float
    gain_share: float
    gain_per_parameter: float
    low: float
    high: float
    can_go: bool


class AdvisedLayers(Part):
    """What a step takes without the lowest layers."""

    without_layers: Count
    of: Count
    modules: Count
    gain_share: float
    step_time: float
    low: float
    high: float


class Confidence(Part):
    """How far two halves of the look agree."""

    correlation: float | None
    agreement: float
    level: Literal["high", "moderate", "low"]


class Look(Part):
    """What advice is made from."""

    warm_steps: Count
    look_steps: Count
    rows: Count
    seconds: float


class Answer(Record):
    """Advice as `dynlora advise --out` writes it, beside settings of PEFT that are made of it."""

    MAX_BYTES: ClassVar[int] = 4_000_000

    ranks: dict[str, Count]
    scaling: dict[str, float]
    parameters: Count
    budget: Count
    uniform_rank: Count
    task_type: str
    modules: Row[AdvisedModule] = Field(max_length=20_000)
    families: Row[AdvisedFamily] = Field(min_length=1, max_length=20_000)
    layers: Row[AdvisedLayers] = Field(max_length=20_000)
    confidence: Confidence
    look: Look

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse ranks or scalings of other modules."""
        if not {module.name for module in self.modules} == set(self.ranks) == set(self.scaling):
            raise ValueError("ranks of other modules")
        return self
