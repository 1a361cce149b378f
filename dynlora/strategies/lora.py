"""Plain LoRA: the same rank everywhere, and nothing moves."""

from __future__ import annotations

from dataclasses import dataclass

from dynlora.engine.strategy import Strategy


@dataclass
class Lora(Strategy):
    """h = W0 x + (alpha / r) · B A x with one rank for all modules.

    Paper: Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685. Fields for LoRA+
    (Hayou et al. 2024, arXiv 2402.12354) and rank-stabilised scaling (Kalajdzievski 2023, arXiv 2312.03732).
    Differs: nothing; agrees with PEFT step by step.
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
