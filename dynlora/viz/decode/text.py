"""What a decode says, in sentences: the conclusion, and a caption for each picture."""

from __future__ import annotations

import pandas as pd

from dynlora.blocks import in_words
from dynlora.store.decodes import DRAFT, TARGET, Decode, Point, Solution
from dynlora.viz.decode import model
from dynlora.viz.kit.text import percent, plural, score, signed, source_name

WHAT = (
    "A cheap draft writes each step of a solution. A reward judges the step. Where the score is too low, the target "
    "writes the step again. This page shows where the draft was trusted, and what that saved."
)
ONLY_FIRST = (
    "The threshold decided while the texts were written. Another threshold changes the text from its first rejected "
    "step on, so each threshold is a decode of its own."
)


def about(found: Decode) -> str:
    """Return the line under the title: who plays the roles."""
    draft, target, reward = (found.roles.get(role, {}) for role in (DRAFT, TARGET, "reward"))
    layers = draft.get("layers")
    first = f" ({in_words(layers)})" if isinstance(layers, int | str) else ""
    judge = reward.get("name") or reward.get("kind") or "none"
    names = [source_name(role.get("name") or role.get("model") or "?") for role in (draft, target)]
    return f"Draft: {names[0]}{first} · target: {names[1]} · reward: {judge}"


def headline(found: Decode, point: Point | None) -> str:
    """Return the conclusion in a sentence."""
    if point is None:
        return "No problem has been solved yet." if not found.solutions else "No threshold was decoded yet."
    ratio = model.cost_ratio(found, point.key, TARGET)
    gap = model.difference(found, point.key, TARGET)
    if gap is None or ratio is None:
        return f"{model.label(point)}: {_accuracy(found, point.key)}; the target alone was not decoded beside it."
    cost = f"{percent(ratio, 0)} of the target's decode FLOPs"
    if gap.low > 0:
        return f"More right answers than the target alone, at {cost}."
    if gap.high < 0:
        return f"Fewer right answers than the target alone, at {cost}."
    return f"Accuracy not significantly different from the target alone, at {cost}."


def basis(found: Decode, point: Point | None) -> str:
    """Return what the conclusion rests on: accuracies with n, the paired interval, and the control."""
    if point is None:
        return WHAT
    said = [f"{model.label(point)}: {_accuracy(found, point.key)}"]
    gap = model.difference(found, point.key, TARGET)
    if gap is not None:
        said.append(
            f"target alone: {_accuracy(found, TARGET)} (difference {_points(gap.mean)} points, 95 % CI "
            f"{_points(gap.low)} to {_points(gap.high)}, {plural(gap.n, 'problem')})"
        )
    if model.alone(found, DRAFT) is not None:
        said.append(f"draft alone: {_accuracy(found, DRAFT)}")
    several = len(model.offered(found))
    chosen = f" Of {several} thresholds on the same problems, one was chosen to be shown." if several > 1 else ""
    sentence = "; ".join(said) + f".{chosen}"
    control = model.control_beside(found, point.key)
    gap = None if control is None else model.difference(found, point.key, control)
    if gap is None:
        return sentence
    return (
        f"{sentence} The reward is {_compared(gap)} accepting at random at nearly equal cost "
        f"({_points(gap.mean)} points, 95 % CI {_points(gap.low)} to {_points(gap.high)})."
    )


def _compared(gap: model.Difference) -> str:
    if gap.low <= 0 <= gap.high:
        return "not significantly different from"
    return "better than" if gap.low > 0 else "worse than"


def _points(share: float) -> str:
    return signed(100 * share, 1)


def _accuracy(found: Decode, key: str) -> str:
    solved = [one.right for one in model.solutions_of(found, key) if one.right is not None]
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


def rewards(frame: pd.DataFrame, point: Point) -> str:
    """Return the caption of the rewards over steps."""
    if frame.empty:
        return "No step was judged at this point."
    kept = int(frame["accepted"].sum())
    line = f" at {point.accept} {point.value:g}" if point.value is not None else ""
    return (
        f"{kept:,} of {len(frame):,} judged steps were accepted{line}. Median reward "
        f"{score(frame['reward'].median())}. Circles: accepted; crosses: rejected."
    )


def tokens(frame: pd.DataFrame) -> str:
    """Return the caption of the tokens by problem."""
    if frame.empty:
        return "No problem was solved at this point."
    kept, gone, target = (frame[name].sum() for name in ("draft kept", "draft discarded", "target"))
    whole = max(1, kept + gone + target)
    return (
        f"Of {whole:,} decoded tokens the draft wrote {percent(kept / whole, 0)} that were kept and "
        f"{percent(gone / whole, 0)} that were discarded; the target wrote {percent(target / whole, 0)}. Tokens that "
        f"were only read (prefill): {int(frame['prefill'].sum()):,}, in the table."
    )


def frontier(table: pd.DataFrame, cost: str) -> str:
    """Return the caption of accuracy against cost."""
    n = int(table["problems"].min()) if len(table) else 0
    prefill = {
        "flops": " Reading accepted text (prefill) is not counted here; choose FLOPs with prefill for the whole.",
        "flops_with_prefill": " Reading accepted text (prefill) is counted: with it the target's savings shrink.",
        "seconds": " Seconds of this machine, one problem at a time. What an earlier point computed counts as then.",
    }[cost]
    return f"Accuracy with 95 % CI against cost per problem, at least {plural(n, 'problem')} each.{prefill}"


def reliability(table: pd.DataFrame) -> str:
    """Return the caption of the reward's reliability."""
    if table.empty:
        return "No accepted step was judged at this point."
    first, last = table.iloc[0], table.iloc[-1]
    if len(table) < 2:
        return f"All {int(first['steps']):,} kept steps have rewards of one bin, so they cannot be compared."
    return (
        f"Fraction of right final answers by the reward of kept steps: {percent(first['right'], 0)} in the lowest bin "
        f"({int(first['solutions']):,} solutions), {percent(last['right'], 0)} in the highest "
        f"({int(last['solutions']):,}). A flat line means that the reward says nothing about the answer."
    )


def nested(frame: pd.DataFrame) -> str:
    """Return the caption of the agreement against rank."""
    kept = frame[frame["rank"] > 0]
    first = (kept if len(kept) else frame).iloc[0]
    return (
        f"At rank {int(first['rank'])} the adapter chooses the whole adapter's token in "
        f"{percent(first['agreement'])} of cases. This is a diagnosis: a smaller adapter on all layers makes no "
        "token cheaper."
    )
