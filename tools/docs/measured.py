"""The tables of the documentation whose figures are not those of one cell of the quality benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.allocators import HEAD_RATE, RATE, parts_of, tuned_as

ROOT = Path(__file__).resolve().parents[2]

CELLS = (
    ("SST-2, rank 4", "sst2", 4, "dynamic", "random"),
    ("`sentiment4`, rank 4", "sentiment4", 4, "dynamic", "random"),
    ("MRPC, rank 4", "mrpc", 4, "dynamic", "random"),
    ("SmolLM2-135M, rank 4, learning rate 0.002", "sentiment4-few", 4, "dynamic", "random"),
    ("SST-2, rank 1, `min_rank=0`", "sst2", 1, "dynamic-no-floor", "random-no-floor"),
)
"""Label, task, rank, method and random control of each row of Results."""


@cache
def figures(name: str) -> dict[str, Any]:
    """Return the figures of one benchmark."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))["figures"]


def cell(task: str, rank: int) -> dict[str, Any]:
    """Return the longest runs of a task and rank."""
    cells = [one for one in figures("quality")["cells"] if (one["task"], one["rank"]) == (task, rank)]
    return max(cells, key=lambda one: one["steps"])


def row(*cells: str) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def head(*names: str) -> list[str]:
    """Return the first two lines of a Markdown table."""
    return [row(*names), "|---" * len(names) + "|"]


def signed(value: float) -> str:
    """Return a difference with a true minus; no sign where it is positive."""
    return f"{value:.4f}".replace("-", "−")


def results() -> Iterator[str]:
    """Yield the table of Results: `dynamic` against the random control and against PEFT LoRA."""
    yield from head("`dynamic` minus", "random reallocation", "PEFT LoRA")
    for label, task, rank, method, control in CELLS:
        differences = {(one["method"], one["against"]): one for one in cell(task, rank)["differences"]}
        yield row(label, *(_difference(differences[method, other]) for other in (control, "peft-lora")))


FAST_HEADS = {
    "tuned-clinc150-r1-head-8": ("CLINC150, rank 1", "fast head"),
    "tuned-clinc150-r1-1500": ("CLINC150, rank 1, 1,500 steps", "fast head"),
    "tuned-clinc150-r4-head-0.04": ("CLINC150, rank 4", "head at 0.04"),
    "tuned-clinc150-r4-head": ("CLINC150, rank 4", "fast head"),
}
"""Files of `benchmarks.tuned` whose heads have a rate of their own: the task, and how the names of its sides end."""

FAST = {"fast head": "the head at 0.0175"}
"""What the sides are called whose names do not say it."""


def fast_heads() -> Iterator[str]:
    """Yield the rows of Results whose heads have a rate of their own."""
    for name, (label, ending) in FAST_HEADS.items():
        file = figures(name)
        lora, scale, moving, dynamic, gates = (
            f"{side}, {ending}" for side in ("lora", "lora, scale", "dynamic", "dynamic, scale", "dynamic, gates")
        )
        sides = file["methods"]
        parts = [(scale, lora), (dynamic, scale) if scale in sides else (moving, lora)]
        reaction = sides.get(gates, {}).get("reaction")
        yield row(
            f"{label}, {FAST.get(ending, f'the {ending}')}, {len(file['seeds'])} seeds",
            *(f"{sides[side]['loss']:.3f}" for side in (lora, dynamic)),
            _bold(*sides[dynamic][f"loss - {lora}"]),
            *(_bold(*sides[side][f"loss - {other}"]) if side in sides else "not measured" for side, other in parts),
            "" if reaction is None else f"{-reaction[0]:.3f}, with `gates=module` at the rate of A".replace("-", "−"),
        )


REAL = {
    "tuned-clinc150-r1-wide": ("CLINC150", "head at 0.04"),
    "tuned-hwu64-r1-wide": ("HWU64", "fast head"),
    "tuned-sst2-r1-wide": ("SST-2", "head at 0.01"),
    "tuned-cola-r1-wide": ("CoLA", "head at 0.01"),
}
"""Files of `benchmarks.tuned` with the allocation of today: the task, and how the names of its sides end."""


def real() -> Iterator[str]:
    """Yield the table of real tasks at rank 1, their heads at rates of their own, with the allocation of today."""
    yield from head("task, rank 1", "uniform LoRA", "`dynamic`", "difference", "minus the same, cut at random")
    for name, (label, ending) in REAL.items():
        file = figures(name)
        lora, dynamic, cuts = (f"{side}, {ending}" for side in ("lora", "dynamic, wide", "dynamic, wide, random"))
        sides = file["methods"]
        yield row(
            f"{label}, {FAST.get(ending, f'the {ending}')}, {len(file['seeds'])} seeds",
            *(f"{sides[side]['loss']:.3f}" for side in (lora, dynamic)),
            _bold(*sides[dynamic][f"loss - {lora}"]),
            _bold(*sides[dynamic][f"loss - {cuts}"]) if cuts in sides else "not measured",
        )


def parts() -> Iterator[str]:
    """Yield the table of the allocation of before December 2026, and what of its difference to LoRA is which part."""
    yield from head(
        "task", "uniform LoRA", "`dynamic`", "difference", "of it a scale", "of it moving rank", "of it reacting"
    )
    yield from fast_heads()
    alpha, scale = (figures(f"tuned-clinc150-r1-{name}")["methods"] for name in ("alpha", "scale"))
    moving = _bold(*alpha["dynamic, scaling 0.5"]["loss - lora, scaling 0.5"])
    yield row(
        "CLINC150, rank 1, one rate for all, `alpha / r` = 0.5, 3 seeds",
        *(f"{alpha[side]['loss']:.3f}" for side in ("lora, scaling 0.5", "dynamic, scaling 0.5")),
        *(moving, "no scale", moving, ""),
    )
    yield row(
        "CLINC150, rank 1, one rate for all, `alpha / r` = 2, 8 seeds",
        f"{scale['lora']['loss']:.3f}",
        f"{scale['dynamic, scale']['loss']:.3f}",
        *(_bold(*scale[side][f"loss - {other}"]) for side, other in PARTS),
        f"−{scale['dynamic, gates']['reaction'][0]:.3f}, with `gates=module` at the rate of A",
    )
    for label, task, rank, method, _ in CELLS:
        runs = cell(task, rank)
        by_seed = {one["method"]: dict(zip(one["seeds"], one["loss_by_seed"], strict=True)) for one in runs["methods"]}
        common = by_seed["lora"].keys() & by_seed[method].keys()
        losses = [sum(by_seed[side][seed] for seed in common) / len(common) for side in ("lora", method)]
        (minus,) = [one["loss"] for one in runs["differences"] if (one["method"], one["against"]) == (method, "lora")]
        difference = _bold(minus["mean"], minus["wide_low"], minus["wide_high"], 4)
        label = f"{label}, {minus['seeds']} seeds"
        yield row(label, *(f"{loss:.4f}" for loss in losses), difference, *["not measured"] * 2, "")


PARTS = (("dynamic, scale", "lora"), ("lora, scale", "lora"), ("dynamic, scale", "lora, scale"))
"""Sides whose differences are the whole gain on CLINC150, that of the scale, and that of moving rank."""


SIDES = {
    "lora": "uniform LoRA",
    "lora, at 0.004": "uniform LoRA at a lower rate",
    "lora, scaling 1": "uniform LoRA, `alpha / r` = 1",
    "lora, scaling 0.5": "uniform LoRA, `alpha / r` = 0.5",
    "lora, scaling 0.25": "uniform LoRA, `alpha / r` = 0.25",
    "lora, scale": "uniform LoRA with a learned scale",
    "lora, plus": "LoRA+, B at 16 times the rate of A",
    "random ranks": "random ranks, drawn once",
    "random ranks, scale": "random ranks with a learned scale",
    "dynamic": "`dynamic`, `gates=off`",
    "dynamic, scaling 1": "`dynamic`, `gates=off`, `alpha / r` = 1",
    "dynamic, scaling 0.5": "`dynamic`, `gates=off`, `alpha / r` = 0.5",
    "dynamic, scale": "`dynamic`, `gates=scale`",
    "dynamic, scale at 10": "`dynamic`, a scale at 10 times the rate",
    "dynamic, gates": "`dynamic`, `gates=module` at the rate of A",
    "dynamic, gates at 10": "`dynamic`, `gates=module` at 10 times the rate",
    "dynamic, token at 10": "`dynamic`, `gates=token` at 10 times the rate",
    "gates only": "gates without moving rank",
    "dynamic, random, first only": "one reallocation at random",
    "lora, scale at 0": "a scale that stays at 1",
    "lora, scale at 0.1": "a scale at 0.1 times the rate",
    "lora, scale at 10": "a scale at 10 times the rate",
    "lora, learned scale frozen": "what it learned, from the start and frozen",
    "lora, shuffled scale frozen": "the same, dealt out to other modules",
    "lora, mean scale frozen": "its mean everywhere, frozen",
}
"""Sides of a comparison in which each has its own learning rate, in the order of its rows."""


def side_label(side: str) -> str:
    """Return what a side is called, with the rate of its head where that is another than the adapters'."""
    rate = parts_of(side)[1].get(HEAD_RATE)
    return SIDES[_without_head(side)] + ("" if rate is None else f", the head at {rate:g}")


def _without_head(side: str) -> str:
    return ", ".join(part for part in side.split(", ") if "head" not in part)


def _place(side: str) -> tuple[int, float]:
    return list(SIDES).index(_without_head(side)), parts_of(side)[1].get(HEAD_RATE) or 0.0


def tuned(name: str, *others: str) -> Iterator[str]:
    """Yield a comparison of `benchmarks.tuned`: each side's rate, loss and accuracy, and its loss minus that of others.

    Args:
        name: of the file of results.
        others: names of sides, a hyphen for each comma and space.
    """
    comparison = figures(name)
    sides = sorted(comparison["methods"], key=_place)
    against = [side for side in sides if side.replace(", ", "-").replace(" ", "-") in others]
    names = [f"minus {side_label(side)}" for side in against]
    first = f"{len(comparison['seeds'])} seeds, {comparison['steps']} steps"
    yield from head(first, "rate", "loss", "accuracy", *names)
    for side in sides:
        one = comparison["methods"][side]
        if "loss" not in one:
            yield row(side_label(side), "", "diverged", *[""] * (len(against) + 1))
            continue
        cells = ["" if side == other else _bold(*one[f"loss - {other}"]) for other in against]
        rate = _rate_of(comparison["chosen"], side)
        yield row(
            side_label(side),
            "" if rate is None else f"{rate:g}",
            f"{one['loss']:.3f}",
            f"{100 * one['right']:.1f} %",
            *cells,
        )


def _rate_of(chosen: Mapping[str, float], side: str) -> float | None:
    """Return the rate at which a side of a comparison trained: given with it, its own, or that of another side."""
    if (rate := parts_of(side)[1].get(RATE)) is not None:
        return rate
    return chosen.get(tuned_as(side))


DATA = {
    "clinc150": "CLINC150",
    "hwu64": "HWU64",
    "sst2": "SST-2",
    "cola": "CoLA",
    "mrpc": "MRPC",
    "sentiment4": "`sentiment4`",
    "sentiment4-text": "`sentiment4-text`",
    "arithmetic": "`arithmetic`",
}
"""Data sets, and what they are called."""


HEAD_RATES = ("clinc150", "hwu64", "sentiment4", "sst2", "mrpc")
"""Data sets on which a head with a rate of its own was compared with the default of before."""


def head_rates() -> Iterator[str]:
    """Yield what the rate of the head changes at the default settings, and then that of the adapters; a task a row."""
    yield from head(
        "task",
        "the head at 0.001, too",
        "at 0.01",
        "at 0.04",
        "0.04 minus 0.01",
        "accuracy at 0.01 → 0.04",
        "adapters at 0.0025 minus 0.001, the head at 0.01",
        "the same, the head at 0.04",
    )
    for name in HEAD_RATES:
        shared, file = figures(f"tuned-{name}-r8-head"), figures(f"tuned-{name}-r8-defaults")
        slow, fast, *faster = (file["methods"][side] for side in DEFAULTS if side in file["methods"])
        yield row(
            f"{DATA[name]}, {len(file['seeds'])} seeds",
            *(f"{side['loss']:.3f}" for side in (shared["methods"]["lora"], slow, fast)),
            _bold(*fast[f"loss - {DEFAULTS[0]}"]),
            " → ".join(f"{100 * side['right']:.1f} %" for side in (slow, fast)),
            *([_bold(*side[f"loss - {of}"]) for side, of in zip(faster, DEFAULTS, strict=False)] or ["not run"] * 2),
        )


SETTLED = {"clinc150": "CLINC150", "sst2": "SST-2", "cola": "CoLA", "sentiment4": "`sentiment4`"}
"""Tasks that the default rates were settled on."""


def default_rates() -> Iterator[str]:
    """Yield what each pair of rates loses against the best of its task, after 150 steps and after 300."""
    yield from head("adapters", "head", *(f"{task}, 150 and 300 steps" for task in SETTLED.values()), "largest")
    curves = [figures(f"rates-{name}{ending}")["rates"] for name in SETTLED for ending in ("", "-300")]
    best = [min(loss for side in curve.values() for loss in side.values()) for curve in curves]
    for rate in ("0.001", "0.0025", "0.005"):
        for side in DEFAULTS[:2]:
            losses = [curve[side].get(rate) for curve in curves]
            above = [None if loss is None else loss - least for loss, least in zip(losses, best, strict=True)]
            words = ["not run" if one is None else f"{one:.3f}" for one in above]
            pairs = [f"{short}, {long}" for short, long in zip(words[::2], words[1::2], strict=True)]
            yield row(rate, side.rpartition(" ")[2], *pairs, f"{max(one for one in above if one is not None):.3f}")


DEFAULTS = ("lora, head at 0.01", "lora, head at 0.04", "lora, 0.0025, head at 0.01", "lora, 0.0025, head at 0.04")
"""Sides that the defaults of both rates were chosen from."""


def _bold(mean: float, low: float, high: float, digits: int = 3) -> str:
    """Return a difference with its interval in brackets, bold where that excludes 0."""
    words = f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]".replace("-", "−")
    return f"**{words}**" if low > 0 or high < 0 else words


def _difference(difference: Mapping[str, Any]) -> str:
    """Return a difference with interval and seeds, bold where both intervals exclude 0."""
    loss = difference["loss"]
    mean = signed(loss["mean"]) if difference["verdict"] == "open" else f"**{signed(loss['mean'])}**"
    return f"{mean} (95 % CI {signed(loss['wide_low'])} to {signed(loss['wide_high'])}, {loss['seeds']} seeds)"


TASKS = {"mrpc": "MRPC", "sentiment4": "`sentiment4`"}


def against_lora(method: str) -> list[str]:
    """Return how a method did against LoRA in the comparison of every method, a sentence per task; empty if not run."""
    sentences = []
    for one in figures("methods")["cells"]:
        for difference in one["differences"]:
            if (difference["method"], difference["against"]) == (method, "lora"):
                worse = "worse" if difference["loss"]["mean"] > 0 else "better"
                verdict = "not significantly different" if difference["verdict"] == "open" else worse
                sentences.append(f"{TASKS[one['task']]}: {_difference(difference)}, {verdict}.")
    return sentences


SHRUNK = ("compress-head-a", "compress-head-b")
"""Results of `benchmarks.compress` whose heads have a rate of their own."""


def shrunk() -> Iterator[str]:
    """Yield what a smaller adapter loses against the whole one, by data set and share of the parameters kept."""
    ways = ("loss, global", "loss, uniform", "loss, global - uniform")
    yield from head("task", "kept", "one threshold (`loss`)", "the same rank everywhere", "difference of the two")
    tasks = list(chain.from_iterable(figures(name)["summary"].items() for name in SHRUNK))
    for share in ("25%", "10%"):
        for name, one in tasks:
            cells = [_bold(*one[f"{way}, {share}"]["difference"]) for way in ways]
            yield row(f"{DATA[name]}, {one['seeds']} seeds", share.replace("%", " %"), *cells)


def trained_wider() -> Iterator[str]:
    """Yield what training at twice the rank and shrinking changes, and what `dynamic` does, at the default rates."""
    ways = ("rank 16", "rank 16 cut to rank 8, loss", "dynamic")
    yield from head(
        "loss minus that of rank 8", "rank 16", "rank 16, cut to the parameters of rank 8", "`dynamic`, rank 8"
    )
    for name, one in chain.from_iterable(figures(name)["summary"].items() for name in SHRUNK):
        yield row(f"{DATA[name]}, {one['seeds']} seeds", *(_bold(*one[way]["difference"]) for way in ways))


PLANTED = {
    "planted ranks": "the planted ranks",
    "lora": "uniform LoRA",
    "wide, one cut": "rank 8 to the end, then one cut",
    "MLP alone": "MLP modules alone, even ranks",
    "attention alone": "attention modules alone, even ranks",
    "random ranks": "random ranks, drawn once",
    "dynamic": "`dynamic`",
    "dynamic, random cuts": "`dynamic`, cuts at random",
    "dynamic, within the budget": "`dynamic`, `explore=1`",
}
"""Sides of `benchmarks.planted`, as the table names them; a method is its own name."""


def planted() -> Iterator[str]:
    """Yield what each side comes to on planted ranks, the least error first, a condition after the other."""
    tables = []
    for file in (figures("planted"), figures("planted-spread")):
        for condition, sides in file["conditions"].items():
            tables.append("\n".join(_planted(f"{condition}, {len(file['seeds'])} seeds", sides)))
    yield "\n\n".join(tables)


def planted_methods() -> Iterator[str]:
    """Yield what each method comes to on planted ranks, the least error first."""
    file = figures("planted-methods")
    yield from _planted(f"k=4, {len(file['seeds'])} seeds", file["conditions"]["k=4"])


def planted_board() -> str:
    """Return the same as the CSV file that the Methods page shows."""
    file = figures("planted-methods")
    sides = sorted(file["conditions"]["k=4"].items(), key=lambda item: item[1].get("error", float("inf")))
    lines = ["method,error,within,components,recovered,low,high,seeds"]
    for side, one in sides:
        if "error" in one:
            figures_of = [one["error"], round(one["within"], 1), round(one["components"], 1), *one["recovered"]]
            lines.append(",".join(map(str, [side, *figures_of, len(file["seeds"])])))
    return "\n".join([*lines, ""])


def _planted(title: str, sides: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of one condition."""
    yield from head(title, "error", "components where they are needed", "headroom recovered", "peak")
    has_headroom = sides["planted ranks"]["within"] > sides["lora"]["within"]
    whole = {side: one for side, one in sides.items() if "error" in one}
    for side, one in sorted(whole.items(), key=lambda item: item[1]["error"]):
        headroom = "{:.2f} [{:.2f}, {:.2f}]".format(*one.get("recovered", (0, 0, 0))).replace("-", "−")
        place = f"{one['within']:.0f} of {one['components']:.0f}"
        fixed = {"lora": "0", "planted ranks": "1"}.get(side, headroom) if has_headroom else "none"
        yield row(PLANTED.get(side, f"`{side}`"), f"{one['error']:.3f}", place, fixed, f"{one['peak']:.1f}")
    for side in sides.keys() - whole.keys():
        yield row(PLANTED.get(side, f"`{side}`"), "diverged", "", "", "")


def steps() -> Iterator[str]:
    """Yield the table of the time of a training step."""
    goals = figures("step_time")["goals"]
    peft, least = goals["dynamic/peft-lora"], goals["dynamic/floor"]
    yield from head(
        "precision, tokens, dropout",
        f"`dynamic` (reconstruction) / PEFT LoRA (goal {peft:.2f})",
        f"`dynamic` / lower bound (goal {least:.2f})",
        "`dynamic` / our `lora`",
        "`dynamic` / our `lora`, over the run",
        "PEFT LoRA / lower bound",
    )
    for one in (*figures("step_time")["settings"], *figures("step_time-no-dropout")["settings"]):
        ratios = one["ratios"]
        yield row(
            f"{one['precision']}, {one['length']}, {'default' if one['dropout'] else 'none'}",
            f"{_ratio(ratios['dynamic/peft-lora'])} {_met(ratios['dynamic/peft-lora'], peft)}",
            f"{_ratio(ratios['dynamic/floor'])} {_met(ratios['dynamic/floor'], least)}",
            _ratio(ratios["dynamic/lora"]),
            f"{ratios['dynamic/lora']['of_sums']:.3f}",
            f"{ratios['peft-lora/floor']['median']:.3f}",
        )


def _ratio(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"


def _met(ratio: Mapping[str, float], goal: float) -> str:
    return "met" if ratio["median"] <= goal else "**not met**"
