"""What the texts cost that a language model writes at each evaluation, measured on one short continuation."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from dynlora.engine.evaluation.generate import TOGETHER
from dynlora.engine.evaluation.written import Prompts
from dynlora.engine.loop.trainer import Trainer

TIMED_TOKENS = 12
"""Tokens after each of the timed prompts; a few more or less change little."""


def generation_cost(trainer: Trainer) -> dict[str, Any] | None:
    """Return the most that the texts of an evaluation cost; None where nothing is written.

    The prompts that are continued together are continued by a few tokens. Texts that end before `log.generate_max`
    cost less.

    Returns:
        prompts, new_tokens (most after each), tokens_per_s (over all prompts that are continued together), and
        seconds (of an evaluation, at most).
    """
    prompts = trainer.evaluation.prompts
    if prompts is None or not prompts.ids:
        return None
    few, most = prompts.ids[:TOGETHER], prompts.limits.new_tokens
    long_s, steps = _timed(trainer, replace(prompts, ids=few), min(TIMED_TOKENS, most))
    first_s, _ = _timed(trainer, replace(prompts, ids=few), 1)  # reads the prompts, and writes one token
    each_s = max((long_s - first_s) / max(1, steps - 1), 0.1 * long_s / steps)
    return {
        "prompts": len(prompts.ids),
        "new_tokens": most,
        "tokens_per_s": len(few) / each_s,
        "seconds": (first_s + (most - 1) * each_s) * len(prompts.ids) / len(few),
    }


def _timed(trainer: Trainer, prompts: Prompts, new_tokens: int) -> tuple[float, int]:
    """Continue prompts by a few tokens; return the seconds it took, and the most tokens that one of them got."""
    short = replace(prompts, limits=replace(prompts.limits, new_tokens=new_tokens))
    plain: Any = trainer.accelerator.unwrap_model(trainer.model)
    start = time.perf_counter()
    written = short.written(plain, trainer.adapters.gates)
    return time.perf_counter() - start, max(1, *(len(one.ids) + one.ended for one in written))


def said_generation(found: dict[str, Any]) -> str:
    """Return the cost of what is written in a line."""
    return (
        f"{found['prompts']:,} prompts at each of {found['evaluations']:,} evaluations, at most "
        f"{found['new_tokens']:,} tokens each: at most {found['seconds']:.1f} s an evaluation "
        f"({found['tokens_per_s']:.0f} tokens per second), "
        f"{100 * found['share']:.0f} % of the total time (log.generate_rows, log.generate_max)"
    )
