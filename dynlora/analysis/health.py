"""All checks of a run's health: which find something, which wait for more of the run, which cannot be made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dynlora.analysis import health_checks as checks
from dynlora.analysis.health_checks import PROBLEM, Evidence, Finding
from dynlora.analysis.learning import LOOK_STEPS
from dynlora.text import listed, plural


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        find: the check itself.
        well: what is true when it finds nothing.
        is_recorded: says whether the run has recorded, or will record, what the check needs.
        missing: what it lacks otherwise.
        needs: returns what the check still waits for; empty when it can be made.
        applies: says whether the check makes sense for what the run learns.
    """

    find: Callable[[Evidence], Finding | None]
    well: str
    is_recorded: Callable[[Evidence], bool]
    missing: str
    needs: Callable[[Evidence], str] = lambda evidence: ""
    applies: Callable[[Evidence], bool] = lambda evidence: True


@dataclass(frozen=True)
class Outcome:
    """The results of all checks.

    Attributes:
        findings: problems first.
        passed: what is true where a check found nothing.
        waiting: what would be true, with what its check still needs.
        missing: what the run does not record.
        is_over: whether the run has made its last step, so that what is waited for does not come.
    """

    findings: Sequence[Finding]
    passed: Sequence[str]
    waiting: Sequence[str]
    missing: Sequence[str]
    is_over: bool

    @property
    def conclusion(self) -> str:
        """The result in a sentence."""
        of = len(self.passed) + len(self.findings) + len(self.waiting)
        sentence = f"{len(self.passed)} of {plural(of, 'check')} passed" if of else "No check was possible"
        if not self.waiting:
            return f"{sentence}."
        return f"{sentence}; {len(self.waiting)} {'not possible' if self.is_over else 'not possible yet'}."

    @property
    def details(self) -> list[str]:
        """What passed, what is waited for and what is missing, each in a sentence."""
        later = "Not possible" if self.is_over else "Not yet"
        parts = (("Passed", self.passed), (later, self.waiting), ("Not recorded in this run", self.missing))
        return [f"{word}: {listed(names, limit=len(names))}." for word, names in parts if names]


def _moves_rank(evidence: Evidence) -> bool:
    return evidence.planned_events is None or evidence.planned_events > 0 or len(evidence.reallocations) > 0


CHECKS = (
    Check(
        checks.learning,
        "the adapters learn",
        lambda e: e.learning is not None or e.step < min(LOOK_STEPS, e.max_steps),
        "a look at the first steps",
        checks.needs_look,
    ),
    Check(checks.loss, "the loss is finite and does not diverge", lambda e: True, "the loss", checks.needs_loss),
    Check(checks.flat, "the loss falls", lambda e: True, "the loss", checks.needs_flat),
    Check(
        checks.majority,
        "accuracy is above the majority class",
        lambda e: e.confusion is not None,
        "predictions by class",
        checks.needs_late_evaluation,
        lambda e: e.has_classes,
    ),
    Check(
        checks.budget,
        "the budget is used and not exceeded",
        lambda e: bool(e.budget),
        "a budget",
        lambda e: "" if len(e.line.dropna(subset=["parameters"])) else "a first step",
    ),
    Check(
        checks.allocator,
        "the allocator runs as planned",
        lambda e: bool(e.planned_events),
        "planned reallocations",
        checks.needs_due_reallocation,
    ),
    Check(
        checks.frozen,
        "reallocations change the ranks",
        lambda e: e.ranks.size > 0 and _moves_rank(e),
        "planned reallocations",
        checks.needs_reallocations,
    ),
    Check(
        checks.starved,
        "no important module has a very low rank",
        lambda e: e.importance.size > 0,
        "importance",
        checks.needs_ranks,
    ),
    Check(
        checks.noise,
        "the order of importance is stable",
        lambda e: e.importance.size > 0,
        "importance",
        checks.needs_windows,
    ),
    Check(checks.gates, "the gates have an effect", lambda e: e.gates.size > 0, "gates", checks.needs_half),
    Check(checks.data, "the data has no warnings", lambda e: True, "the data"),
)
"""All checks, what matters most first."""


def outcome(evidence: Evidence) -> Outcome:
    """Return what the checks find, which passed, which wait for something, and what is not recorded."""
    findings: list[Finding] = []
    passed: list[str] = []
    waiting: list[str] = []
    missing: dict[str, None] = {}
    for check in (check for check in CHECKS if check.applies(evidence)):
        one = check.find(evidence) if check.is_recorded(evidence) else None
        if one is not None:
            findings.append(one)
        elif not check.is_recorded(evidence):
            missing[check.missing] = None
        elif needed := check.needs(evidence):
            waiting.append(f"{check.well} (needs {needed})")
        else:
            passed.append(check.well)
    findings.sort(key=lambda finding: finding.level != PROBLEM)
    return Outcome(findings, passed, waiting, list(missing), evidence.step >= evidence.max_steps)
