"""Advice before training, as `dynlora advise --out` writes it: ranks and modules, and how sure that is."""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar, Literal, Self

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


Rate = Annotated[float, Field(gt=0, le=1e3)]
"""A learning rate."""

Loss = Annotated[float, Field(ge=-1e30, le=1e30)]
"""A loss that a picture can hold."""


class RateTest(Part):
    """One range test.

    Attributes:
        seed: of its batches and draws.
        rates: of the steps, rising.
        losses: of each step's batch, nats, before the step; None where it is no number to draw.
        control: of the same batches while the adapters stay; empty where the head has their rate.
    """

    seed: Count
    rates: Row[Rate] = Field(min_length=1, max_length=10_000)
    losses: Row[Loss | None] = Field(min_length=1, max_length=10_000)
    control: Row[Loss | None] = Field(default=(), max_length=10_000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse steps without a rate, and rates that do not grow."""
        if len(self.rates) != len(self.losses) or len(self.control) not in (0, len(self.losses)):
            raise ValueError("another number of losses")
        if any(later <= earlier for earlier, later in itertools.pairwise(self.rates)):
            raise ValueError("rates that do not grow")
        return self


class RateLook(Part):
    """What a suggested rate is made from.

    Attributes:
        method: that was tested.
        rank: uniform rank of the adapters.
        steps: of all tests.
        rows: training examples that these steps took.
        seconds: of a clock, loading included.
    """

    method: str
    rank: Count
    steps: Count
    rows: Count
    seconds: float


class RankCapacity(Part):
    """Whether the rank is enough.

    Attributes:
        nats: loss of the base model per example, with a fitted head for classes.
        irreducible: part of it that is known to be chance.
        examples: of the training data.
        bits: to be learned, at most.
        parameters: of the adapters.
        capacity: bits that these hold, about.
        verdict: of the two.
    """

    nats: float
    irreducible: float
    examples: Count
    bits: float
    parameters: Count
    capacity: float
    verdict: Literal["ample", "tight", "too small"]


class RateAnswer(Record):
    """A suggested learning rate as `dynlora advise --rate --out` writes it.

    Attributes:
        rate: None where the tests suggest none.
        why: then: flat, breaks or short.
        low, high: least and largest rate that a half of the steps of a test suggests; None where one suggests none.
        level: how far these agree.
        steepest: rate at which the loss falls fastest.
        lowest: rate from which on it rises; None where it falls to the end.
        breaks: rate at which training breaks; None where it does not.
        default: the rate in the settings.
        tests: one, or two where the halves of the first one disagree.
        capacity: whether the rank is enough; None where the task's loss is not in nats.
    """

    MAX_BYTES: ClassVar[int] = 1_000_000

    rate: Rate | None
    why: Literal["", "flat", "breaks", "short"]
    low: Rate | None
    high: Rate | None
    level: Literal["high", "moderate", "low"]
    steepest: Rate | None
    lowest: Rate | None
    breaks: Rate | None
    default: Rate
    tests: Row[RateTest] = Field(min_length=1, max_length=10)
    look: RateLook
    capacity: RankCapacity | None = None

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        """Refuse an answer that has neither a rate nor a reason."""
        if (self.rate is None) != bool(self.why):
            raise ValueError("no rate and no reason")
        return self
