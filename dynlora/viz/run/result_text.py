"""Captions of the Run page's results, computed from what the charts show; whoever shows one escapes it."""

from __future__ import annotations

import pandas as pd

from dynlora.viz.kit.frames import at_highest, at_lowest
from dynlora.viz.kit.text import one_line, percent, plural, score, sentence_case

SCORES = "Precision: correct among predicted. Recall: correct among true. F1: their harmonic mean."


def class_scores(scores: pd.DataFrame) -> str:
    """Say which class is found best and worst by F1; one without examples is no result."""
    known = scores[scores["examples"] > 0]
    if known.empty:
        return "No class has an example, so there are no scores."
    best, worst = known.loc[at_highest(known["F1"])], known.loc[at_lowest(known["F1"])]
    if len(known) < 2:
        return f"One class has examples: {one_line(best['class'], 40)}, F1 {score(best['F1'])}."
    if score(best["F1"]) == score(worst["F1"]):
        return f"F1 is {score(best['F1'])} for all {len(known)} classes. {SCORES}"
    high, low = (
        f"{one_line(row['class'], 40)} ({score(row['F1'])}, {plural(int(row['examples']), 'example')})"
        for row in (best, worst)
    )
    return f"F1 is highest for {high} and lowest for {low}. {SCORES}"


def group_scores(groups: pd.DataFrame, metric: str) -> str:
    """Say how far apart the groups are."""
    known = groups.dropna(subset=["metric"])
    if known.empty:
        return "No group has been evaluated yet."
    best, worst = known.loc[at_highest(known["metric"])], known.loc[at_lowest(known["metric"])]
    if score(best["metric"]) == score(worst["metric"]):
        groups_of = "the one group" if len(known) == 1 else f"all {len(known)} groups"
        return f"{one_line(sentence_case(metric), 40)} is {score(best['metric'])} for {groups_of}."
    return (
        f"{one_line(sentence_case(metric), 40)} is highest for {one_line(best['group'], 40)} "
        f"({score(best['metric'])}) and lowest for "
        f"{one_line(worst['group'], 40)} ({score(worst['metric'])}); difference {best['metric'] - worst['metric']:.3f}."
    )


def before_after(ends: pd.DataFrame, before: str, after: str) -> str:
    """Say on how many probe examples the loss fell, and its means."""
    fell = int((ends["change"] < 0).sum())
    return (
        f"The loss is lower {after} than {before} on {fell} of {len(ends)} probe examples; the mean changed from "
        f"{ends['first_loss'].mean():.3f} to {ends['last_loss'].mean():.3f}."
    )


def answers(counts: pd.DataFrame, before: str, after: str) -> str:
    """Say the accuracy of both sides and how many answers changed, and which way; counts in the order of `ANSWERS`."""
    kept, won, lost, _ = (int(count) for count in counts["count"])
    total = int(counts["count"].sum())
    if not total:
        return "This run has no probe set."
    return (
        f"{before} {percent((kept + lost) / total)} of {total} probe predictions are correct, {after} "
        f"{percent((kept + won) / total)}: {won} predictions became correct, {lost} became wrong."
    )
