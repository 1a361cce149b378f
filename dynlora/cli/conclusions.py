"""The conclusions about a run, for `show --json`: the verdict against plain LoRA, and its ranks as a LoraConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dynlora.cli.kinds import conclusion_of
from dynlora.store.kinds import TRAIN


def conclusions(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return `verdict`, `lora_config` and `conclusion`, a sentence; each None where there is none.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
    """
    if summary["kind"] != TRAIN:
        return {"verdict": None, "lora_config": None, "conclusion": conclusion_of(folder, summary["kind"])}
    verdict, config = _verdict(folder, summary), lora_config(summary, summary["ranks"])
    return {"verdict": verdict, "lora_config": config, "conclusion": verdict and verdict["text"]}


def lora_config(summary: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, Any] | None:
    """Return ranks as the arguments of PEFT's `LoraConfig`: target_modules, r, lora_alpha and the patterns.

    Args:
        summary: of the run whose scaling they keep.
        ranks: by module.
    """
    from dynlora.viz.ranks.model import lora_settings

    found = lora_settings(summary, ranks)
    if found is None:
        return None
    return {key: value for key, value in asdict(found).items() if key != "is_scaling_known"}


def _verdict(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the verdict on a finished run among the runs beside it; None where nothing can be held against it."""
    from dynlora.viz.verdict.run_verdict import run_verdict
    from dynlora.viz.verdict.text import headline

    verdict = run_verdict(folder, summary)
    contest = None if verdict is None else verdict.decisive
    if verdict is None or contest is None or contest.difference is None:
        return None
    difference = contest.difference
    return {
        "text": headline(verdict), "n": contest.seeds, "difference": difference.mean, "low": difference.low,
        "high": difference.high, "unit": contest.unit, "outcome": contest.outcome, "configuration": contest.group.label,
        "against": verdict.baseline.label,
    }  # fmt: skip
