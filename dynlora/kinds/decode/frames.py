"""What a decode says, as frames and in sentences: results by point, tokens by problem, rewards by step.

Accuracy has Wilson's 95 % interval; a difference between two points is paired over the problems that both solved.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dynlora.analysis.stats import paired_share_interval, share_interval, side_of_0
from dynlora.blocks import in_words
from dynlora.kinds.decode.result import DRAFT, TARGET, Decode, Point, Solution, Step
from dynlora.text import one_line, percent, plural, score, signed, source_name
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Choice, RunView
from dynlora.viz.kit.theme import Palette

WHAT = (
    "A cheap draft writes each step of a solution. A reward judges the step. Where the score is too low, the target "
    "writes the step again. This page shows where the draft was trusted, and what that saved."
)
PURPOSE = (
    "A small model drafts each step of an answer and a large one rewrites weak steps: for when the large model alone "
    "costs too much."
)
ONLY_FIRST = (
    "The threshold decided while the texts were written. Another threshold changes the text from its first rejected "
    "step on, so each threshold is a decode of its own."
)


def about(result: Decode) -> str:
    """Return the line under the title: who plays the roles."""
    draft, target, reward = (result.roles.get(role, {}) for role in (DRAFT, TARGET, "reward"))
    layers = draft.get("layers")
    first = f" ({in_words(layers)})" if isinstance(layers, int | str) else ""
    judge = reward.get("name") or reward.get("kind") or "none"
    names = [source_name(role.get("name") or role.get("model") or "?") for role in (draft, target)]
    return f"Draft: {names[0]}{first} · target: {names[1]} · reward: {judge}"


def headline(result: Decode, point: Point | None) -> str:
    """Return the conclusion in a sentence."""
    if point is None:
        return "No problem has been solved yet." if not result.solutions else "No threshold was decoded yet."
    ratio = cost_ratio(result, point.key, TARGET)
    gap = difference(result, point.key, TARGET)
    if gap is None or ratio is None:
        return f"{label(point)}: {_right_answers(result, point.key)}; the target alone was not decoded beside it."
    cost = f"{percent(ratio, 0)} of the target's decode FLOPs"
    words = {
        "above": "More right answers than",
        "below": "Fewer right answers than",
        "unclear": "Accuracy not significantly different from",
        "few": "Too few problems to compare the accuracy with",
    }
    return f"{words[side_of_0(gap.low, gap.high, gap.n)]} the target alone, at {cost}."


def basis(result: Decode, point: Point | None) -> str:
    """Return what the conclusion rests on: accuracies with n, the paired interval, and the control."""
    if point is None:
        return WHAT
    sentences = [f"{label(point)}: {_right_answers(result, point.key)}"]
    gap = difference(result, point.key, TARGET)
    if gap is not None:
        sentences.append(
            f"Target alone: {_right_answers(result, TARGET)} (difference {_points(gap.mean)} points, 95 % CI "
            f"{_points(gap.low)} to {_points(gap.high)}, {plural(gap.n, 'problem')})"
        )
    if alone(result, DRAFT) is not None:
        sentences.append(f"Draft alone: {_right_answers(result, DRAFT)}")
    several = len(offered(result))
    chosen = f" Of {several} thresholds on the same problems, one was chosen to be shown." if several > 1 else ""
    sentence = ". ".join(sentences) + f".{chosen}"
    control = control_beside(result, point.key)
    gap = None if control is None else difference(result, point.key, control)
    if gap is None:
        return sentence
    return (
        f"{sentence} The reward is {_compared(gap)} accepting at random at nearly equal cost "
        f"({_points(gap.mean)} points, 95 % CI {_points(gap.low)} to {_points(gap.high)})."
    )


def _compared(gap: Difference) -> str:
    words = {"above": "better than", "below": "worse than", "unclear": "not significantly different from"}
    return words.get(side_of_0(gap.low, gap.high, gap.n), "measured on too few problems to compare with")


def _points(share: float) -> str:
    return signed(100 * share, 1)


def _right_answers(result: Decode, key: str) -> str:
    solved = [one.right for one in solutions_of(result, key) if one.right is not None]
    return f"{sum(solved):,} of {len(solved):,} right" if solved else "no answer known"


def solution(one: Solution) -> str:
    """Return what became of a problem."""
    verdict = {True: "right", False: "wrong", None: "answer not known"}[one.right]
    rejected = sum(step.discarded is not None for step in one.steps)
    ends = {"tokens": "; it ended at the limit of tokens", "steps": "; it ended at the limit of steps"}
    return (
        f"Problem {one.problem + 1}, {verdict}: {plural(len(one.steps), 'step')}, {rejected} of the draft rejected"
        f"{ends.get(one.ended, '')}."
    )


POINT = "point"
"""Name of the choice."""


def point_choice(result: Decode) -> Choice | None:
    """Return the points that have solved a problem; None before the first."""
    points = {point.key: point for point in result.points if point.key in result.solved}
    if not points:
        return None
    usual = opening(result) or next(iter(points.values()))
    words = {key: label(point) for key, point in points.items()}
    return Choice("point", "Threshold", words, usual.key, help=ONLY_FIRST)


def point_named(result: Decode, key: str | None) -> Point | None:
    """Return the point of a key, the usual one where the key is none of the decode's; None before the first."""
    choice = point_choice(result)
    if choice is None:
        return None
    chosen = key if key in choice.options else choice.usual
    return next(point for point in result.points if point.key == chosen)


def point_of(view: RunView) -> Point | None:
    """Return the chosen point."""
    return point_named(view.result, view.chosen.get(POINT))


MOST_STEPS = 200
"""Steps that are drawn."""


def role_colours(colours: Palette) -> dict[str, str]:
    """Return the colour of each writer; a discarded step of the draft is muted."""
    return {"draft kept": colours.accent, "draft discarded": colours.muted, "target": colours.second}


def solution_html(one: Solution, point: Point, colours: Palette) -> str:
    """Return a solution as HTML; every text of the run is escaped."""
    return steps_html(one.steps, point.value if point.accept == "threshold" else None, colours)


def steps_html(steps: Sequence[Step], line: float | None, colours: Palette) -> str:
    """Return steps as HTML; every text of them is escaped.

    Args:
        steps: in order.
        line: the threshold, None where none decided.
        colours: of the mode.
    """
    drawn = "".join(_step(step, line, colours) for step in steps[:MOST_STEPS])
    label = html.escape(one_line(f"{len(steps)} steps", 40))
    return f"<style>{_style(colours)}</style><div class='dl-steps' role='list' aria-label='{label}'>{drawn}</div>"


def _step(step: Step, line: float | None, colours: Palette) -> str:
    """Return a step, before it what the draft had written where that was rejected."""
    ink = role_colours(colours)
    before = ""
    if step.discarded is not None:
        gone = _row("draft, rejected", step.discarded, ink["draft discarded"], step.reward, line, colours, struck=True)
        before = f"<details><summary>Rejected draft{_bar(step.reward, line, colours)}</summary>{gone}</details>"
    colour = ink["target" if step.by == TARGET else "draft kept"]
    judged = step.reward if step.discarded is None else None
    return before + _row(step.by, step.text, colour, judged, line, colours)


def _row(
    who: str,
    text: str,
    colour: str,
    reward: float | None,
    line: float | None,
    colours: Palette,
    *,
    struck: bool = False,
) -> str:
    words = html.escape(text.strip("\n")) or "&nbsp;"
    marked = f"<s>{words}</s>" if struck else words
    tint = theme.faded(colour, 0.13)
    bar = "" if struck else _bar(reward, line, colours)
    return (
        f"<div class='dl-step' role='listitem' style='background:{tint};border-left-color:{colour}'>"
        f"<small>{html.escape(who)}</small><pre>{marked}</pre>{bar}</div>"
    )


def _bar(reward: float | None, line: float | None, colours: Palette) -> str:
    """Return the reward as a bar from 0 to 1 with a mark at the threshold, and as a number."""
    if reward is None:
        return "<b class='dl-bar'></b><i>–</i>"
    width = 100 * min(max(reward, 0.0), 1.0)
    colour = colours.accent if line is None or reward >= line else colours.second
    mark = "" if line is None or not 0 <= line <= 1 else f"<u style='left:{100 * line:.1f}%'></u>"
    return f"<b class='dl-bar'><em style='width:{width:.1f}%;background:{colour}'></em>{mark}</b><i>{score(reward)}</i>"


def _style(colours: Palette) -> str:
    return f"""
.dl-steps {{ display: grid; gap: 0.3rem; }}
.dl-step {{ display: grid; grid-template-columns: 4.6rem minmax(0, 1fr) 7rem 3.2rem; gap: 0.6rem; align-items: center;
  border-left: 3px solid; border-radius: 6px; padding: 0.3rem 0.7rem; }}
.dl-step pre {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.88rem; font-family: inherit; }}
.dl-step small, .dl-steps summary {{ color: {colours.muted}; font-size: 0.78rem; }}
.dl-steps summary {{ cursor: pointer; padding: 0.1rem 0.7rem; }}
.dl-steps summary .dl-bar {{ display: inline-block; width: 7rem; margin: 0 0.6rem; vertical-align: middle; }}
.dl-steps i {{ color: {colours.muted}; font-style: normal; font-size: 0.8rem; text-align: right; }}
.dl-bar {{ position: relative; height: 6px; border-radius: 3px; background: {colours.hairline}; }}
.dl-bar em {{ position: absolute; left: 0; top: 0; bottom: 0; border-radius: 3px; }}
.dl-bar u {{ position: absolute; top: -4px; bottom: -4px; width: 2px; background: {colours.text}; }}
@media (max-width: 640px) {{
  .dl-step {{ grid-template-columns: minmax(0, 1fr) 3.2rem; row-gap: 0.1rem; }}
  .dl-step pre, .dl-step .dl-bar {{ grid-column: 1 / -1; }}
  .dl-step i {{ grid-column: 2; grid-row: 1; }}
}}
"""


CONTROL = "constant"
ALONE = (DRAFT, TARGET)

RULES = {
    "threshold": "Threshold",
    "clip": "Clip",
    "sigmoid": "Sigmoid",
    CONTROL: "Constant (control)",
    DRAFT: "Draft alone",
    TARGET: "Target alone",
}
"""Names of the ways of decoding."""

COSTS = {"flops": "Decode FLOPs", "flops_with_prefill": "FLOPs with prefill", "seconds": "Seconds"}
"""What a solution may cost."""

TOLERATED = 0.01
"""How much lower than the target's an accuracy may be that counts as kept: one point."""

BINS = 10
"""Bins of the reward."""


@dataclass(frozen=True)
class Difference:
    """A paired difference of two points over the problems that both solved.

    Attributes:
        mean, low, high: difference of the accuracy with its 95 % interval, in shares.
        n: problems.
    """

    mean: float
    low: float
    high: float
    n: int


def label(point: Point) -> str:
    """Return what a point is called."""
    name = RULES.get(point.accept, point.accept)
    return name if point.value is None else f"{name} {point.value:g}"


def solutions_of(result: Decode, key: str) -> tuple[Solution, ...]:
    """Return the solutions of a point in the order of the problems."""
    return result.solved.get(key, ())


def by_point(result: Decode) -> pd.DataFrame:
    """Return one row per point that has solved a problem.

    Columns: key, point (its label), accept, value, problems, accuracy, low, high, accepted (fraction of the judged
    steps), draft kept, draft discarded, target (tokens per problem), flops, flops_with_prefill, seconds (per problem).
    """
    rows = []
    for point in result.points:
        solved = solutions_of(result, point.key)
        if not solved:
            continue
        right = [one.right for one in solved if one.right is not None]
        low, high = share_interval(sum(right), len(right))
        judged = [step.accepted for one in solved for step in one.steps if step.accepted is not None]
        rows.append(
            {
                "key": point.key,
                "point": label(point),
                "accept": point.accept,
                "value": point.value,
                "problems": len(solved),
                "accuracy": _mean(right),
                "low": low,
                "high": high,
                "accepted": _mean(judged),
                "draft kept": _mean(one.draft_kept for one in solved),
                "draft discarded": _mean(one.draft_discarded for one in solved),
                "target": _mean(one.target for one in solved),
                **{cost: _cost(solved, cost) for cost in COSTS},
            }
        )
    columns = [
        "key",
        "point",
        "accept",
        "value",
        "problems",
        "accuracy",
        "low",
        "high",
        "accepted",
        "draft kept",
        "draft discarded",
        "target",
        *COSTS,
    ]
    return pd.DataFrame(rows, columns=columns)


def _mean(values: Iterable[float | bool | None]) -> float:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _cost(solved: Sequence[Solution], cost: str) -> float:
    return _mean(getattr(one, cost) for one in solved)


def difference(result: Decode, key: str, against: str) -> Difference | None:
    """Return the accuracy of a point less that of another, paired; None below two problems that both solved."""
    pairs = _pairs(result, key, against)
    known = [(one.right, other.right) for one, other in pairs]
    both = [(bool(mine), bool(theirs)) for mine, theirs in known if mine is not None and theirs is not None]
    if len(both) < 2:
        return None
    better, worse = both.count((True, False)), both.count((False, True))
    low, high = paired_share_interval(better, worse, len(both))
    return Difference((better - worse) / len(both), low, high, len(both))


def cost_ratio(result: Decode, key: str, against: str, cost: str = "flops") -> float | None:
    """Return what a point costs as a fraction of another, over the problems that both solved; None where unknown."""
    pairs = _pairs(result, key, against)
    whole = sum(getattr(other, cost) for _, other in pairs)
    return sum(getattr(one, cost) for one, _ in pairs) / whole if whole else None


def _pairs(result: Decode, key: str, against: str) -> list[tuple[Solution, Solution]]:
    others = {one.problem: one for one in solutions_of(result, against)}
    return [(one, others[one.problem]) for one in solutions_of(result, key) if one.problem in others]


def alone(result: Decode, role: str) -> Point | None:
    """Return the point at which a writer is alone, None where it was not decoded."""
    return next((point for point in result.points if point.accept == role), None)


def offered(result: Decode) -> list[Point]:
    """Return the points that are neither an end nor a control and have solved a problem."""
    return [point for point in result.points if point.accept not in (*ALONE, CONTROL) and point.key in result.solved]


def best(result: Decode) -> Point | None:
    """Return the point to recommend; None before anything is solved.

    The cheapest of those whose accuracy is at most `TOLERATED` below the target's alone; without one, or without the
    target alone, the most accurate, of equal ones the cheapest.
    """
    if enough := _as_good(result):
        return enough[0]
    return max(offered(result), key=lambda point: (_accuracy(result, point.key), -_flops(result, point)), default=None)


def opening(result: Decode) -> Point | None:
    """Return the point to open with; None before anything is solved.

    The cheapest as good as the target alone at which draft and target share the work of a right answer; where there is
    no such answer the point to recommend.
    """
    shared = (
        point
        for point in _as_good(result)
        if any(is_shared(one) and one.right for one in solutions_of(result, point.key))
    )
    return next(shared, None) or best(result)


def is_shared(solution: Solution) -> bool:
    """Say whether both draft and target wrote a step of a solution."""
    return {step.by for step in solution.steps} == {DRAFT, TARGET}


def _as_good(result: Decode) -> list[Point]:
    """Return the points whose accuracy is at most `TOLERATED` below the target's alone, the cheapest first."""
    if TARGET not in result.solved:
        return []
    goal = _accuracy(result, TARGET) - TOLERATED
    enough = [point for point in offered(result) if _accuracy(result, point.key) >= goal]
    return sorted(enough, key=lambda point: _flops(result, point))


def _flops(result: Decode, point: Point) -> float:
    return _cost(solutions_of(result, point.key), "flops")


def _accuracy(result: Decode, key: str) -> float:
    """Return the fraction of right answers; -1 where none is known, so that such a point is never the best."""
    known = [one.right for one in solutions_of(result, key) if one.right is not None]
    return sum(known) / len(known) if known else -1.0


def control_beside(result: Decode, key: str) -> str | None:
    """Return the key of the control whose cost is nearest to that of a point; None without a control."""
    controls = [point.key for point in result.points if point.accept == CONTROL and point.key in result.solved]
    if not controls or key not in result.solved:
        return None
    cost = _cost(solutions_of(result, key), "flops")
    return min(controls, key=lambda other: abs(_cost(solutions_of(result, other), "flops") - cost))


def steps_frame(result: Decode, key: str) -> pd.DataFrame:
    """Return the judged steps of a point: problem, step (from 1), reward, accepted, text of the draft."""
    rows = [
        (
            one.problem + 1,
            place,
            step.reward,
            bool(step.accepted),
            step.text if step.accepted else step.discarded or "",
        )
        for one in solutions_of(result, key)
        for place, step in enumerate(one.steps, 1)
        if step.reward is not None
    ]
    return pd.DataFrame(rows, columns=["problem", "step", "reward", "accepted", "text"])


def tokens_frame(result: Decode, key: str) -> pd.DataFrame:
    """Return the tokens of each problem, most of the target first: problem, draft kept, discarded, target, read."""
    rows = [
        (
            one.problem + 1,
            one.draft_kept,
            one.draft_discarded,
            one.target,
            sum(one.prefilled.values()),
            one.right,
        )
        for one in solutions_of(result, key)
    ]
    frame = pd.DataFrame(rows, columns=["problem", "draft kept", "draft discarded", "target", "prefill", "right"])
    return frame.sort_values(["target", "draft discarded", "problem"], ascending=[False, False, True])


def reliability(result: Decode, key: str) -> pd.DataFrame:
    """Return, by bin of a step's reward, the fraction of right final answers of a point.

    Columns: from, to, steps, solutions, right, low, high. Only steps that were kept count: what became of a rejected
    step is not known. A solution counts once in a bin, since its steps share one answer.
    """
    pairs = [
        (step.reward, one.problem, one.right)
        for one in solutions_of(result, key)
        for step in one.steps
        if step.reward is not None and step.accepted and one.right is not None
    ]
    rows: list[tuple[float, ...]] = []
    if pairs:
        rewards = np.array([pair[0] for pair in pairs])
        edges = np.linspace(min(0.0, float(rewards.min())), max(1.0, float(rewards.max())), BINS + 1)
        places = np.clip(np.searchsorted(edges, rewards, side="right") - 1, 0, BINS - 1)
        for place in np.unique(places):
            inside = [pairs[index] for index in np.flatnonzero(places == place)]
            right = {problem: bool(answer) for _, problem, answer in inside}
            low, high = share_interval(sum(right.values()), len(right))
            rows.append(
                (
                    float(edges[place]),
                    float(edges[place + 1]),
                    len(inside),
                    len(right),
                    sum(right.values()) / len(right),
                    low,
                    high,
                )
            )
    return pd.DataFrame(rows, columns=["from", "to", "steps", "solutions", "right", "low", "high"])


def nested_frame(result: Decode) -> pd.DataFrame:
    """Return the agreement of smaller adapters with the whole one: rank, share, agreement."""
    rows = [(one.rank, one.share, one.agreement) for one in result.nested]
    return pd.DataFrame(rows, columns=["rank", "share", "agreement"]).sort_values("rank")
