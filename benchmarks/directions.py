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
    """The store writes and reads faster than every tracker that is installed."""
    for size, trackers in figures["sizes"].items():
        for name, row in trackers.items():
            if "ratio" not in row:  # a sentence: it is not installed
                continue
            yield f"a step is written faster than by {name} ({size})", row["ratio"]["readable_us"] > 1
            yield f"a signal is read faster than from {name} ({size})", row["ratio"]["read_s"] > 1


def overhead(figures: Mapping[str, Any]) -> Claims:
    """`dynamic` keeps the budget, adds hardly an operation, and recording is part of every run."""
    sides = figures["variants"]
    mine, plain = sides["dynamic"], sides["lora"]
    yield "dynamic keeps the budget", mine["parameters_most"] <= mine["parameters"]["budget"]
    yield "dynamic adds at most 2 % of the operations", mine["flops"]["formula"] <= 1.02 * plain["flops"]["formula"]
    yield "only dynamic pays for gates", mine["shares"]["gating"] > 0 and plain["flops"]["gates"] == 0


def throughput(figures: Mapping[str, Any]) -> Claims:
    """Batches of one length with their padding cost more than batches of like length."""
    yield "lora trains more samples a second than run_glue", figures["ratios"]["lora"]["run_glue"] > 1


def step_time(figures: Mapping[str, Any]) -> Claims:
    """Training weights costs more than passing gradients through them."""
    for setting in figures["settings"]:
        ratios = {name: row["median"] for name, row in setting["ratios"].items()}
        yield "PEFT LoRA costs more than the floor", ratios.get("peft-lora/floor", 2) > 1
        yield "full fine-tuning costs more than the floor", ratios.get("full/floor", 2) > 1


def precision(figures: Mapping[str, Any]) -> Claims:
    """What `auto` chooses is not much slower than the other precision."""
    for name, rows in figures["settings"].items():
        slower = rows["step"]["bf16/fp32"]["median"]
        yield f"auto is not the slow one ({name})", slower < 1.1 if figures["auto"] == "bf16" else slower > 0.9


def step_profile(figures: Mapping[str, Any]) -> Claims:
    """Every variant multiplies matrices."""
    for setting in figures["settings"]:
        times = setting["ms"]
        yield "each variant multiplies matrices", all(row["matrix products"] > 0 for row in times.values())
        yield "the floor, lora and dynamic are profiled", set(times) == {"floor", "lora", "dynamic"}


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


def advise(figures: Mapping[str, Any]) -> Claims:
    """Two halves of a look agree on more than chance would, and every arm learns."""
    for row in figures["summary"].values():
        yield "halves of a look place most of the budget alike", row["agreement"] > 0.5
        yield "no arm is far from uniform ranks", all(abs(one[0]) < CHANCE for one in row["difference"].values())


def rate(figures: Mapping[str, Any]) -> Claims:
    """A suggested rate learns more than the default one."""
    for row in figures["summary"].values():
        yield "the suggested rate is better than the default", row["suggested"] < row["default"]


def memory(figures: Mapping[str, Any]) -> Claims:
    """Memory follows the rank."""
    yield "dynamic takes hardly more memory than lora", all(ratio < 1.02 for ratio in figures["ratio"].values())


def record(figures: Mapping[str, Any]) -> Claims:
    """Recording is a small part of a step."""
    yield "recording takes less than a twentieth of a step", figures["fraction"] < 0.05


def domains(figures: Mapping[str, Any]) -> Claims:
    """Every domain is read by every side."""
    rows = figures["by_domain"]
    yield "every domain is read with and without gates", len({row["gates"] for row in rows}) > 1
    yield "no side is worse than chance everywhere", min(row["loss"] for row in rows) < CHANCE


def methods(figures: Mapping[str, Any]) -> Claims:
    """Every method learns something; a step is timed against `lora`'s."""
    yield from quality(figures)
    yield (
        "a step of dynamic costs what one of lora does, roughly",
        0.5 < figures["costs"]["dynamic"]["step_over_lora"] < 3,
    )


def knockouts(figures: Mapping[str, Any]) -> Claims:
    """Some modules help, and scores are correlations."""
    for name, run in figures["runs"].items():
        yield f"some modules of {name} help", run["helps"] > 0
        yield f"{name}: correlations lie in -1 to 1", not any(abs(row["own"]["rho"]) > 1 for row in run["scores"])


def language_model(figures: Mapping[str, Any]) -> Claims:
    """Losses are PEFT's to rounding, and a loss in pieces takes less memory than one whole."""
    yield "losses are PEFT's to rounding", figures["parity"]["largest_difference"] < 1e-3
    yield "a loss in pieces takes less memory", figures["memory"]["ratio"] < 1


def headroom(figures: Mapping[str, Any]) -> Claims:
    """Every arm has the parameters of uniform, to the last one."""
    runs = figures["runs"]
    yield "no run diverged", all("loss" in run for run in runs.values())
    yield "all arms have the same parameters", len({run.get("parameters") for run in runs.values()}) == 1


def fact_memory(figures: Mapping[str, Any]) -> Claims:
    """An adapter knows more of a value than a guess does, and arms have the same parameters."""
    for name, arm in figures["arms"].items():
        yield f"{name} learns facts", arm.get("loss", figures["guess"]) < figures["guess"]
    yield "all arms have the same parameters", len(set(figures["parameters"].values())) == 1


def remote(figures: Mapping[str, Any]) -> Claims:
    """What is there already is not sent again, and Parquet is smaller than the store."""
    yield "runs that are there take less", figures["sync_unchanged_s"] < figures["runs"] * figures["send_s_per_run"]
    yield "a run is smaller where it was sent", figures["run_bytes_there"] < figures["run_bytes_here"]


def many_runs(figures: Mapping[str, Any]) -> Claims:
    """A list that was read before comes sooner, and each run has as many files."""
    for number, row in figures["sizes"].items():
        listed = [row[name]["cpu_s"] for name in ("list, warm", "list, first of all")]
        yield f"a list of {number} runs read before comes sooner", listed[0] < listed[1]
        yield f"{number} runs have five files and folders each", row["entries"] == 5 * int(number) + 1


def rsd(figures: Mapping[str, Any]) -> Claims:
    """A draft of fewer blocks costs less, tokens that are read cost something, and assisted generation is lossless."""
    rows = {row["key"]: row for row in figures["ways"]}
    yield "the draft alone costs less per token", _per_token(rows["draft"]) < _per_token(rows["target"])
    yield "reading costs something", all(row["flops_with_prefill"] > row["flops"] for row in rows.values())
    yield "assisted generation writes the target's texts", figures["assisted_equals_target"] == 1


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
    """Teachers recognise what was inverted, and all ways are tested on the same episodes."""
    yield "teachers recognise the inverted inputs", min(figures["agreement"].values()) > 0.9
    by_method = figures["methods"]
    yield "inverted and real data are tested", {"base", "inverted", "noise", "real"} <= set(by_method)
    accuracies = [row["accuracy"][0] for by_shots in by_method.values() for row in by_shots.values()]
    yield "accuracies are fractions", all(0 <= one <= 1 for one in accuracies)


def distil(figures: Mapping[str, Any]) -> Claims:
    """Each teacher knows its own task best, a student is nearer to both than the base, and all see the same texts."""
    for task, rows in figures["loss"].items():
        yield f"the teacher of {task} is better there than the base", rows[task][0] < rows["base"][0]
    nearness = figures["kl"]["all"]
    yield "the student is nearer to its teachers than the base", nearness["student against"]["base"][0] < 0
    yield "all students and models are measured", len(nearness) == len(figures["loss"]["sums"]) == 9


def retention(figures: Mapping[str, Any]) -> Claims:
    """A rate that is too high forgets more than the suggested one, and retention leaves every bit of a run as it is."""
    for seed, run in figures["runs"].items():
        high, low = run["too_high"], run["suggested"]
        yield f"the higher rate forgets more ({seed})", high is None or high["forgotten"] > low["forgotten"]
        yield f"retention leaves the run as it is ({seed})", run["is_equal_without"]


def rank_capacity(figures: Mapping[str, Any]) -> Claims:
    """More rank has more parameters and room, and no adapter learns more than there is."""
    small, large = figures["rows"]
    yield "more rank has more room", large["capacity"] > small["capacity"]
    yield "nothing is learned that is not there", all(row["learned"] <= row["bits"] for row in figures["rows"])


def refine(figures: Mapping[str, Any]) -> Claims:
    """Every way was measured on the same examples; none breaks the model."""
    for data, row in figures["summary"].items():
        yield f"no way breaks the model ({data})", all(abs(row[way][0]) < 1 for way in ("absolute", "signed", "random"))


def gpu(figures: Mapping[str, Any]) -> Claims:
    """Every variant took its steps on every kind of weights; without a GPU nothing is said of memory."""
    kinds = [of for of in figures["weights"].values() if not isinstance(of, str)]
    yield "every variant took its steps", all(set(of["alone"]) == set(of["in turn"]["median_ms"]) for of in kinds)
    yield (
        "memory is measured on a GPU alone",
        "not measured" not in figures["device"]
        or all(one["peak_mib"] is None for of in kinds for one in of["alone"].values()),
    )


def search(figures: Mapping[str, Any]) -> Claims:
    """A study that was killed has all of its trials, each a run of its own."""
    yield "no trial ran twice, and none is missing", figures["trials"] == figures["runs_of_trials"]
    yield (
        "runs are trials, the default, and both sides on new seeds",
        figures["runs"] == figures["trials"] + 1 + 2 * figures["seeds"],
    )


def llama_cpp(figures: Mapping[str, Any]) -> Claims:
    """On weights in fp32 llama.cpp reads every adapter as torch reads the merged model; on Q4_1 as near as the base."""
    rounding = figures["base"]["Q4_1"]["mean_nats"]
    for name, row in figures["adapters"].items():
        yield f"the {name} adapter is read right", row["fp32"]["mean_nats"] <= 0.001
        yield f"the {name} adapter is rounded as the base is", row["Q4_1"]["mean_nats"] <= 1.5 * rounding


CHECKS: Mapping[str, Callable[[Any], Claims]] = {
    check.__name__: check
    for check in (
        pages,
        waits,
        store,
        overhead,
        throughput,
        step_time,
        precision,
        step_profile,
        quality,
        domains,
        methods,
        knockouts,
        language_model,
        compress,
        advise,
        rate,
        memory,
        record,
        headroom,
        fact_memory,
        remote,
        many_runs,
        rsd,
        search,
        tuned,
        planted,
        recycle,
        retention,
        rank_capacity,
        refine,
        distil,
        gpu,
        llama_cpp,
    )
}


def wrong_ways(name: str) -> list[str]:
    """Return the sentences that the small form of a benchmark did not keep, from what it wrote last."""
    figures = json.loads((RESULTS / f"{name}-quick.json").read_text("utf-8"))["figures"]
    return [f"not so: {sentence}" for sentence, holds in CHECKS[name](figures) if not holds]
