"""What decodes show: accuracy, tokens, FLOPs and seconds of each point, against the target alone, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dynlora.analysis.stats import paired_share_interval, percentile_interval, share_interval
from dynlora.engine.randomness import stream_seed
from dynlora.kinds.decode.work.points import plain
from dynlora.kinds.decode.work.solve import DRAFT, TARGET, Point
from dynlora.store.kinds import WITHIN

RESAMPLES = 2000
TOKENS = ("draft_kept", "draft_discarded", "target")
COSTS = ("flops", "flops_with_prefill", "seconds")
Solved = Mapping[str, Any]
"""The payload of a solved problem."""


def results(points: Sequence[Point], solved: Sequence[Solved]) -> dict[str, Any]:
    """Return the document of a decode: `points`, `draft_alone`, `target_alone`, `conclusion` and `next`.

    Args:
        points: all that were asked for.
        solved: payloads of all problems that were solved so far.
    """
    by = {point.key: [one for one in solved if one["point"] == point.key] for point in points}
    target = by.get(TARGET, [])
    rows = {
        point.key: row_of(point.key, point.accept, point.value, by[point.key], target)
        for point in points
        if by[point.key]
    }
    document = {
        "points": [rows[point.key] for point in points if point.value is not None and point.key in rows],
        "draft_alone": rows.get(DRAFT),
        "target_alone": rows.get(TARGET),
    }
    return {**document, "conclusion": conclusion(document), "next": advice(document)}


def row_of(
    key: str, accept: str, value: float | None, solved: Sequence[Solved], target: Sequence[Solved]
) -> dict[str, Any]:
    """Return what one point shows; tokens, FLOPs and seconds are sums over its problems, at least one."""
    right = [one["right"] for one in solved if one["right"] is not None]
    judged = [step for one in solved for step in one["steps"] if step["accepted"] is not None]
    result = {
        "key": key,
        "accept": accept,
        "threshold": plain(value),
        "problems": len(solved),
        "accuracy": sum(right) / len(right) if right else None,
        **({} if not right else dict(zip(("low", "high"), share_interval(sum(right), len(right)), strict=True))),
        "steps": sum(len(one["steps"]) for one in solved),
        "accepted": sum(step["accepted"] for step in judged) / len(judged) if judged else None,
        "tokens": {name: sum(one["tokens"][name] for one in solved) for name in TOKENS},
        "prefilled": {name: sum(one["prefilled"][name] for one in solved) for name in solved[0]["prefilled"]},
        **{name: sum(one[name] for one in solved) for name in COSTS},
        "cut_off": sum(one["ended"] != "end" for one in solved),
    }
    return {**result, "against_target": paired(solved, target)} if accept != TARGET else result


def paired(solved: Sequence[Solved], other: Sequence[Solved]) -> dict[str, Any] | None:
    """Return a point against another on the problems that both solved; None where there are none.

    `accuracy` is the difference, {difference, low, high}, with Agresti and Min's interval; each cost is the ratio of
    sums, {ratio, low, high}, whose interval is made of percentiles of 2,000 resamples of the problems. All are 95 %.
    """
    known = {one["problem"]: one for one in other}
    pairs = [(one, known[one["problem"]]) for one in solved if one["problem"] in known]
    if not pairs:
        return None
    draws = np.random.default_rng(stream_seed(0, "decode intervals")).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    result: dict[str, Any] = {"problems": len(pairs), "accuracy": None}
    if all(side["right"] is not None for pair in pairs for side in pair):
        gaps = np.array([float(one["right"]) - float(its["right"]) for one, its in pairs])
        low, high = paired_share_interval(int((gaps > 0).sum()), int((gaps < 0).sum()), len(pairs))
        result["accuracy"] = {"difference": float(gaps.mean()), "low": low, "high": high}
    for name in COSTS:
        mine, its = (np.array([pair[side][name] for pair in pairs], dtype=float) for side in (0, 1))
        if its.sum() <= 0:
            continue
        low, high = percentile_interval(mine[draws].sum(1) / its[draws].sum(1))
        result[name] = {"ratio": float(mine.sum() / its.sum()), "low": low, "high": high}
    return result


def _good(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the points of the reward that are as accurate as the target alone, the cheapest first."""
    known = [row for row in _of_reward(document) if (row.get("against_target") or {}).get("accuracy")]
    good = [row for row in known if row["against_target"]["accuracy"]["difference"] >= -WITHIN - 1e-9]
    return sorted(good, key=lambda row: row["against_target"]["flops"]["ratio"])


def _of_reward(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the points that ask the reward: the control, which keeps by chance, is never what is recommended."""
    return [row for row in document["points"] if row["accept"] != "constant"]


def conclusion(document: Mapping[str, Any]) -> str:
    """Say in a sentence or two what a decode shows."""
    target, draft = document["target_alone"], document["draft_alone"]
    if target is None:
        return "The target alone was not decoded, so nothing is compared; decode with ends."
    if target["accuracy"] is None:
        return f"{target['problems']:,} problems were decoded; the data has no answers, so no accuracy is reported."
    alone = f"the target alone is right on {target['accuracy']:.1%} of {target['problems']:,} problems"
    if draft is not None:
        alone += f", the draft alone on {draft['accuracy']:.1%}"
    if not (thresholds := _of_reward(document)):
        return f"No threshold was decoded: {alone}."
    if not (good := _good(document)):
        return f"No threshold is within 1 point of the target: {alone}."
    row = good[0]
    against = row["against_target"]
    gap, cost, whole = against["accuracy"], against["flops"], against["flops_with_prefill"]
    chosen = f"; one of {len(thresholds)} thresholds was chosen on these problems" if len(thresholds) > 1 else ""
    return (
        f"At {row['key']} the accuracy is {row['accuracy']:.1%} ({_points(gap['difference'])} points, 95 % CI "
        f"{_points(gap['low'])} to {_points(gap['high'])}) at {cost['ratio']:.2f} of the target's decode FLOPs "
        f"(95 % CI {cost['low']:.2f} to {cost['high']:.2f}), {whole['ratio']:.2f} with prefill; {alone}{chosen}."
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def advice(document: Mapping[str, Any]) -> str:
    """Say what to do next."""
    good = _good(document)
    if document["target_alone"] is None:
        return "Decode again with ends=True: the points are compared with the target alone."
    if document["target_alone"]["accuracy"] is None:
        return "Give data with a column of answers (data.answer)."
    if not _of_reward(document):
        return "Decode with a threshold too: the control is there to be compared with."
    if good and good[0]["against_target"]["flops"]["ratio"] < 1:
        return (
            f"Decode with {good[0]['key']}; compare with --accept constant at the same fraction of kept steps, to see "
            "whether the reward does better than chance."
        )
    return (
        "Train the draft for longer, or give it more blocks (model.layers); try --reward oracle to see whether a "
        "perfect judge would help."
    )


def rows_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a document: each role alone, then the points."""
    rows = [document.get("target_alone"), document.get("draft_alone"), *(document.get("points") or ())]
    return [row for row in rows if row]


def report_text(document: Mapping[str, Any]) -> str:
    """Return a decode for people: the conclusion, a table, what to do next."""
    rows = rows_of(document)
    lines = [
        document["conclusion"],
        "",
        f"{'point':18} {'accuracy':>8} {'kept':>6} {'FLOPs':>7} {'prefill':>8} "
        f"{'seconds':>8}  against the target alone (ratios)",
    ]
    for row in rows:
        against, alone = row.get("against_target") or {}, "1.00" if row["key"] == TARGET else "-"
        accuracy = "-" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
        accepted = "-" if row["accepted"] is None else f"{row['accepted']:.0%}"
        costs = [f"{against[name]['ratio']:.2f}" if name in against else alone for name in COSTS]
        lines.append(f"{row['key']:18} {accuracy:>8} {accepted:>6} {costs[0]:>7} {costs[1]:>8} {costs[2]:>8}")
    return "\n".join([*lines, "", document["next"]])
