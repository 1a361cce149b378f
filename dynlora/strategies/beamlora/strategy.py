"""BeamLoRA: components of a module compete by a softmax; the weak give their slots to copies of the strong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Edit
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.randomness import stream
from dynlora.engine.strategy import OwnSignal, Strategy, own_group, setting, start_setting, state
from dynlora.errors import ConfigError
from dynlora.strategies.beamlora.layer import BeamLinear, CopyComponent, TakeSnapshot, factors_of, jump, pairing, pruned


@dataclass
class BeamLora(Strategy):
    """h = W0 x + alpha / r · B(r · softmax(q / τ) ⊙ A x), with weak components overwritten by copies of strong ones.

    The scores q start at zero, so that it starts as LoRA, and are trained with the adapter. Every `allocate_every`
    steps the factors of all modules are sorted. Components beyond a fraction p of their sum are pruned. In each module
    as many of the strongest components take the pruned slots, as they and their moments were half a window ago. Rank
    and parameters never change. The scores are not counted, because the factors fold into B.

    Paper: Gu et al. 2025, BeamLoRA: Beam-Constraint Low-Rank Adaptation, ACL, arXiv 2502.13604.
    Differs: the moments are moved; the published code writes them into a temporary tensor. Where more than half of a
    module is pruned, only as many slots are taken as components stay. Intervals are fractions of the run: 8 % between
    events and p at 1 after two thirds, as 3,000 and 24,688 steps are of the published 37,000. A note on the paper says
    that pruning begins gently. The code does the opposite and is followed; `direction: rising` is the other. `copy:
    halved` is ours.
    """

    title = "BeamLoRA"
    summary = (
        "Inside every module components compete for one sum of factors. At intervals the weakest are overwritten by "
        "copies of the strongest, as they were half an interval before. Nothing moves between modules."
    )
    formula = r"h = W_0 x + \tfrac{\alpha}{r} B\,(r\,\mathrm{softmax}(q / \tau) \odot A x)"
    paper = "Gu et al. 2025, arXiv 2502.13604"
    fidelity = "code"
    as_lora = {"top_p": 1.0, "score_lr_ratio": 0.0}
    cost = "one number per component; a copy of the adapters and their moments for half an interval"
    step_cost = "more"
    own_signals = {"copied": OwnSignal("slots overwritten", "Which modules overwrote unused components", "copies")}

    init: str = start_setting(("kaiming", "gaussian", "eva"))
    temperature: float = setting(0.05, "Temperature τ; the authors use 0.03 for learning rates below 1e-4.", gt=0)
    top_p: float = setting(
        0.95, "Fraction of all factors kept where pruning is strongest; 1: never prunes.", gt=0, le=1
    )
    direction: str = setting(
        "fading", "fading: p goes from top_p to 1; rising: from 1 to top_p.", choices=("fading", "rising")
    )
    moving_share: float = setting(2 / 3, "Fraction of the steps over which p changes.", gt=0, le=1)
    allocate_every: int | None = setting(None, "Steps between events. Empty: 8 %.", unit="steps", ge=2)
    copy: str = setting(
        "published",
        "published: a copy from half an interval ago, the function jumps; halved: the source is split.",
        choices=("published", "halved"),
    )
    score_lr_ratio: float = setting(1.0, "Learning rate of the scores over that of A; 0 holds them.", ge=0, le=1024)

    past: list[dict[str, Tensor]] = state(list)
    copied: list[int] = state(list)
    last_p: float = state(float)
    last_jump: Tensor | None = state(lambda: None)

    def check(self, total: int, rank: int) -> None:
        """Refuse an interval that leaves no event."""
        if self.allocate_every is not None and 2 * self.allocate_every > total:
            raise ConfigError(
                f"strategy.allocate_every={self.allocate_every}: an interval must be left after the first event of "
                f"the run's {total} steps; lower it to {max(2, total // 2)} or raise train.steps"
            )

    def window(self, total: int) -> int:
        """Return the steps between events."""
        return self.allocate_every or max(2, round(0.08 * total))

    def keep(self, step: int, total: int) -> float:
        """Return p after a step: half a cosine between top_p and 1."""
        progress = min(1.0, step / (self.moving_share * total))
        fallen = 0.5 * (1 + math.cos(math.pi * progress))
        return 1 - (1 - self.top_p) * (fallen if self.direction == "fading" else 1 - fallen)

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which slots are taken; a whole window is left after the last."""
        return [step for step in range(1, total + 1) if self._is_event(step, total, rank)]

    def _is_event(self, step: int, total: int, rank: int) -> bool:
        """Say whether slots are taken after a step; one component alone has no slot to take."""
        every = self.window(total)
        return rank > 1 and step % every == 0 and step <= total - every and self.keep(step, total) < 1

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> BeamLinear:
        """Return an adapter with scores."""
        scaling = self.module_scaling(probe)
        adapter = BeamLinear(base, module, rank=rank, scaling=scaling, temperature=self.temperature)
        adapter.reset_parameters(probe.seed, gaussian=1 / probe.rank if self.init == "gaussian" else None)
        return adapter

    def groups(self, adapters: Adapters) -> list[dict[str, Any]]:
        """Return the scores as a group of their own, without weight decay, which would even them out."""
        scores = [module.score for module in beams(adapters)]
        return own_group(super().groups(adapters), scores, lr_factor=self.score_lr_ratio, weight_decay=0.0)

    def start(self, adapters: Adapters) -> None:
        """Count copies from zero."""
        self.copied = [0] * len(adapters)

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Take the snapshot half a window before an event, and let slots be taken at it."""
        total, rank = step.total, adapters.reference_rank
        self.last_p, self.last_jump = self.keep(step.index, total), None
        if self._is_event(step.index, total, rank):
            return self._copies(adapters, step)
        if self._is_event(step.index + self.window(total) // 2, total, rank):
            return [TakeSnapshot(self.past)]
        return []

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record how many slots of each module have been overwritten so far."""
        return {"copied": np.array(self.copied)}

    def scalars(self, adapters: Adapters) -> dict[str, float | Tensor]:
        """Record p, and at an event how far the updates jumped, 0 to 1."""
        jumped = {} if self.last_jump is None else {"jump": self.last_jump}
        return {"top_p": self.last_p, **jumped}

    def _copies(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Return who is copied where; the snapshot is given away."""
        modules, past, self.past = beams(adapters), self.past, []
        factors = [factors_of(module.score.detach(), module.temperature) for module in modules]
        pairs = {
            m: pairing(factors[m], going, stream(adapters.seed, module.info.name, "pairing", step.index))
            for m, (module, going) in enumerate(zip(modules, pruned(factors, self.last_p), strict=True))
        }
        split = self.copy == "halved"
        self.last_jump = jump(modules, pairs, None if split else past)
        values = [factor.tolist() for factor in factors]
        self.copied = [n + len(pairs[m]) for m, n in enumerate(self.copied)]
        return [
            CopyComponent(m, source, target, values[m][source], values[m][target], past[m], split)
            for m, copies in pairs.items()
            for source, target in copies
        ]


def beams(adapters: Adapters) -> list[BeamLinear]:
    """Return the modules, which this method made."""
    return [module for module in adapters if isinstance(module, BeamLinear)]
