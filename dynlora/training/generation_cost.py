"""What the texts cost that a language model writes at evaluations, measured on short continuations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dynlora.engine.loop.trainer import Trainer


def generation_cost(trainer: Trainer, run_s: float) -> dict[str, Any] | None:
    """Return the most that the texts of a run cost; None where nothing is written.

    Args:
        trainer: at step 0, its outlook with the time of a forward pass.
        run_s: seconds that the run takes without texts.

    Returns:
        prompts, new_tokens (most after each), tokens_per_s (over all prompts that are continued together) and seconds
        of the last evaluation; interim_prompts and interim_seconds of one before it; evaluations (that write), total_s
        and share (of the run) of all of them.
    """
    texts = trainer.texts
    if texts is None or not texts.prompts.ids:
        return None
    interim, last = texts.prompts.costs(texts.model, texts.gates)
    texts.decide(interim.seconds)
    written = trainer.outlook.interim_writings if interim.prompts else 0
    total_s = written * interim.seconds + last.seconds
    return {
        **asdict(last),
        "interim_prompts": interim.prompts,
        "interim_seconds": interim.seconds,
        "evaluations": written + 1,
        "total_s": total_s,
        "share": total_s / (run_s + total_s),
    }


def said_generation(cost: dict[str, Any]) -> str:
    """Return the cost of what is written in a line."""
    between = cost["evaluations"] - 1
    earlier = f", {cost['interim_prompts']:,} at {between:,} before it" if between else ""
    return (
        f"{cost['prompts']:,} prompts at the last evaluation{earlier}, at most {cost['new_tokens']:,} tokens each: at "
        f"most {cost['total_s']:.1f} s in all ({cost['tokens_per_s']:.0f} tokens per second), "
        f"{100 * cost['share']:.0f} % of the total time (log.generate_rows, log.generate_interim, log.generate_max)"
    )
