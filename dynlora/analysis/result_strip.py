"""The four questions that people bring to a run, each answered in a line: page, report and notebook draw the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dynlora.analysis import ranks_to_use, verdict_text
from dynlora.analysis.ranks_to_use import Evidence
from dynlora.analysis.run_summary import (
    ACTIVE,
    GENERATED,
    budget_share,
    evaluated_prompts,
    evaluated_rows,
    main_metric,
    method_of,
    parameters_in_use,
    seconds_taken,
)
from dynlora.analysis.stats import share_interval
from dynlora.analysis.verdict import MOST_SEEDS, Contest, Verdict
from dynlora.store.summary import RunSummary
from dynlora.text import duration, listed, metric_words, one_line, percent, plural, score, sentence_case, signed


@dataclass(frozen=True)
class Answer:
    """A question, its answer, and what the answer rests on; plain text of an untrusted run."""

    question: str
    answer: str
    basis: str = ""


@dataclass(frozen=True)
class ResultStrip:
    """What a run gave: how good it is, whether its method helps, which ranks it ended with, and what it cost."""

    metric: Answer
    verdict: Answer
    ranks: Answer
    cost: Answer

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The four, in their order."""
        return (self.metric, self.verdict, self.ranks, self.cost)


def result_strip(summary: RunSummary, verdict: Verdict | None, ranks: Evidence | None) -> ResultStrip:
    """Return the answers for a run in any state.

    Args:
        summary: as `queries.run_summary` returns it.
        verdict: on the run among its like; None where there is none.
        ranks: with the evidence for them; None where the run has not ended, or recorded none.
    """
    return ResultStrip(_metric(summary), _help(summary, verdict), _ranks(summary, ranks), _cost(summary))


def _metric(summary: RunSummary) -> Answer:
    """Return the metric that decides, with its 95 % interval where it is a fraction of examples."""
    name, value = main_metric(dict(summary))
    if value is None:
        is_over = summary.status not in ACTIVE
        return Answer("Result", "–", f"The run {'was not evaluated' if is_over else 'has not been evaluated yet'}.")
    rows = _rows(summary, name)
    question = f"{sentence_case(metric_words(name))}, {plural(rows, 'held-out example') if rows else 'held out'}"
    if rows and name in ("accuracy", GENERATED) and 0 <= value <= 1:
        low, high = share_interval(round(value * rows), rows)
        return Answer(question, percent(value), f"95 % CI {100 * low:.1f} to {100 * high:.1f}")
    return Answer(question, score(value))


def _rows(summary: RunSummary, name: str) -> int | None:
    """Return on how many held-out examples the metric rests; None when that is not known."""
    if name == GENERATED:
        return evaluated_prompts(summary, summary.step)
    return summary.evaluated.get("rows") or evaluated_rows(summary, summary.step)


def _help(summary: RunSummary, verdict: Verdict | None) -> Answer:
    """Return whether the method helps here, or what is missing to say so."""
    if summary.status != "finished" or verdict is None:
        question = f"Does {_method(summary)} help?"
        if summary.status in ACTIVE:
            return Answer(question, "Not known yet", "The verdict comes when the run has finished.")
        return Answer(question, "No verdict", "Only finished runs with a result are compared.")
    contest = verdict.decisive or next(iter(verdict.contests), None)
    is_baseline = summary.id in (*verdict.baseline.runs, *verdict.baseline.repeats)
    if contest is None:
        missing = "other method" if verdict.is_plain else "plain LoRA run"
        question = "Does another method help?" if verdict.is_plain else f"Does {_method(summary)} help?"
        return Answer(question, f"No {missing} to compare with")
    subject = one_line(contest.group.label, 40) if is_baseline else _method(summary)
    return Answer(f"Does {subject} help?", *_outcome(contest, one_line(verdict.baseline.label, 40)))


def _method(summary: RunSummary) -> str:
    return one_line(method_of(dict(summary)) or "this method", 40)


def _outcome(contest: Contest, baseline: str) -> tuple[str, str]:
    """Return what a contest says in a line, and its interval with what would make it surer."""
    if contest.difference is None or contest.side is None:
        return "No verdict yet", contest.why
    difference, digits = contest.difference, contest.side.digits
    mean, low, high = (signed(value, digits) for value in (difference.mean, difference.low, difference.high))
    unit = contest.unit if contest.unit == "points" else f"{contest.unit} of {contest.side.key}".removeprefix(" of ")
    gap, seeds = f"{mean} {unit}", plural(difference.seeds, "seed")
    answers: Mapping[str, str] = {
        "better": f"Yes: {gap} over {baseline}",
        "worse": f"No: {gap} against {baseline}",
        "equal": f"Equal within {verdict_text.margin(contest)}: {gap} against {baseline}",
        "unclear": f"Undecided: {gap} against {baseline}",
        "few": f"Too few seeds: {gap} against {baseline}",
    }
    if contest.outcome == "tie":
        return f"No difference from {baseline}", f"No example differs, {seeds}."
    basis = [f"95 % CI {low} to {high}, {seeds}.", _outlook(contest)]
    if contest.has_own_rate:
        basis.append("Each has its own learning rate.")
    elif contest.other:
        basis.append(f"They differ in {listed([one_line(key, 40) for key in contest.other])}.")
    return answers[contest.outcome], " ".join(filter(None, basis))


def _outlook(contest: Contest) -> str:
    """Return how many seeds would decide; empty where it is decided."""
    if contest.outcome != "unclear":
        return ""
    if contest.seeds_needed is None:
        return f"More than {MOST_SEEDS} seeds would be needed."
    return f"About {plural(contest.seeds_needed - contest.seeds, 'more seed')} would decide."


MOST_KINDS = 3
"""Kinds of modules in the answer."""


def _ranks(summary: RunSummary, ranks: Evidence | None) -> Answer:
    """Return the mean rank of the kinds of modules, the highest first."""
    question = "Ranks to use"
    if ranks is None:
        is_over = summary.status not in ACTIVE
        if is_over:
            return Answer(question, "–", "The run ended before its ranks were final.")
        return Answer(question, "Not known yet", "Known when the run has ended.")
    modules = ranks.modules["rank"]
    if not ranks.is_moved:
        reason = "This run gives no reason to prefer others."
        return Answer(question, f"Rank {int(modules.iloc[0])} for all {len(modules)} modules", reason)
    means = zip(ranks.kinds["kind"], ranks.kinds["rank"], strict=True)
    kinds = [f"{one_line(kind, 24)} {ranks_to_use.mean_words(float(mean))}" for kind, mean in means]
    if len(kinds) == 1:
        return Answer(question, f"Rank {modules.min()} to {modules.max()}", f"Mean rank: {kinds[0]}.")
    return Answer(question, " · ".join(kinds[:MOST_KINDS]), "Mean by kind.")


def _cost(summary: RunSummary) -> Answer:
    """Return the time of training and evaluation, and the parameters in use."""
    params = summary.params
    used, share = parameters_in_use(params), budget_share(params)
    of = "" if share is None else f", {percent(share / 100)} of budget"
    seconds = seconds_taken(dict(summary))
    time = "–" if seconds is None else duration(seconds)
    answer = f"{time} so far" if seconds is not None and summary.status in ACTIVE else time
    return Answer("Cost", answer, "" if used is None else f"{plural(used, 'parameter')}{of}")
