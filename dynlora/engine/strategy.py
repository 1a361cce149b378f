"""The protocol of a method: a dataclass with do-nothing hooks, called by the one training loop.

Fields with a default are hyper-parameters (declared with `setting`); fields with `init=False` are state, saved and
restored with every checkpoint. State that belongs to single components lives in `adapters.track(...)`, so that edits
keep it beside its component. A strategy never changes an adapter itself: it returns edits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from dynlora.engine.allocation.solvers import trimmed_ranks
from dynlora.engine.context import Probe, Step
from dynlora.engine.data.held_back import Batch, HeldBack
from dynlora.engine.edits import Edit
from dynlora.engine.fields import saved_name, setting, state
from dynlora.engine.given_start import GivenStart, ranks_by_module
from dynlora.engine.initializers import STARTS, start_setting
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.errors import ConfigError
from dynlora.tasks import Task, registry

SMOOTHING = 0.9
"""Fraction of the average loss that stays at each step."""

PATIENCE = 10
"""Steps the average is given, at the start and after each halving, before it is believed."""


@dataclass
class LearningRateBackoff:
    """Watches the smoothed loss of the batches.

    The rate is halved when mean loss > best + tolerance · first, where `first` is the mean loss of the first steps, so
    that the tolerance has no unit; then the watch begins again from where the loss is.

    Attributes:
        factor: on the adapters' rate, 1 until the loss climbs.
        average: smoothed loss, not yet corrected for its start.
        seen: steps in it.
        best: least mean loss since the last halving, None before one is believed.
        first: mean loss of the first `PATIENCE` steps, None before.
    """

    factor: float = 1.0
    average: float = 0.0
    seen: int = 0
    best: float | None = None
    first: float | None = None

    def see(self, loss: float, tolerance: float) -> None:
        """Take a step's loss in, and halve the rate where it has climbed by more than `tolerance` of the first."""
        self.average = SMOOTHING * self.average + (1 - SMOOTHING) * loss
        self.seen += 1
        if self.seen < PATIENCE:
            return
        mean = self.average / (1 - SMOOTHING**self.seen)
        self.first = mean if self.first is None else self.first
        self.best = mean if self.best is None else min(self.best, mean)
        if mean > self.best + tolerance * self.first:
            self.factor /= 2
            self.average, self.seen, self.best = 0.0, 0, None


Fidelity = Literal["code", "description", "reconstruction"]
Amount = Literal["less", "same", "more"]


def own_group(groups: list[dict[str, Any]], tensors: Iterable[Tensor], **options: Any) -> list[dict[str, Any]]:
    """Return optimizer groups with `tensors` in one of their own, the last, that has these options."""
    apart = list(tensors)
    taken = {id(tensor) for tensor in apart}
    rest = [{**group, "params": [t for t in group["params"] if id(t) not in taken]} for group in groups]
    return [*rest, {"params": apart, **options}]


@dataclass(frozen=True)
class OwnSignal:
    """What a method's own signal over modules means, for the pages that draw it.

    Attributes:
        title: a word or two.
        question: what its map answers.
        unit: of the values.
        choices: names of the values 0, 1, 2, ... where they are choices and no amounts; empty for amounts.
        grouping: whether equal values mean that modules belong together, and the values nothing else.
    """

    title: str
    question: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    grouping: bool = False


@dataclass
class Strategy:
    """Plain LoRA, and the hooks every method may override.

    Attributes:
        title, summary, formula, paper, cost: for people; the formula in LaTeX, the cost beyond plain adapters in words.
        step_cost, state_memory: of a step, and of the optimizer's state, beside plain LoRA of the same budget.
        tasks: names of those the method can learn; empty for every one.
        fidelity: code (checked against published code), description, or reconstruction.
        budget_in: what is held to uniform LoRA's: parameters, components, or nothing.
        starts_as_base: whether the model's function before step 1 is the base model's.
        base_stays: whether the frozen weights are the base model's throughout.
        resizes: whether tensors may shrink and grow with the rank; not where a method keeps others in their shape.
        own_signals: what `signals` records beside the loop's own, by name.
        as_lora: hyper-parameters with which the method is plain LoRA, step by step; None where there are none.
        held_back: the model and the reserved examples, set by `attach_held_back`.
        task: what the model learns, set by `attach_task`.
        given_ranks: reads the ranks that `ranks_source` names, by module; set by `attach_ranks`.
        given_start: reads the adapter that `start_source` names; set by `attach_start`.
    """

    title: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    fidelity: ClassVar[Fidelity] = "reconstruction"
    cost: ClassVar[str] = ""
    step_cost: ClassVar[Amount] = "same"
    state_memory: ClassVar[Amount] = "same"
    tasks: ClassVar[tuple[str, ...]] = ()
    budget_in: ClassVar[Literal["parameters", "components", "nothing"]] = "parameters"
    starts_as_base: ClassVar[bool] = True
    base_stays: ClassVar[bool] = True
    resizes: ClassVar[bool] = False
    as_lora: ClassVar[Mapping[str, Any] | None] = None
    own_signals: ClassVar[Mapping[str, OwnSignal]] = {}

    held_back: ClassVar[HeldBack | None] = None
    task: ClassVar[Task]
    given_ranks: ClassVar[Callable[[], Mapping[str, int]]]
    given_start: ClassVar[Callable[[], GivenStart]]

    lr_ratio: float = setting(1.0, "Learning rate of B over that of A (LoRA+).", gt=0, le=1024)
    scaling: str = setting(
        "standard", "standard: alpha / rank; rank_stabilized: alpha / √rank.", choices=("standard", "rank_stabilized")
    )
    init: str = start_setting()

    lr_backoff: float = setting(
        0.0,
        "Halve the adapters' learning rate on a loss spike: when the smoothed loss exceeds its best by this fraction "
        "of the first loss; 0: never.",
        ge=0,
    )

    rates: LearningRateBackoff = state(LearningRateBackoff)

    def watch(self, step: Step) -> None:
        """Let the backoff see the loss; reading it waits for the device, so only where it is on."""
        if self.lr_backoff > 0 and step.loss is not None:
            self.rates.see(float(step.loss), self.lr_backoff)

    def check(self, total: int, rank: int) -> None:
        """Refuse explicitly set values that contradict each other or the run's length, before anything is made.

        Args:
            total: optimizer steps of the run.
            rank: rank of uniform LoRA.

        Raises:
            ConfigError: naming the field, its value, the rule and the remedy.
        """

    def check_model(self, modules: Sequence[ModuleInfo], probe: Probe) -> None:
        """Refuse a model that the method cannot adapt, before anything is made; not on resume or load.

        Args:
            modules: those to adapt.
            probe: as in `ranks`, but it may give no batches.

        Raises:
            ConfigError: naming the field, its value, the rule and the remedy.
        """

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which capacity may move in a run of `total` steps, `rank` that of uniform LoRA."""
        return []

    def budget_holds_from(self, total: int, rank: int) -> int:
        """Return the step from which on no more than the budget is held, in a run of `total` steps; 0: always."""
        return 0

    def parameter_budget(self, uniform: int) -> int:
        """Return the adapter parameters allowed, of the `uniform` ones, Σ rank · (d_in + d_out)."""
        return uniform

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Return the starting rank of each module: the same for all, or those of `ranks_source` or `start_source`.

        Where scales are learned, a few components go to pay for them.

        Raises:
            ConfigError: when the ranks that were given are those of other modules, or both sources differ.
        """
        source, start = self.ranks_source(), self.start_source()
        given = None if source is None else f"strategy.ranks_from={source}"
        read_ranks = None if given is None else ranks_by_module(given, self.given_ranks(), modules)
        own = None if start is None else self.given_start().ranks(modules)
        if read_ranks is not None and own is not None and read_ranks != own:
            raise ConfigError(f"{given}: has other ranks than strategy.start_from={start}; give one of them")
        if own or read_ranks or not self.learns_scale():
            return own or read_ranks or [probe.rank] * len(modules)
        return trimmed_ranks(probe.rank, [info.cost for info in modules], probe.budget - len(modules))

    def ranks_source(self) -> str | None:
        """Return the run, folder or file whose ranks the method starts with; None where it has none to read."""
        return None

    def start_source(self) -> str | None:
        """Return the folder of the adapter that the method starts from, head included; None where there is none."""
        return None

    def budget_for(self, modules: Sequence[ModuleInfo], ranks: Sequence[int], probe: Probe) -> int:
        """Return the adapter parameters allowed, once the starting ranks are known; what given ranks cost, exactly."""
        if self.ranks_source() is None and self.start_source() is None:
            return probe.budget
        scales = len(modules) if self.learns_scale() else 0
        return scales + sum(rank * info.cost for rank, info in zip(ranks, modules, strict=True))

    def max_rank(self, module: ModuleInfo, rank: int, probe: Probe) -> int:
        """Return how many components a module may come to hold; plain LoRA needs no room to grow."""
        return rank

    def module_scaling(self, probe: Probe) -> float:
        """Return the fixed factor s of the update, from the reference rank."""
        return probe.lora_alpha / (probe.rank if self.scaling == "standard" else probe.rank**0.5)

    def own_scaling(self, rank: int, probe: Probe) -> float:
        """Return the factor s of a module that starts with `rank` components; the same for all but in a few methods."""
        return self.module_scaling(probe)

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> LoraLinear:
        """Return the adapter that wraps `base`, with A drawn from the module's own stream and B = 0."""
        start, scaling = STARTS[self.init], self.own_scaling(rank, probe)
        adapter = start.adapter(base, module, rank=rank, max_rank=max_rank, scaling=scaling)
        adapter.reset_parameters(probe.seed, gaussian=1 / probe.rank if start.gaussian else None)
        return adapter

    def begin(self, adapters: Adapters, probe: Probe) -> list[Edit]:
        """Return edits that set where the adapters start from data, once they are in the model; not on resume or load.

        `probe.model` carries the adapters now, and its function is what they start as.
        """
        if self.start_source() is not None:
            return self.given_start().edits(adapters)
        return STARTS[self.init].place(adapters, probe)

    def head(self, name: str, module: nn.Linear, probe: Probe) -> nn.Module:
        """Return the replacement of a linear module of the head, trained in full; called after all of `adapter`."""
        return module

    def gate_mode(self) -> str | None:
        """Return how the adapters react to the input: through one gate a `module` or `token`, or not at all (None)."""
        return None

    def learns_scale(self) -> bool:
        """Say whether each module learns one scale, blind to the input; it is paid from the budget."""
        return False

    def scale_rate(self) -> float:
        """Return the learning rate of gates and learned scales, over the run's own."""
        return 1.0

    def groups(self, adapters: Adapters) -> list[dict[str, Any]]:
        """Return optimizer groups; the first holds what is trained at the run's own rate.

        `lr_factor` multiplies the run's rate, at least `least_lr`; or `peak_lr` is a rate of the group's own.
        `constant` keeps it from following the run's schedule, `weight_decay` may override the run's.
        """
        fast, slow, scales = {}, {}, {}  # by identity: modules may share a tensor
        own = {"lora_B": fast, "scale_logit": scales}
        for module in adapters:
            for name, tensor in module.adapter_parameters().items():
                own.get(name, slow)[id(tensor)] = tensor
        groups = [
            {"params": list(slow.values()), "lr_factor": 1.0},
            {"params": list(fast.values()), "lr_factor": self.lr_ratio},
        ]
        gates = [] if adapters.gates is None else list(adapters.gates.parameters())
        if gates or scales:
            parameters = [*gates, *scales.values()]
            groups.append({"params": parameters, "lr_factor": self.scale_rate(), "weight_decay": 0.0})
        return groups

    def start(self, adapters: Adapters) -> None:
        """Prepare state, before the first step; not called again on resume."""

    def reserved_share(self) -> float:
        """Return the fraction of the training examples kept from training, for what the method tries on `bench`."""
        return 0.0

    @classmethod
    def learns(cls) -> list[str]:
        """Return the names of the tasks that the method can learn."""
        return list(cls.tasks or registry())

    def attach_task(self, task: Task) -> None:
        """Be handed what the model learns; before the adapters are made, and again on resume.

        Raises:
            ConfigError: when the method cannot learn it.
        """
        if self.tasks and task.name not in self.tasks:
            raise ConfigError(
                f"data.task={task.name}: {self.title or type(self).__name__} learns {' and '.join(self.tasks)} only; "
                "choose another strategy.name"
            )
        self.task = task  # pyright: ignore[reportAttributeAccessIssue] - no field, so that it is no state

    def attach_ranks(self, read: Callable[[], Mapping[str, int]]) -> None:
        """Be handed what reads the ranks of `ranks_source`; a resume, which has its own, never calls it."""
        self.given_ranks = read  # pyright: ignore[reportAttributeAccessIssue] - no field, so that it is no state

    def attach_start(self, read: Callable[[], GivenStart]) -> None:
        """Be handed what reads the adapter of `start_source`; a resume, which has its own, never calls it."""
        self.given_start = read  # pyright: ignore[reportAttributeAccessIssue] - no field, so that it is no state

    def attach_held_back(self, held_back: HeldBack) -> None:
        """Be handed the model and the reserved rows; before `start`, and again on resume."""
        self.held_back = held_back  # pyright: ignore[reportAttributeAccessIssue] - no field, so that it is no state

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what the model says of a batch without its labels, as the task has it: logits, (batch, n_labels).

        While training a method may return another shape, if its `loss` takes it.
        """
        return self.task.forward(model, batch)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of what `forward` returned while training."""
        return self.task.batch_loss(output, labels)

    def disagreement(self) -> Tensor | None:
        """Return how far the members of a method that has some disagree about the last forward's rows, (batch,)."""
        return None

    def penalty(self, adapters: Adapters) -> dict[str, Tensor]:
        """Return named terms added to the loss; they are recorded apart, the reported loss is without them."""
        return {}

    def observe(self, adapters: Adapters, step: Step) -> None:
        """Look at the gradients: complete, unscaled, unclipped; the weights have not moved yet."""

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Return edits, after the optimizer moved the weights; gradients are still readable, and cleared afterwards."""
        return []

    def finish(self, adapters: Adapters) -> list[Edit]:
        """Return last edits, after the last step."""
        return []

    def scalars(self, adapters: Adapters) -> dict[str, float | Tensor]:
        """Return single numbers to record at this step, such as a threshold or a temperature."""
        return {}

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Return vectors over modules to record at this step; `importance` and `rank` replace the loop's own.

        Further ones are described in `own_signals`.
        """
        return {}

    def component_signals(self, adapters: Adapters) -> dict[str, Tensor]:
        """Return vectors over components to record now and then: each module's `max_rank` ones after the other."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state fields by their saved names; a dataclass among them as the values of its fields."""
        values = {saved_name(f): getattr(self, f.name) for f in self._state_fields()}
        return {name: vars(value) if dataclasses.is_dataclass(value) else value for name, value in values.items()}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Set the state fields from what `state_dict` returned; what an earlier version kept beside them is left."""
        names = {saved_name(f): f.name for f in self._state_fields()}
        for saved, value in values.items():
            if saved not in names:
                continue
            before = getattr(self, names[saved])
            setattr(self, names[saved], type(before)(**value) if dataclasses.is_dataclass(before) else value)

    def _state_fields(self) -> list[dataclasses.Field[Any]]:
        return [f for f in dataclasses.fields(self) if not f.init]
