"""All checks of a run's health: which find something, which wait for more of the run, which cannot be made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from dynlora.analysis.capacity_frames import event_steps
from dynlora.analysis.frames import smoothed
from dynlora.analysis.learning import LOOK_STEPS, MEANINGS, Symptom, message
from dynlora.analysis.stats import spearman
from dynlora.text import listed, minus, number, one_line, percent, plural

PROBLEM, NOTICE = "problem", "notice"
"""The levels of a finding: something to repair, something to know."""

UNUSED_BELOW = 0.95
"""Fraction of the budget in use at the end below which it counts as unused."""

STARVED_RANK = 1
"""Rank up to which a module is starved when its importance is in the top quarter."""

GATE_IDLE = 1e-3
"""Distance from 1, and difference between groups, within which a gate does nothing."""

GATE_EDGE = 0.05
"""Distance from 0 and 2, the ends of a gate's range, within which it is saturated."""

NOISY_BELOW = 0.5
"""Rank correlation of importance between neighbouring windows below which it is noise more than signal."""

DIVERGED_ABOVE = 1.5
"""Last smoothed loss over the first, above which a run has diverged."""

FEWEST_LOSSES, FEWEST_REALLOCATIONS, FEWEST_PAIRS = 5, 3, 3
"""Recorded losses, reallocations, and pairs of neighbouring windows below which nothing is said about them."""

FEWEST_FOR_FLAT, FLAT_SHARE = 20, 0.02
"""Recorded losses below which a flat loss is not spoken of, and the fall, as a fraction, from which it is not flat."""

WINDOWS = 8
"""Windows of equal length that importance is averaged in."""


@dataclass(frozen=True)
class Finding:
    """One thing that may be wrong.

    Attributes:
        level: `PROBLEM` or `NOTICE`.
        title: in a few words.
        words: one or two plain sentences, with numbers; they may hold text of the run's author.
        page: file in pages/ that shows the evidence.
        address: what the address of that page holds besides the run.
    """

    level: str
    title: str
    words: str
    page: str
    address: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What a run has recorded, as far as the checks ask for it.

    Attributes:
        step: last step.
        max_steps: steps planned.
        first_reallocation: step after which the schedule plans the first one; the last step where it does not say.
        planned_events: reallocations the schedule plans, None when not recorded.
        budget: parameters, None when there is none.
        modules: as `capacity.described` returns them.
        line: parameters in use, as `capacity.budget_line` returns them.
        ranks: one row per module as recorded, one column per step.
        importance: the same, empty when not recorded.
        gates: the same, empty when the run has no gates.
        group_gates: groups by modules at the last evaluation.
        reallocations: events, columns step and payload.
        loss: training loss, columns step and value.
        confusion: counts of the last evaluation, rows are the truth; None for regression.
        evaluated_at: its step.
        data_warnings: what was odd about the data.
        learning: what a look at the first steps found; None where nobody looked.
        learning_step: the step of that look.
        has_classes: the labels are classes, as far as the run says.
    """

    step: int
    max_steps: int
    first_reallocation: int
    planned_events: int | None
    budget: int | None
    modules: pd.DataFrame
    line: pd.DataFrame
    ranks: pd.DataFrame
    importance: pd.DataFrame
    gates: pd.DataFrame
    group_gates: pd.DataFrame
    reallocations: pd.DataFrame
    loss: pd.DataFrame
    confusion: Sequence[Sequence[float]] | None
    evaluated_at: int
    data_warnings: Sequence[str]
    learning: Sequence[Symptom] | None = None
    learning_step: int = 0
    has_classes: bool = True


def allocator(evidence: Evidence) -> Finding | None:
    """Find an allocator that plans reallocations and never made one, a tenth of the run after the first planned one."""
    if not evidence.planned_events or len(evidence.reallocations) or needs_due_reallocation(evidence):
        return None
    return Finding(
        PROBLEM,
        "The allocator never ran",
        f"{evidence.planned_events} reallocations are planned, but none was recorded up to step {evidence.step:,}.",
        "capacity",
        {"signal": "rank"},
    )


def frozen(evidence: Evidence) -> Finding | None:
    """Find several reallocations after which no rank differs."""
    events, ranks = len(evidence.reallocations), evidence.ranks.to_numpy(float)
    if events < FEWEST_REALLOCATIONS or not ranks.size or (ranks != ranks[:, :1]).any():
        return None
    edits = len(event_steps(evidence.reallocations))
    return Finding(
        NOTICE,
        "The ranks are frozen",
        f"There were {events} reallocations, {edits} of them with an edit, but every module still has its "
        "initial rank.",
        "capacity",
        {"signal": "rank"},
    )


def budget(evidence: Evidence) -> Finding | None:
    """Find a budget that was exceeded, or of which more than a twentieth is left over."""
    known = evidence.line.dropna(subset=["parameters"])
    if known.empty or not evidence.budget:
        return None
    last, most = float(known["parameters"].iloc[-1]), float(known["parameters"].max())
    over = known.loc[known["parameters"] > evidence.budget, "step"]
    if last > evidence.budget:
        over_now = last - evidence.budget
        words = f"{number(int(over_now))} parameters ({percent(over_now / evidence.budget)}) above the budget"
        words = f"The adapters have {words} of {number(evidence.budget)}."
        if (to_come := (evidence.planned_events or 0) - len(evidence.reallocations)) > 0 and len(over) == len(known):
            words += f" The run started so; {plural(to_come, 'reallocation')} to come."
            return Finding(NOTICE, "The budget is not reached yet", words, "run")
        return Finding(PROBLEM, "The budget is exceeded", words, "run")
    if len(over):
        words = (
            f"The adapters exceeded the budget by up to {number(int(most - evidence.budget))} "
            f"parameters ({percent(most / evidence.budget - 1, 0)}). Since then they are within the budget."
        )
        return Finding(NOTICE, f"Budget exceeded until step {int(over.iloc[-1]):,}", words, "run")
    if last < UNUSED_BELOW * evidence.budget:
        left = evidence.budget - last
        words = f"{number(int(left))} of {number(evidence.budget)} parameters ({percent(left / evidence.budget)})"
        return Finding(NOTICE, "Part of the budget is unused", f"{words} are not used by any adapter.", "run")
    return None


def starved(evidence: Evidence) -> Finding | None:
    """Find modules of rank 0 or 1 whose importance is in the top quarter."""
    ranks = evidence.ranks.to_numpy(float)
    if evidence.importance.empty or needs_ranks(evidence):
        return None
    share = _windows(evidence.importance)[:, -1]
    high = np.isfinite(share) & (share >= np.nanquantile(share, 0.75)) & (share > 0)
    rows = evidence.modules[(high & (ranks[:, -1] <= STARVED_RANK))[evidence.modules["position"]]]
    if rows.empty:
        return None
    names = listed([one_line(name, 40) for name in rows["short"]])
    verb = "is" if len(rows) == 1 else "are"
    return Finding(
        NOTICE,
        f"{plural(len(rows), 'important module')} with very low rank",
        f"{names} {verb} in the top quarter by importance but {'has' if verb == 'is' else 'have'} rank "
        f"{STARVED_RANK} or less.",
        "capacity",
        {"signal": "importance", "module": str(rows["name"].iloc[0])},
    )


def gates(evidence: Evidence) -> Finding | None:
    """Find gates that stay neutral, are the same for all inputs, or have run to an end of their range."""
    values = evidence.gates.to_numpy(float)
    if not values.size or needs_half(evidence):
        return None
    last = values[:, -1]
    edge = int(((last < GATE_EDGE) | (last > 2 - GATE_EDGE)).sum())
    if edge:
        words = f"{edge} of {len(last)} gates are within {GATE_EDGE:g} of 0 or 2, the limits of their range."
        return Finding(PROBLEM, "Gates are saturated", words, "capacity", {"signal": "gate"})
    if np.nanmax(np.abs(last - 1)) <= GATE_IDLE:
        words = (
            f"All {len(last)} gates are within {GATE_IDLE:g} of 1 at step {evidence.step:,}, so they have no effect."
        )
        return Finding(NOTICE, "The gates have no effect", words, "capacity", {"signal": "gate"})
    groups = evidence.group_gates.to_numpy(float)
    if len(groups) > 1 and np.nanmax(np.nanmax(groups, 0) - np.nanmin(groups, 0)) <= GATE_IDLE:
        words = f"No gate differs by more than {GATE_IDLE:g} between input groups, so they treat all inputs alike."
        return Finding(NOTICE, "The gates do not distinguish input groups", words, "inputs")
    return None


def noise(evidence: Evidence) -> Finding | None:
    """Find importance whose order changes from one window of the run to the next."""
    known = _neighbours(evidence)
    if len(known) < FEWEST_PAIRS or np.median(known) >= NOISY_BELOW:
        return None
    parts, median = _windows(evidence.importance).shape[1], minus(f"{np.median(known):.2f}")
    return Finding(
        NOTICE,
        "Importance is mostly noise",
        f"Over {parts} equal parts of the run, the order of the modules by importance has a median rank "
        f"correlation of {median} between neighbouring parts. Below {NOISY_BELOW:g} counts as noise.",
        "capacity",
        {"signal": "importance"},
    )


def loss(evidence: Evidence) -> Finding | None:
    """Find a loss that is not a number, or that ends far above where it began."""
    bad = evidence.loss.loc[~np.isfinite(evidence.loss["value"].astype(float)), "step"]
    if len(bad):
        words = f"The loss is not finite at {len(bad):,} of the steps shown, first at step {int(bad.iloc[0]):,}."
        return Finding(PROBLEM, "The loss diverged", words, "run")
    if len(evidence.loss) < FEWEST_LOSSES:
        return None
    smooth = smoothed(evidence.loss["value"])
    first, last = float(smooth.iloc[: max(1, len(smooth) // 20)].mean()), float(smooth.iloc[-1])
    if not last > DIVERGED_ABOVE * first:
        return None
    words = f"The smoothed loss rose from {first:.3f} to {last:.3f}, more than {DIVERGED_ABOVE:g} times the start."
    return Finding(PROBLEM, "The loss diverged", words, "run")


def majority(evidence: Evidence) -> Finding | None:
    """Find accuracy that always naming the most frequent class would reach, a quarter of the run on."""
    if evidence.confusion is None or needs_late_evaluation(evidence):
        return None
    table = np.asarray(evidence.confusion, float)
    total = table.sum()
    if not total or np.trace(table) > table.sum(1).max():
        return None
    words = (
        f"At step {evidence.evaluated_at:,}, {percent(np.trace(table) / total)} of the held-out predictions are "
        f"correct. Always predicting the most frequent class reaches {percent(table.sum(1).max() / total)}."
    )
    return Finding(PROBLEM, "No better than the majority class", words, "run", {"section": "results"})


def data(evidence: Evidence) -> Finding | None:
    """Find what was odd about the data when the run was made."""
    if not evidence.data_warnings:
        return None
    words = " ".join(one_line(words, 200).rstrip(".") + "." for words in list(evidence.data_warnings)[:3])
    return Finding(NOTICE, "Data warnings", words, "run", {"section": "machine"})


def learning(evidence: Evidence) -> Finding | None:
    """Find adapters that do not learn: without a gradient, not trained, or with updates of the wrong size."""
    if not evidence.learning:
        return None
    first, *others = evidence.learning
    words = " ".join(message(symptom, evidence.learning_step) for symptom in (first, *others))
    return Finding(PROBLEM, MEANINGS[first.kind].title, words, "capacity", {"signal": "delta_norm"})


def flat(evidence: Evidence) -> Finding | None:
    """Find a loss that, from the first to the last quarter of at least half a run, falls by less than its noise."""
    if needs_flat(evidence):
        return None
    values = evidence.loss["value"].to_numpy(float)
    size = len(values) // 4
    first, last = values[:size], values[-size:]
    noise = 2 * math.sqrt(first.var(ddof=1) / size + last.var(ddof=1) / size)
    fall = float(first.mean() - last.mean())
    if not np.isfinite(fall) or fall > noise or fall > FLAT_SHARE * abs(first.mean()) or loss(evidence) is not None:
        return None
    rises = "" if fall < -noise else f", a change that its noise of ±{noise:.3f} explains"
    return Finding(
        NOTICE,
        "The loss does not fall",
        f"From the first to the last quarter of the steps, the mean training loss went from {first.mean():.3f} to "
        f"{last.mean():.3f}{rises}. Check the labels, then try another learning rate.",
        "run",
    )


def needs_flat(evidence: Evidence) -> str:
    """Return what the check of a flat loss waits for; empty when it can be made."""
    if len(evidence.loss) < FEWEST_FOR_FLAT:
        return f"{FEWEST_FOR_FLAT} recorded steps"
    return needs_half(evidence)


def needs_look(evidence: Evidence) -> str:
    """Return what the check of the first steps waits for; empty when it was made."""
    return "" if evidence.learning is not None else f"step {min(LOOK_STEPS, evidence.max_steps):,}"


def needs_loss(evidence: Evidence) -> str:
    """Return what the check of the loss waits for; empty when it can be made."""
    return "" if len(evidence.loss) >= FEWEST_LOSSES else f"{FEWEST_LOSSES} recorded steps"


def needs_late_evaluation(evidence: Evidence) -> str:
    """Return what the check against the most frequent class waits for; empty when it can be made."""
    first = math.ceil(evidence.max_steps / 4)
    return "" if evidence.evaluated_at >= first else f"an evaluation at step {first:,} or later"


def needs_due_reallocation(evidence: Evidence) -> str:
    """Return what the check of the allocator waits for; empty when it can be made."""
    due = min(evidence.first_reallocation + math.floor(0.1 * evidence.max_steps) + 1, evidence.max_steps)
    return "" if len(evidence.reallocations) or evidence.step >= due else f"step {due:,}"


def needs_reallocations(evidence: Evidence) -> str:
    """Return what the check of the ranks waits for; empty when they have changed, or it can be made."""
    ranks = evidence.ranks.to_numpy(float)
    is_clear = len(evidence.reallocations) >= FEWEST_REALLOCATIONS or bool((ranks != ranks[:, :1]).any())
    return "" if is_clear else f"{FEWEST_REALLOCATIONS} reallocations"


def needs_ranks(evidence: Evidence) -> str:
    """Return what the check of important modules waits for; empty when it can be made."""
    ranks = evidence.ranks.to_numpy(float)
    is_wide = bool(ranks.size) and np.median(ranks[:, -1]) > STARVED_RANK
    return "" if is_wide else f"a rank above {STARVED_RANK} in most modules"


def needs_windows(evidence: Evidence) -> str:
    """Return what the check of the order of importance waits for; empty when it can be made."""
    steps = 3 * (FEWEST_PAIRS + 1)
    return "" if len(_neighbours(evidence)) >= FEWEST_PAIRS else f"{steps} recorded steps of importance that varies"


def needs_half(evidence: Evidence) -> str:
    """Return what the check of the gates waits for; empty when it can be made."""
    half = math.ceil(evidence.max_steps / 2)
    return "" if evidence.step >= half else f"step {half:,}"


def _neighbours(evidence: Evidence) -> list[float]:
    """Return the rank correlation of importance between neighbouring windows, where there is one."""
    windows = _windows(evidence.importance)
    pairs = [spearman(a, b) for a, b in zip(windows.T[:-1], windows.T[1:], strict=True)]
    return [pair for pair in pairs if np.isfinite(pair)]


def _windows(values: pd.DataFrame) -> np.ndarray:
    """Return the mean of each module's values in `WINDOWS` equal windows, (modules, windows); fewer when short."""
    table = values.to_numpy(float)
    count = min(WINDOWS, table.shape[1] // 3) if table.ndim == 2 else 0
    if not count:
        return np.empty((len(table), 0)) if not table.size else np.nanmean(table, axis=1, keepdims=True)
    return np.stack([np.nanmean(part, axis=1) for part in np.array_split(table, count, axis=1)], axis=1)


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
        learning,
        "the adapters learn",
        lambda e: e.learning is not None or e.step < min(LOOK_STEPS, e.max_steps),
        "a look at the first steps",
        needs_look,
    ),
    Check(loss, "the loss is finite and does not diverge", lambda e: True, "the loss", needs_loss),
    Check(flat, "the loss falls", lambda e: True, "the loss", needs_flat),
    Check(
        majority,
        "accuracy is above the majority class",
        lambda e: e.confusion is not None,
        "predictions by class",
        needs_late_evaluation,
        lambda e: e.has_classes,
    ),
    Check(
        budget,
        "the budget is used and not exceeded",
        lambda e: bool(e.budget),
        "a budget",
        lambda e: "" if len(e.line.dropna(subset=["parameters"])) else "a first step",
    ),
    Check(
        allocator,
        "the allocator runs as planned",
        lambda e: bool(e.planned_events),
        "planned reallocations",
        needs_due_reallocation,
    ),
    Check(
        frozen,
        "reallocations change the ranks",
        lambda e: e.ranks.size > 0 and _moves_rank(e),
        "planned reallocations",
        needs_reallocations,
    ),
    Check(
        starved,
        "no important module has a very low rank",
        lambda e: e.importance.size > 0,
        "importance",
        needs_ranks,
    ),
    Check(
        noise,
        "the order of importance is stable",
        lambda e: e.importance.size > 0,
        "importance",
        needs_windows,
    ),
    Check(gates, "the gates have an effect", lambda e: e.gates.size > 0, "gates", needs_half),
    Check(data, "the data has no warnings", lambda e: True, "the data"),
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
