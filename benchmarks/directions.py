"""Which way the small form of each benchmark must point: coarse, so that a busy machine does not matter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.results import RESULTS

Claims = Iterator[tuple[str, bool]]
"""A sentence, and whether the figures keep it."""

CHANCE = 0.75
"""Loss of a two-class head that has learned nothing, with room for a bad start, nats."""


def pages(figures: Mapping[str, Any]) -> Claims:
    """A part is cheaper than the page that holds it; a list that was read before comes sooner."""
    server, listed = figures["server"], figures["list"]
    yield "the heat map alone costs less than the page", server["heat map"]["cpu_s"] < server["page, first"]["cpu_s"]
    yield "a list read before comes sooner", listed["list, warm"]["cpu_s"] < listed["list, first of all"]["cpu_s"]


def waits(figures: Mapping[str, Any]) -> Claims:
    """A run is queued before it has made a step, and a check by a warm process takes less."""
    seconds = figures["waits"]
    yield "a run is queued before its first step", seconds["start until queued"] < seconds["start until the first step"]
    yield "a check takes less where a process is kept warm", seconds["check, warm"] < seconds["check, cold"]


def store(figures: Mapping[str, Any]) -> Claims:
    """A step waits for the store less than a millisecond: a training step takes a hundred times as long."""
    for size, row in figures["sizes"].items():
        yield f"a step is written in less than a millisecond ({size})", row["blocked_median_us"] < 1000


def overhead(figures: Mapping[str, Any]) -> Claims:
    """Scoring adds hardly an operation, and the wide start of `dynamic` ends at eight times the budget at most."""
    sides = figures["variants"]
    mine, scoring, plain = (sides[name] for name in ("dynamic", "scoring only", "lora"))
    yield "dynamic starts at 8 times the budget at most", mine["parameters_most"] <= 8.1 * mine["parameters"]["budget"]
    yield "scoring adds at most 2 % of the operations", scoring["flops"]["formula"] <= 1.02 * plain["flops"]["formula"]
    yield "only dynamic allocates", mine["shares"]["allocating"] > plain["shares"]["allocating"]


def throughput(figures: Mapping[str, Any]) -> Claims:
    """Batches of one length with their padding cost more than batches of like length."""
    yield "lora trains more samples a second than run_glue", figures["ratios"]["lora"]["run_glue"] > 1


def step_time(figures: Mapping[str, Any]) -> Claims:
    """Training weights costs more than passing gradients through them."""
    for setting in figures["settings"]:
        ratios = {name: row["median"] for name, row in setting["ratios"].items()}
        yield "PEFT LoRA costs more than the floor", ratios.get("peft-lora/floor", 2) > 1
        yield "full fine-tuning costs more than the floor", ratios.get("full/floor", 2) > 1


def quality(figures: Mapping[str, Any]) -> Claims:
    """Every method learns something, and ours within the budget."""
    for cell in figures["cells"]:
        yield "no run diverged", not cell["diverged"]
        for row in cell["methods"]:
            yield f"{row['method']} is no worse than chance", row["loss"] < CHANCE
            if not row["method"].startswith("peft"):
                yield f"{row['method']} keeps the budget", row["parameters"][1] <= row["budget"]


def compress(figures: Mapping[str, Any]) -> Claims:
    """Half of the parameters costs least where the components with the largest effect stay."""
    for rows in figures["summary"].values():
        kept, drawn = (rows[f"loss, {method}, 50%"]["difference"][0] for method in ("global", "random"))
        yield "one threshold over all modules costs less than random components", kept < drawn


def memory(figures: Mapping[str, Any]) -> Claims:
    """Memory follows the rank: a wide start is the price of its components alone."""
    yield "dynamic takes at most a third more memory than lora", all(one < 1.33 for one in figures["ratio"].values())


def methods(figures: Mapping[str, Any]) -> Claims:
    """Every method learns something; a step is timed against `lora`'s."""
    yield from quality(figures)
    yield (
        "a step of dynamic costs what one of lora does, roughly",
        0.5 < figures["costs"]["dynamic"]["step_over_lora"] < 3,
    )


def fact_memory(figures: Mapping[str, Any]) -> Claims:
    """An adapter knows more of a value than a guess does, and arms have the same parameters."""
    for name, arm in figures["arms"].items():
        yield f"{name} learns facts", arm.get("loss", figures["guess"]) < figures["guess"]
    yield "all arms have the same parameters", len(set(figures["parameters"].values())) == 1


def rsd(figures: Mapping[str, Any]) -> Claims:
    """A draft of fewer blocks costs less, and tokens that are read cost something."""
    for reward, points in figures["ways"].items():
        rows = {row["key"]: row for row in points}
        yield f"the draft alone costs less per token ({reward})", _per_token(rows["draft"]) < _per_token(rows["target"])
        yield f"reading costs something ({reward})", all(row["flops_with_prefill"] > row["flops"] for row in points)


def _per_token(row: Mapping[str, Any]) -> float:
    return row["flops"] / max(1, sum(row["tokens"].values()))


def tuned(figures: Mapping[str, Any]) -> Claims:
    """Every method has a rate of the grid, and no method more parameters than `lora`."""
    rows = figures["methods"]
    yield "rates are of the grid", all(f"{lr:g}" in figures["rates"][name] for name, lr in figures["chosen"].items())
    yield "no method has more parameters", all(one["parameters"] <= rows["lora"]["parameters"] for one in rows.values())


def planted(figures: Mapping[str, Any]) -> Claims:
    """The planted ranks are where they are needed, and no side ends above the budget."""
    for condition, sides in figures["conditions"].items():
        yield f"the planted ranks are all needed ({condition})", sides["planted ranks"]["precision"] == 1
        yield f"no side ends above the budget ({condition})", all(side["end"] <= 1.04 for side in sides.values())


def recycle(figures: Mapping[str, Any]) -> Claims:
    """Every way is tested, at both numbers of examples."""
    for seed, of in figures["seeds"].items():
        ways = of["accuracy"].values()
        yield f"accuracies are fractions ({seed})", all(0 <= one["mean"] <= 1 for way in ways for one in way.values())
        yield f"the base model and the average are tested ({seed})", {"base", "averaged"} <= set(of["accuracy"])


def gpu(figures: Mapping[str, Any]) -> Claims:
    """Every variant took its steps on every kind of weights; without a GPU nothing is said of memory."""
    kinds = [of for of in figures["weights"].values() if not isinstance(of, str)]
    yield "every variant took its steps", all(set(of["alone"]) == set(of["in turn"]["median_ms"]) for of in kinds)
    yield (
        "memory is measured on a GPU alone",
        "not measured" not in figures["device"]
        or all(one["peak_mib"] is None for of in kinds for one in of["alone"].values()),
    )


CHECKS: Mapping[str, Callable[[Any], Claims]] = {
    check.__name__: check
    for check in (
        pages,
        waits,
        store,
        overhead,
        throughput,
        step_time,
        quality,
        methods,
        compress,
        memory,
        fact_memory,
        rsd,
        tuned,
        planted,
        recycle,
        gpu,
    )
}


def wrong_ways(name: str) -> list[str]:
    """Return the sentences that the small form of a benchmark did not keep, from what it wrote last."""
    figures = json.loads((RESULTS / f"{name}-quick.json").read_text("utf-8"))["figures"]
    return [f"not so: {sentence}" for sentence, holds in CHECKS[name](figures) if not holds]
