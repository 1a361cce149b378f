"""All checks of a run's health, which of them find something, and which could not be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dynlora.store.meta import section
from dynlora.viz.health import checks
from dynlora.viz.health.checks import PROBLEM, Evidence, Finding
from dynlora.viz.kit.text import listed


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        find: the check itself.
        well: what is true when it finds nothing.
        is_recorded: says whether the run has recorded what the check needs.
        missing: what it lacks otherwise.
    """

    find: Callable[[Evidence], Finding | None]
    well: str
    is_recorded: Callable[[Evidence], bool]
    missing: str


def _has_plan(found: Evidence) -> bool:
    return found.planned_events is not None


CHECKS = (
    Check(checks.loss, "the loss is finite and does not diverge", lambda e: len(e.loss) > 0, "the loss"),
    Check(checks.majority, "accuracy is above the majority "
        "class", lambda e: e.confusion is not None, "predictions by class"),
    Check(checks.budget, "the budget is used and not "
        "exceeded", lambda e: bool(e.budget) and len(e.line) > 0, "a budget"),
    Check(checks.allocator, "the allocator runs as planned", _has_plan, "planned reallocations"),
    Check(checks.frozen, "reallocations change the ranks", lambda e: e.ranks.size > 0, "ranks"),
    Check(checks.starved, "no important module has a very low rank", lambda e: e.importance.size > 0, "importance"),
    Check(checks.noise, "the order of importance is stable", lambda e: e.importance.size > 0, "importance"),
    Check(checks.gates, "the gates have an effect", lambda e: e.gates.size > 0, "gates"),
    Check(checks.data, "the data has no warnings", lambda e: True, "the data"),
)  # fmt: skip
"""All checks, what matters most first."""


def findings(found: Evidence) -> list[Finding]:
    """Return what the checks find, problems first."""
    all_found = [check.find(found) for check in CHECKS if check.is_recorded(found)]
    return sorted((one for one in all_found if one), key=lambda finding: finding.level != PROBLEM)


def summary(found: Evidence) -> str:
    """Say which checks found nothing, and which could not be made."""
    well = [check.well for check in CHECKS if check.is_recorded(found) and check.find(found) is None]
    missing = list(dict.fromkeys(check.missing for check in CHECKS if not check.is_recorded(found)))
    words = f"Passed: {listed(well, limit=len(well))}." if well else "No check could run yet."
    return words + (f" Not recorded in this run: {listed(missing, limit=len(missing))}." if missing else "")


def warmup_steps(config: Mapping[str, Any] | None, max_steps: int) -> int:
    """Return the steps before the first reallocation: what the configuration says, else the usual 12 %."""
    wanted = section(config, "strategy").get("warmup_steps")
    return wanted if isinstance(wanted, int) and wanted >= 0 else round(0.12 * max_steps)
