"""What the moving picture says while it plays: what is drawn, who gives rank to whom, when rank moves next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dynlora.analysis.run_reading import RunReading, uniform_rank
from dynlora.analysis.run_summary import ACTIVE
from dynlora.store.meta import section
from dynlora.text import number, plural

MOST_MOVES = 3
"""Frames at which the picture stops to say which module gives rank and which one gets it."""


def speech(values: Mapping[str, Any], run: RunReading) -> dict[str, Any]:
    """Return what the player says, as plain values to add to those that it draws.

    They are `cues`, in the order of their frames: each has a frame, the rows that it points at, and a sentence for each
    row. A cue of a move points first at the module that lost most rank since the frame before, then at the one that won
    most, or after a cut has most. `due` says for each frame when rank moves next.

    Args:
        values: as `ModelReplay.element_values` returns them.
        run: the run that is drawn.
    """
    ranks, names = np.array(values["rank"]), [module["short"] for module in values["modules"]]
    if not ranks.size:
        return {"cues": [], "due": []}
    cues = [*_introduction(values, names, run.summary), *_moves(ranks, names)]
    if run.summary["status"] not in ACTIVE:
        cues.append(_end(ranks, names))
    cues.sort(key=lambda cue: cue["frame"])
    return {"cues": cues, "due": [due(run, step) for step in values["steps"]]}


def _cue(frame: int, *pointed: tuple[int, str]) -> dict[str, Any]:
    return {"frame": frame, "rows": [row for row, _ in pointed], "words": [words for _, words in pointed]}


def _introduction(values: Mapping[str, Any], names: Sequence[str], summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a cell and the budget are."""
    middle, budget = len(names) // 2, (summary.get("params") or {}).get("budget")
    cell = f"A cell is one module, here {names[middle]}. Its number is its rank: how much its update can learn."
    cues = [_cue(0, (middle, cell))]
    if isinstance(budget, int):
        total = plural(int(sum(values["rank"][0])), "rank")
        is_wide = sum(values["rank"][0]) > (uniform_rank(summary) or np.inf) * len(names)
        start = (
            f" Training starts above it, with {total}, and is cut to it."
            if is_wide
            else f", at the start {total}. It never grows."
        )
        shared = f"All cells share one budget: {number(budget)} parameters{'.' if is_wide else ''}{start}"
        cues.append(_cue(0, (0, shared)))
    return cues


def _moves(ranks: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the frames in which most rank moved or was cut: the module that lost most, and the one that won most.

    A move that was made before, of as much rank between the same two, is not told again.
    """
    changes = np.diff(ranks, axis=0)
    won, lost = (np.clip(sign * changes, 0, None).sum(axis=1) for sign in (1, -1))
    size = np.where(won > 0, np.minimum(won, lost), lost)
    largest = [int(frame) for frame in np.argsort(-size, kind="stable") if size[frame]]
    distinct: dict[tuple[str, ...], dict[str, Any]] = {}
    for frame in largest:
        move = (_move if won[frame] else _cut)(frame + 1, changes[frame], names, ranks[frame + 1])
        distinct.setdefault(tuple(move["words"]), move)
    return sorted(list(distinct.values())[:MOST_MOVES], key=lambda move: move["frame"])


def _cut(frame: int, change: np.ndarray, names: Sequence[str], ranks: np.ndarray) -> dict[str, Any]:
    """Return a cut, in which no module wins: the module that loses most, and the one that has most after it."""
    loser, keeper = int(change.argmin()), int(ranks.argmax())
    cut = f"A cut removes {plural(-int(change.sum()), 'rank')}, {-int(change[loser])} of them in {names[loser]}"
    return _cue(frame, (loser, cut), (keeper, f"{names[keeper]} has {plural(int(ranks[keeper]), 'rank')} now"))


def _move(frame: int, change: np.ndarray, names: Sequence[str], _ranks: np.ndarray) -> dict[str, Any]:
    giver, taker = int(change.argmin()), int(change.argmax())
    given, taken = plural(-int(change[giver]), "rank"), plural(int(change[taker]), "rank")
    return _cue(frame, (giver, f"{names[giver]} gives {given}"), (taker, f"{names[taker]} gets {taken}"))


def _end(ranks: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return where rank ended."""
    last = ranks[-1]
    most, least = int(last.argmax()), int(last.argmin())
    words = f"At the end {names[most]} has rank {last[most]} and {names[least]} rank {last[least]}, within the budget."
    return _cue(len(ranks) - 1, (most, words))


def due(run: RunReading, step: int) -> str:
    """Say after which step rank moves next; empty where the run plans no move, or does not say when.

    A run that trains moves at even distances, as many times as it planned: two moves give the distance.
    """
    done = [event for event in _event_steps(run) if event <= step]
    later = next((event for event in _event_steps(run) if event > step), None)
    planned, first = run.summary.get("planned_events"), run.summary.get("first_reallocation")
    if later is None and run.summary["status"] in ACTIVE and isinstance(planned, int) and len(done) < planned:
        apart = section(run.summary.get("config"), "strategy").get("allocate_every")
        apart = apart if isinstance(apart, int) else done[-1] - done[-2] if len(done) > 1 else None
        later = first if not done else None if apart is None else done[-1] + apart
    if later is not None:
        return f"next reallocation: step {later:,}"
    return "no reallocation left" if done and len(done) >= (planned or 0) else ""


def _event_steps(run: RunReading) -> list[int]:
    """Return the steps of all reallocations, those that moved nothing among them."""
    return sorted({int(step) for step in run.events["step"]})
