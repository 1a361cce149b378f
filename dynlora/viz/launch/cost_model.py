"""What a check says of a run before it starts: figures, tables and sentences from `dynlora preflight --json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dynlora.viz.kit.text import duration, kind_labels, listed, number, percent, plural

MARKS = 400
"""Most marks of a lane of the timeline; more could not be told apart."""


def figures(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the numbers that matter first, by their label."""
    params, tokens = found["params"], found["tokens"]["train"]
    trained = params["active"] + params["gate"] + params["head"]
    return {
        "parameters trained": f"{trained:,}",
        "of the whole model": percent(trained / (trained + params["frozen"]), 2),
        "memory, MiB": number(found["memory_mib"]["total"]),
        "time, about": duration(max(1.0, 60 * found["time"]["total_minutes"])),
        "tokens a row, mean": number(tokens["mean"]),
        "rows cut": percent(tokens["cut_share"]),
    }


def kinds_frame(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per kind of module: kind, modules, d_in, d_out, active and room, adapter parameters.

    `room` is what the buffers could hold beyond the active ones: a module may grow into it.
    """
    rows = found["kinds"]
    words = kind_labels(row["kind"] for row in rows)
    return pd.DataFrame(
        [
            {
                "kind": words[row["kind"]], "modules": row["modules"], "d_in": row["d_in"], "d_out": row["d_out"],
                "active": row["active"], "room": max(0, row["allocated"] - row["active"]),
            }
            for row in rows
        ],
        columns=["kind", "modules", "d_in", "d_out", "active", "room"],
    )  # fmt: skip


def kinds_sentence(found: Mapping[str, Any]) -> str:
    """Say how the parameters stand to the budget, and what else is trained."""
    params = found["params"]
    used = params["active"] + params["gate"]
    gates = f", {params['gate']:,} of them input gates," if params["gate"] else ""
    room = params["allocated"] - params["active"]
    grow = f" Buffers leave room for {room:,} more, so that modules can grow while others shrink." if room > 0 else ""
    return (
        f"{used:,} of a budget of {params['budget']:,} adapter parameters{gates} in "
        f"{plural(found['modules'], 'module')}; the head has {params['head']:,}, and {params['frozen']:,} "
        f"stay frozen.{grow}"
    )


def timeline(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return what happens when: lane, start and end in steps; a mark has the same start and end.

    Lanes are those of `LANES` that have something in them; a crowded lane keeps `MARKS` evenly chosen marks.
    """
    schedule = found["schedule"]
    steps, events = schedule["steps"], schedule["events"]
    rows = [("rate rises", 0, schedule["warmup_steps"])] if schedule["warmup_steps"] else []
    rows += [("rate " + ("stays" if schedule["shape"] == "constant" else "falls"), schedule["warmup_steps"], steps)]
    if events and steps > events[-1]:
        rows.append(("capacity settled", events[-1], steps))
    rows += [("capacity moves", step, step) for step in _thinned(events)]
    rows += [("evaluation", step, step) for step in _thinned(schedule["evaluations"])]
    every = schedule["checkpoint_every"]
    rows += [("checkpoint", step, step) for step in _thinned(sorted({*range(every, steps + 1, every), steps}))]
    return pd.DataFrame(rows, columns=["what", "start", "end"])


def _thinned(steps: Sequence[int]) -> list[int]:
    if len(steps) <= MARKS:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (MARKS - 1))] for i in range(MARKS)]


def schedule_sentence(found: Mapping[str, Any]) -> str:
    """Say in words when what happens."""
    schedule = found["schedule"]
    steps, events = schedule["steps"], schedule["events"]
    moves = "capacity never moves: every module keeps its rank"
    if events:
        span = f"after step {events[0]:,}" if len(events) == 1 else f"between steps {events[0]:,} and {events[-1]:,}"
        moves = f"capacity may move {plural(len(events), 'time')} {span}"
        moves += f" and is settled for the last {steps - events[-1]:,}" if steps > events[-1] else ""
    return (
        f"{plural(steps, 'step')}, {number(schedule['epochs'])} passes over the training rows; {moves}; "
        f"{plural(len(schedule['evaluations']), 'evaluation')}."
    )


def cost_sentence(found: Mapping[str, Any], training: int = 0) -> str:
    """Say where memory and time come from.

    Args:
        found: what the check says.
        training: runs that were training beside the check, which slows its steps.
    """
    memory, cost = found["memory_mib"], found["time"]
    beside = " A run trains beside the check, so alone it will be faster." if training else ""
    return (
        f"Memory: weights {number(memory['weights'])}, gradients and moments "
        f"{number(memory['gradients_and_moments'])}, one batch {number(memory['activations'])} MiB; "
        f"Python and its libraries come on top. Time: "
        f"{number(cost['step_s'])} s a step from two probe steps, {number(cost['evaluation_s'])} s an evaluation, "
        f"{found['precision']} on {found['device']}.{beside}"
    )


def data_sentence(found: Mapping[str, Any]) -> str:
    """Say how much data there is, what is predicted and by what number it is judged."""
    train, held_out = found["tokens"]["train"], found["tokens"]["held_out"]
    classes = f"the classes {listed(list(map(str, found['labels'])), 6)}" if found["labels"] else "a number"
    limit = f"after {plural(train['limit'], 'token')}"
    cut = f"{percent(train['cut_share'])} of the rows are cut {limit}" if train["cut_share"] else f"none is cut {limit}"
    return (
        f"{train['rows']:,} rows to train on, {held_out['rows']:,} held out; the model learns to tell {classes}, "
        f"judged by {found['metric']}. A row has {number(train['mean'])} tokens on average and {train['max']:,} at "
        f"most; {cut}."
    )


def preview_frame(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of the preview for reading; `tokens` are exactly those that the model sees."""
    rows = found.get("preview", [])
    pairs, groups = any(row["text_pair"] for row in rows), any(row["group"] for row in rows)
    return pd.DataFrame(
        [
            {
                "row": row["row"],
                "label": str(row["label"]),
                **({"input group": str(row["group"])} if groups else {}),
                "text": row["text"],
                **({"second text": row["text_pair"]} if pairs else {}),
                "tokens": len(row["tokens"]),
                "cut": "yes" if row["cut"] else "no",
                "what the model sees": " ".join(map(str, row["tokens"])),
            }
            for row in rows
        ]
    )
