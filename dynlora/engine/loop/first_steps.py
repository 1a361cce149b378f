"""A look at the adapters after the first steps: do they learn? What it finds is in `analysis.learning`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.analysis.learning import LOOK_STEPS, MEANINGS, TOO_LARGE, TOO_SMALL, Symptom
from dynlora.config import RunConfig, parse_config
from dynlora.engine.evaluation.evaluate import Predictions
from dynlora.engine.loop.step_signals import Measured, spectrum
from dynlora.engine.model.modules import ModuleInfo
from dynlora.errors import DivergedAtStart, TrainingDiverged

CAUSES = ("model.dropout", "model.dtype", "model.quantization", "adapter.alpha", "adapter.dropout", "train.precision")
"""Settings that can make numbers too large before anything is learned."""


def check_loss(config: RunConfig, loss: float, step: int) -> None:
    """Refuse a loss of a training step that is not finite.

    Raises:
        TrainingDiverged: naming the settings that can have caused it; `DivergedAtStart` before the first update.
    """
    if math.isfinite(loss):
        return
    if step <= 1:  # found before the first update
        raise _at_the_start(config, f"the loss of the first step is {loss}")
    raise TrainingDiverged(
        f"train.lr={config.train.lr}: the loss is {loss} at step {step}, which is not finite; lower train.lr, or set "
        "train.max_grad_norm=1"
    )


def check_start(config: RunConfig, predictions: Predictions) -> None:
    """Refuse a model whose losses or outputs on held-out examples are not finite before the first step.

    Raises:
        DivergedAtStart: naming the settings that can have caused it.
    """
    for name, values in (("loss", predictions.loss), ("output", predictions.output)):
        if not np.isfinite(values).all():
            raise _at_the_start(config, f"the {name} of the model on held-out examples is not finite at step 0")


def _at_the_start(config: RunConfig, problem: str) -> DivergedAtStart:
    """Return the error for numbers that are not finite before anything was learned."""
    usual, changed = parse_config({}), dict[str, Any]()
    for key in CAUSES:
        section, _, name = key.partition(".")
        value = getattr(getattr(config, section), name)
        if value != getattr(getattr(usual, section), name):
            changed[key] = value
    if config.strategy.fields.get("start_from"):
        changed["strategy.start_from"] = config.strategy.fields["start_from"]
    given = ", ".join(f"{key}={value}" for key, value in changed.items())
    remedy = f"change {given}" if given else f"use another model than model.name={config.model.name}"
    return DivergedAtStart(f"{problem}, though nothing was learned yet; {remedy}")


HALF = (torch.float16, torch.bfloat16)
"""Types in which a step may be smaller than the distance to the next number."""

ROUNDED_SHARE = 0.5
"""Fraction of a tensor's numbers with a gradient that a step leaves as they are, from which it is rounded away."""

SPENT_SHARE = 0.5
"""Mean learning rate over a run, as a fraction of its peak: what a schedule that falls to zero has."""


class Adapter(Measured, Protocol):
    """An adapted module of ours or of PEFT's."""

    @property
    def info(self) -> ModuleInfo:
        """Name, place and shape."""
        ...

    @property
    def rank(self) -> int:
        """Components; a module without any is not looked at."""
        ...

    @property
    def is_off(self) -> bool:
        """Whether the output does not depend on the adapter now."""
        ...

    @property
    def weight(self) -> Tensor:
        """The frozen weight, (d_out, d_in); a quantised one has another shape or type."""
        ...

    def trained_tensors(self) -> list[nn.Parameter]:
        """Return the adapter's own parameters, whether they require a gradient or not."""
        ...


class FirstSteps:
    """Counts gradients and learning rates of the first steps, and looks once; it changes nothing.

    Attributes:
        symptoms: what was found; None before the look.
    """

    def __init__(
        self,
        adapters: Sequence[Adapter],
        optimizer: Any,
        steps: range,
        *,
        peak_lr: float | None = None,
        model: nn.Module | None = None,
    ) -> None:
        """Watch the adapters.

        Args:
            adapters: all adapted modules.
            optimizer: that is to train them; its parameter groups are read.
            steps: from the number of optimizer steps that were taken before to that of the run; what was taken before
                is not looked at.
            peak_lr: the largest learning rate of the schedule; None for that of the adapters' parameter groups, which
                have it as `initial_lr` where a scheduler was made.
            model: asked whether it checkpoints gradients; None when it is not known.
        """
        self._at = min(LOOK_STEPS, steps.stop)
        self.symptoms: list[Symptom] | None = [] if steps.start >= self._at else None
        self._adapters, self._optimizer, self._model = adapters, optimizer, model
        peak = self._rate("initial_lr") if peak_lr is None else peak_lr
        self._planned = SPENT_SHARE * peak * steps.stop
        self._steps, self._rates = steps.start, 0.0
        self._reached: set[int] = set()
        self._before: dict[int, Tensor] = {}

    def before_step(self) -> None:
        """Note which adapters have gradients; complete, and the weights have not moved."""
        if self.symptoms is not None:
            return
        self._steps += 1
        self._rates += self._rate()
        for place, adapter in enumerate(self._adapters):
            if any(tensor.grad is not None for tensor in adapter.trained_tensors()):
                self._reached.add(place)
        if self._steps == self._at:
            tensors = [tensor for adapter in self._adapters for tensor in adapter.trained_tensors()]
            self._before = {id(one): one.detach().clone() for one in tensors if one.dtype in HALF}

    @torch.no_grad()
    def after_step(self) -> list[Symptom] | None:
        """Look, after the optimizer's step and before gradients are cleared; None but at the one step of the look."""
        if self.symptoms is not None or self._steps < self._at:
            return None
        live = [(place, one) for place, one in enumerate(self._adapters) if one.rank]
        held = self._held()
        by_kind: dict[str, list[tuple[str, float | None]]] = {}
        for place, adapter in live:
            kind, ratio = self._judged(place, adapter, held)
            if kind:
                by_kind.setdefault(kind, []).append((adapter.info.name, ratio))
        self._before = {}
        self.symptoms = [_symptom(kind, by_kind[kind], len(live)) for kind in MEANINGS if kind in by_kind]
        return self.symptoms

    def _rate(self, name: str = "lr") -> float:
        """Return the learning rate of the adapters' groups, the largest; of all groups where they are in none.

        Args:
            name: of the rate in a group; a group without it has `lr`.
        """
        own = {id(tensor) for adapter in self._adapters for tensor in adapter.trained_tensors()}
        groups: list[Mapping[str, Any]] = list(self._optimizer.param_groups)
        with_own = [group for group in groups if any(id(tensor) in own for tensor in group["params"])]
        return max((float(group.get(name, group["lr"])) for group in with_own or groups), default=0.0)

    def _held(self) -> set[int]:
        """Return the identities of the optimizer's parameters."""
        return {id(tensor) for group in self._optimizer.param_groups for tensor in group["params"]}

    def _judged(self, place: int, adapter: Adapter, held: set[int]) -> tuple[str, float | None]:
        """Return the first symptom that fits, empty for none, and ‖ΔW‖ / ‖W‖ where it is about that."""
        tensors = adapter.trained_tensors()
        reasons: list[tuple[str, Callable[[], bool]]] = [
            ("frozen", lambda: not any(tensor.requires_grad for tensor in tensors)),
            ("outside", lambda: not any(id(tensor) in held for tensor in tensors)),
            ("disabled", lambda: adapter.is_off),
            ("checkpointing", lambda: place not in self._reached and self._checkpoints()),
            ("no_gradient", lambda: place not in self._reached),
            ("no_scaling", lambda: adapter.scaling == 0),
            ("zero_gradient", lambda: not _any(tensor.grad for tensor in tensors)),
            ("no_rate", lambda: self._rates == 0),
            ("unmoved", lambda: float(spectrum(adapter)[0]) == 0),
            ("rounded", lambda: self._is_rounded(tensors)),
        ]
        kind = next((name for name, fits in reasons if fits()), "")
        if kind:
            return kind, None
        ratio = _ratio(adapter)
        if ratio is None:
            return "", None
        if ratio > TOO_LARGE:
            return "large", ratio
        return ("small", ratio) if ratio * max(1.0, self._planned / self._rates) < TOO_SMALL else ("", None)

    def _checkpoints(self) -> bool:
        """Say whether the model recomputes activations, by the name of this transformers or of those before 5.20."""
        for name in ("is_activation_checkpointing", "is_gradient_checkpointing"):
            if (checkpoints := getattr(self._model, name, None)) is not None:
                return bool(checkpoints)
        return False

    def _is_rounded(self, tensors: Sequence[Tensor]) -> bool:
        """Say whether the step left most numbers of a tensor of half precision as they were."""
        for tensor in tensors:
            before, gradient = self._before.get(id(tensor)), tensor.grad
            if before is None or gradient is None:
                continue
            pulled = gradient != 0
            stays = (pulled & (tensor == before)).sum()
            if bool(pulled.any()) and float(stays / pulled.sum()) > ROUNDED_SHARE:
                return True
        return False


def _any(gradients: Iterable[Tensor | None]) -> bool:
    """Say whether any gradient has a number that is not zero."""
    return any(gradient is not None and bool((gradient != 0).any()) for gradient in gradients)


def _ratio(adapter: Adapter) -> float | None:
    """Return ‖ΔW‖ / ‖W‖; None for a weight whose norm says nothing: quantised, or zero."""
    weight = adapter.weight
    if not weight.is_floating_point() or weight.numel() != adapter.info.d_in * adapter.info.d_out:
        return None
    size = float(weight.detach().float().norm())
    return float(spectrum(adapter)[0]) / size if size else None


def _symptom(kind: str, modules: Sequence[tuple[str, float | None]], of: int) -> Symptom:
    """Return the symptom of all modules that have it, with the median of their ratios."""
    ratios = sorted(ratio for _, ratio in modules if ratio is not None)
    median = ratios[len(ratios) // 2] if ratios else None
    return Symptom(kind, tuple(name for name, _ in modules), of, median)
