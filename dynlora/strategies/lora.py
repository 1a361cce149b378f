"""Plain LoRA: the same rank everywhere, or ranks that were found before, and nothing moves."""

from __future__ import annotations

from dataclasses import dataclass

from dynlora.engine.strategy import Strategy, setting
from dynlora.errors import ConfigError


@dataclass
class Lora(Strategy):
    """h = W0 x + (alpha / r) · B A x with one rank for all modules.

    Paper: Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685. Fields for LoRA+
    (Hayou et al. 2024, arXiv 2402.12354) and rank-stabilised scaling (Kalajdzievski 2023, arXiv 2312.03732).
    Differs: nothing; agrees with PEFT step by step. With `ranks_from` the ranks are those of a run, an adapter or a
    file; the scaling stays alpha / adapter.rank for every module. With `start_from` ranks, A, B, scaling and
    head are first those of an adapter. With `scale=learned` each module learns a factor g = 2 σ(c) of its update, c = 0
    at the start, which an export folds into B; it is paid from the budget of uniform LoRA.
    """

    title = "LoRA"
    summary = (
        "Every adapted module gets the same rank, and keeps it. The reference that every other method must reduce to "
        "when its dynamics are off."
    )
    formula = r"h = W_0 x + \tfrac{\alpha}{r} B A x"
    paper = "Hu et al. 2021, arXiv 2106.09685"
    fidelity = "code"
    as_lora = {}
    cost = "none beyond the adapters"

    ranks_from: str | None = setting(
        None,
        "Take the rank of each module from a run, a PEFT folder or a JSON file, such as `dynlora compress` writes; "
        "empty: adapter.rank everywhere. Modules without a rank there get no adapter.",
    )

    start_from: str | None = setting(
        None,
        "Start from an adapter: a PEFT folder, such as `dynlora compress --out` writes. Ranks, A, B, scaling and head "
        "are its own; empty: start new. Modules without an update there get no adapter.",
    )

    scale: str = setting(
        "off",
        "learned: one factor per module, blind to the input, paid from the budget and folded into B at export.",
        choices=("off", "learned"),
    )

    scale_lr_ratio: float = setting(
        1.0, "Learning rate of learned scales over that of A; 0 keeps them as they start.", ge=0, le=1024
    )

    def check(self, total: int, rank: int) -> None:
        """Refuse another start beside that of an adapter."""
        if self.start_from is None:
            return
        usual = type(self)()
        for name in ("init", "scaling"):
            if getattr(self, name) != getattr(usual, name):
                raise ConfigError(
                    f"strategy.{name}={getattr(self, name)}: strategy.start_from gives A, B and scaling; leave "
                    f"strategy.{name} at {getattr(usual, name)}"
                )

    def learns_scale(self) -> bool:
        """Say whether modules learn a scale."""
        return self.scale == "learned"

    def scale_rate(self) -> float:
        """Return `scale_lr_ratio`."""
        return self.scale_lr_ratio

    def ranks_source(self) -> str | None:
        """Return `ranks_from`."""
        return self.ranks_from

    def start_source(self) -> str | None:
        """Return `start_from`."""
        return self.start_from
