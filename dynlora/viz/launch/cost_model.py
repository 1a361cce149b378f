"""What a check says of a run before it starts: figures, tables and sentences from `dynlora preflight --json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dynlora.text import kind_labels, listed, number, percent, plotly_text, plural, rough_duration
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

MARKS = 400
"""Most marks of a lane of the timeline; more could not be seen."""


Costs = Sequence[tuple[Mapping[str, Any], int]]
"""What the check says of each kind of run, and how many runs there are of it."""


def total_seconds(costs: Costs) -> float:
    """Return the seconds that all runs take, one after another."""
    return sum(60 * estimate["time"]["total_minutes"] * runs for estimate, runs in costs)


def methods_frame(labels: Sequence[str], costs: Costs) -> pd.DataFrame:
    """Return one row per method: its runs, the time of one and of all, what it trains, and when its rank moves."""
    rows = []
    for label, (estimate, runs) in zip(labels, costs, strict=True):
        events, seconds = estimate["schedule"]["events"], 60 * estimate["time"]["total_minutes"]
        rows.append(
            {
                "method": label,
                "runs": runs,
                "time per run": rough_duration(max(1.0, seconds)),
                "time in total": rough_duration(max(1.0, runs * seconds)),
                "trainable parameters": f"{_trained(estimate):,}",
                "memory (MiB)": number(estimate["memory_mib"]["total"]),
                "reallocations": f"{len(events)}, steps {events[0]:,} to {events[-1]:,}" if events else "none",
            }
        )
    return pd.DataFrame(rows)


def _trained(estimate: Mapping[str, Any]) -> int:
    params = estimate["params"]
    return params["active"] + params["gate"] + params["head"]


def figures(costs: Costs) -> dict[str, str]:
    """Return the numbers that matter first, by their label: the time of all runs, the rest of the first kind."""
    estimate, runs = costs[0][0], sum(runs for _, runs in costs)
    params, tokens = estimate["params"], estimate["tokens"]["train"]
    trained = _trained(estimate)
    time_label = "Estimated time" if runs == 1 else f"Estimated time, {runs} runs"
    return {
        "Trainable parameters": f"{trained:,}",
        "Fraction of the model": percent(trained / (trained + params["frozen"]), 2),
        **_generation_figure(estimate),
        "Memory (MiB)": number(estimate["memory_mib"]["total"]),
        time_label: rough_duration(max(1.0, total_seconds(costs))),
        "Mean tokens per example": number(tokens["mean"]),
        "Truncated examples": percent(tokens["cut_share"]),
    }


def _generation_figure(estimate: Mapping[str, Any]) -> dict[str, str]:
    """Return how much of the time goes into generated texts, where some are."""
    cost = estimate["time"].get("generation")
    return {"Generation, of the time": percent(cost["share"])} if cost else {}


def kinds_frame(estimate: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per kind of module: kind, modules, d_in, d_out, active and room, adapter parameters.

    `room` is what the buffers could hold beyond the active ones: a module may grow into it.
    """
    rows = estimate["kinds"]
    words = kind_labels(row["kind"] for row in rows)
    return pd.DataFrame(
        [
            {
                "kind": words[row["kind"]],
                "modules": row["modules"],
                "d_in": row["d_in"],
                "d_out": row["d_out"],
                "active": row["active"],
                "room": max(0, row["allocated"] - row["active"]),
            }
            for row in rows
        ],
        columns=["kind", "modules", "d_in", "d_out", "active", "room"],
    )


def kinds_caption(estimate: Mapping[str, Any]) -> str:
    """Say how the parameters compare with the budget, and what else is trained."""
    params = estimate["params"]
    used = params["active"] + params["gate"]
    gates = f", {params['gate']:,} of them input gates," if params["gate"] else ""
    room = params["allocated"] - params["active"]
    grow = f" Buffers have space for {room:,} more, so that modules can grow while others shrink." if room > 0 else ""
    return (
        f"{used:,} of the budget of {params['budget']:,} adapter parameters{gates} in "
        f"{plural(estimate['modules'], 'module')}; the head has {params['head']:,}, and {params['frozen']:,} "
        f"are frozen.{grow}"
    )


def timeline(estimate: Mapping[str, Any]) -> pd.DataFrame:
    """Return what happens when: lane, start and end in steps; a mark has the same start and end.

    Lanes are those of `LANES` that have something in them; a crowded lane keeps `MARKS` evenly chosen marks.
    """
    schedule = estimate["schedule"]
    steps, events = schedule["steps"], schedule["events"]
    rows = [("Learning rate rises", 0, schedule["warmup_steps"])] if schedule["warmup_steps"] else []
    rows += [
        ("Learning rate " + ("stays" if schedule["shape"] == "constant" else "falls"), schedule["warmup_steps"], steps)
    ]
    if events and steps > events[-1]:
        rows.append(("Ranks fixed", events[-1], steps))
    rows += [("Rank reallocation", step, step) for step in _thinned(events)]
    rows += [("Evaluation", step, step) for step in _thinned(schedule["evaluations"])]
    every = schedule["checkpoint_every"]
    rows += [("Checkpoint", step, step) for step in _thinned(sorted({*range(every, steps + 1, every), steps}))]
    return pd.DataFrame(rows, columns=["what", "start", "end"])


def _thinned(steps: Sequence[int]) -> list[int]:
    if len(steps) <= MARKS:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (MARKS - 1))] for i in range(MARKS)]


def schedule_caption(estimate: Mapping[str, Any]) -> str:
    """Say in words when what happens."""
    schedule = estimate["schedule"]
    steps, events = schedule["steps"], schedule["events"]
    moves = "no reallocation: every module keeps its rank"
    if events:
        span = f"after step {events[0]:,}" if len(events) == 1 else f"between steps {events[0]:,} and {events[-1]:,}"
        moves = f"{plural(len(events), 'possible reallocation')} {span}"
        moves += f", then fixed ranks for the last {plural(steps - events[-1], 'step')}" if steps > events[-1] else ""
    return (
        f"{plural(steps, 'step')}, {number(schedule['epochs'])} epochs; {moves}; "
        f"{plural(len(schedule['evaluations']), 'evaluation')}."
    )


def cost_caption(estimate: Mapping[str, Any], training: int = 0) -> str:
    """Say where memory and time come from.

    Args:
        estimate: what the check says.
        training: runs that were training beside the check, which slows its steps.
    """
    memory, cost = estimate["memory_mib"], estimate["time"]
    beside = " Another run is training at the same time, so the real run will be faster." if training else ""
    interim = cost.get("interim_evaluation_s", cost["evaluation_s"])
    last = "" if interim == cost["evaluation_s"] else f" ({number(cost['evaluation_s'])} s for the last)"
    return (
        f"Memory: weights {number(memory['weights'])}, gradients and moments "
        f"{number(memory['gradients_and_moments'])}, one batch {number(memory['activations'])} MiB; "
        f"Python and its libraries are not included. Time: "
        f"{number(cost['step_s'])} s per step (from one step), {number(interim)} s per evaluation{last}, "
        f"{estimate['precision']} on {estimate['device']}.{beside}"
    )


def data_caption(estimate: Mapping[str, Any]) -> str:
    """Say how much data there is, what is predicted, or learned to write, and by what number it is judged."""
    train, held_out = estimate["tokens"]["train"], estimate["tokens"]["held_out"]
    classes = f"the classes {listed(list(map(str, estimate['labels'])), 6)}" if estimate["labels"] else "a number"
    learns = "learns to write" if estimate.get("writes") else f"predicts {classes}"
    cut = f"{percent(train['cut_share'])} are truncated" if train["cut_share"] else "none is truncated"
    return (
        f"{train['rows']:,} training examples and {held_out['rows']:,} held-out examples. The model {learns}; "
        f"the metric is {estimate['metric']}. An example has {number(train['mean'])} tokens on average and at most "
        f"{train['max']:,}; {cut} after {plural(train['limit'], 'token')}."
    )


def generation_caption(estimate: Mapping[str, Any]) -> str:
    """Say what the texts cost that are generated at evaluations; empty for a task that writes nothing."""
    cost = estimate["time"].get("generation")
    if not cost:
        return ""
    between = cost["evaluations"] - 1
    earlier = f", and {cost['interim_prompts']:,} at {plural(between, 'evaluation')} before it," if between else ""
    return (
        f"Generation: {plural(cost['prompts'], 'prompt')} at the last evaluation{earlier} with at most "
        f"{plural(cost['new_tokens'], 'token')} each take at most {rough_duration(max(1.0, cost['total_s']))} "
        f"({number(cost['tokens_per_s'])} tokens per second on this machine): {percent(cost['share'])} of "
        "the estimated time. Lower log.generate_rows or log.generate_max to shorten it."
    )


def preview_frame(estimate: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of the preview for reading; `tokens` are exactly those that the model sees."""
    rows = estimate.get("preview", [])
    pairs, groups = any(row["text_pair"] for row in rows), any(row["group"] for row in rows)
    return pd.DataFrame(
        [
            {
                "example": row["row"],
                **({} if row["label"] is None else {"label": str(row["label"])}),
                **({"input group": str(row["group"])} if groups else {}),
                "text": row["text"],
                **({"second text": row["text_pair"]} if pairs else {}),
                "tokens": len(row["tokens"]),
                "truncated": "yes" if row["cut"] else "no",
                "model input": " ".join(map(str, row["tokens"])),
            }
            for row in rows
        ]
    )


LANES = ("Learning rate", "Rank", "Evaluation", "Checkpoint")
"""Lanes of the timeline, from top to bottom; what happens belongs to the lane its words begin with."""

_HOVER = "%{customdata}<extra></extra>"


def kinds_bars(kinds: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the adapter parameters of each kind of module, and the room to grow behind them.

    Args:
        kinds: rows kind, modules, d_in, d_out, active, room, as `costs.kinds_frame` returns.
        colours: of the mode.
    """
    figure = theme.figure(colours, max(150, 66 + 26 * len(kinds)))
    names = [plotly_text(name) for name in kinds["kind"]]
    words = [
        f"{name}: {row.modules} modules of {row.d_in:,} to {row.d_out:,}<br>{row.active:,} active, space for "
        f"{row.room:,} more"
        for name, row in zip(names, kinds.itertuples(), strict=True)
    ]
    for column, label, colour in (
        ("active", "Active", colours.accent),
        ("room", "Space to grow", theme.faded(colours.accent, 0.18)),
    ):
        if bool(kinds[column].sum()):
            figure.add_bar(
                x=kinds[column],
                y=names,
                orientation="h",
                name=label,
                marker={"color": colour, "line": {"width": 0}},
                customdata=words,
                hovertemplate=_HOVER,
            )
    figure.update_layout(
        barmode="stack",
        bargap=0.35,
        showlegend=len(list(figure.select_traces())) > 1,
        margin={"t": 30},
        legend_traceorder="normal",
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True)
    figure.update_xaxes(title_text="Adapter parameters", rangemode="tozero")
    return figure


def schedule_lanes(timeline: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw when things happen: spans as bars, single steps as ticks, a lane for each kind.

    Args:
        timeline: rows what, start, end, in steps, as `costs.timeline` returns.
        colours: of the mode.
    """
    lanes = [lane for lane in LANES if timeline["what"].str.startswith(lane).any()]
    figure = theme.figure(colours, 66 + 34 * len(lanes))
    fills = {
        "Learning rate rises": theme.faded(colours.second, 0.75),
        "Ranks fixed": theme.faded(colours.accent, 0.18),
    }
    ticks = {"Rank reallocation": colours.accent, "Evaluation": colours.text, "Checkpoint": colours.muted}
    for what, rows in timeline.groupby("what", sort=False):
        lane = next(lane for lane in lanes if str(what).startswith(lane))
        if what in ticks:
            figure.add_scatter(
                x=rows["start"],
                y=[lane] * len(rows),
                mode="markers",
                name=str(what),
                hovertemplate=_HOVER,
                customdata=[f"{what}, step {step:,}" for step in rows["start"]],
                marker={"symbol": "line-ns", "size": 16, "line": {"width": 2, "color": ticks[str(what)]}},
            )
        else:
            figure.add_bar(
                x=rows["end"] - rows["start"],
                base=rows["start"],
                y=[lane] * len(rows),
                orientation="h",
                width=0.42,
                name=str(what),
                marker={"color": fills.get(str(what), theme.faded(colours.second, 0.28))},
                customdata=[f"{what}, steps {row.start:,} to {row.end:,}" for row in rows.itertuples()],
                hovertemplate=_HOVER,
            )
    figure.update_layout(barmode="overlay", hovermode="closest")
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=lanes[::-1],
        range=[-0.6, len(lanes) - 0.4],
        showgrid=False,
        automargin=True,
    )
    figure.update_xaxes(title_text="Step", range=[-0.015 * max(timeline["end"]), 1.015 * max(timeline["end"])])
    return figure
