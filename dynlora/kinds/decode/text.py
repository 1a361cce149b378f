"""What a decode says, in sentences: the conclusion, and what became of a problem."""

from __future__ import annotations

from dynlora.analysis.stats import side_of_0
from dynlora.blocks import in_words
from dynlora.kinds.decode import frames
from dynlora.kinds.decode.result import DRAFT, TARGET, Decode, Point, Solution
from dynlora.text import percent, plural, signed, source_name
from dynlora.viz.kit.panel import Choice, RunView

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
    ratio = frames.cost_ratio(result, point.key, TARGET)
    gap = frames.difference(result, point.key, TARGET)
    if gap is None or ratio is None:
        return f"{frames.label(point)}: {_accuracy(result, point.key)}; the target alone was not decoded beside it."
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
    sentences = [f"{frames.label(point)}: {_accuracy(result, point.key)}"]
    gap = frames.difference(result, point.key, TARGET)
    if gap is not None:
        sentences.append(
            f"Target alone: {_accuracy(result, TARGET)} (difference {_points(gap.mean)} points, 95 % CI "
            f"{_points(gap.low)} to {_points(gap.high)}, {plural(gap.n, 'problem')})"
        )
    if frames.alone(result, DRAFT) is not None:
        sentences.append(f"Draft alone: {_accuracy(result, DRAFT)}")
    several = len(frames.offered(result))
    chosen = f" Of {several} thresholds on the same problems, one was chosen to be shown." if several > 1 else ""
    sentence = ". ".join(sentences) + f".{chosen}"
    control = frames.control_beside(result, point.key)
    gap = None if control is None else frames.difference(result, point.key, control)
    if gap is None:
        return sentence
    return (
        f"{sentence} The reward is {_compared(gap)} accepting at random at nearly equal cost "
        f"({_points(gap.mean)} points, 95 % CI {_points(gap.low)} to {_points(gap.high)})."
    )


def _compared(gap: frames.Difference) -> str:
    words = {"above": "better than", "below": "worse than", "unclear": "not significantly different from"}
    return words.get(side_of_0(gap.low, gap.high, gap.n), "measured on too few problems to compare with")


def _points(share: float) -> str:
    return signed(100 * share, 1)


def _accuracy(result: Decode, key: str) -> str:
    solved = [one.right for one in frames.solutions_of(result, key) if one.right is not None]
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
    usual = frames.opening(result) or next(iter(points.values()))
    words = {key: frames.label(point) for key, point in points.items()}
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
