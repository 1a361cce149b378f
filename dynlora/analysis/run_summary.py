"""What lists and headers say of runs, computed from the store's rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from dynlora.store.catalogue import deciding_metric
from dynlora.store.meta import finite, section
from dynlora.store.summary import RunSummary
from dynlora.text import (
    ago,
    metric_words,
    number,
    one_line,
    percent,
    plural,
    rough_duration,
    score,
    sentence_case,
    source_name,
)

LOW_IS_GOOD = ("loss", "relative_error", "perplexity", "mse", "mae", "rmse", "ece", "brier")
"""Metrics of which less is better."""

ACTIVE = ("queued", "running", "stopping")
"""States in which a run can change by itself."""


RANDOM = "random allocation"
"""What is added to the name of a method whose ranks move at random: the control has a colour of its own."""


def last_planned_step(summary: RunSummary) -> int:
    """Return the planned last step of a queued or running run, or the last step of one that has ended."""
    step, planned = summary.step, summary.max_steps
    return max(step, planned) if summary.status in ACTIVE else step


def is_uniform(summary: RunSummary) -> bool:
    """Say whether a run is LoRA as it is: equal ranks from a new start, no gates, nothing to move, no own signal."""
    ranks = list(summary.ranks.values())
    own = summary.own_signals or summary.params.get("gate")
    still = not summary.planned_events and not own and not summary.origin
    return bool(ranks) and len(set(ranks)) == 1 and still


def method_of(row: Mapping[str, Any]) -> str:
    """Return the method of a run that decides its colour: its strategy, a random control apart; empty without one.

    Args:
        row: a summary, or a row of the list of runs.
    """
    strategy = row.get("strategy")
    if not isinstance(strategy, str):
        return ""
    is_random = section(row.get("config"), "strategy").get("allocation") == "random"
    return f"{strategy}, {RANDOM}" if is_random else strategy


def parameters_in_use(params: Mapping[str, Any]) -> int | None:
    """Return the adapter parameters in use, gates included; None when that is not known."""
    active, gate = params.get("active"), params.get("gate")
    return active + (gate if isinstance(gate, int) else 0) if isinstance(active, int) else None


def budget_share(params: Mapping[str, Any]) -> float | None:
    """Return how much of its budget a run uses, in percent; None when that is not known."""
    used, budget = parameters_in_use(params), params.get("budget")
    return 100 * used / budget if used is not None and isinstance(budget, int) and budget > 0 else None


def main_metric(row: Mapping[str, Any]) -> tuple[str, float | None]:
    """Return (name, last value) of the metric that decides; ("", None) before the first evaluation."""
    chosen = ((row.get("config") or {}).get("data") or {}).get("metric")  # runs of earlier versions say it there only
    name = deciding_metric({**row, "metric": row.get("metric") or chosen})
    return name, (row.get("metrics") or {}).get(name)


def loss_unit(summary: RunSummary) -> str:
    """Return the unit of a run's loss; runs of earlier versions tell by their classes."""
    known = summary.task_facts.get("loss_unit")
    return str(known)[:40] if known else "nats" if summary.labels else "squared error"


def is_sampled(summary: RunSummary) -> bool:
    """Say whether the last evaluation of a run took a sample of the held-out examples."""
    evaluated = summary.evaluated
    return bool(evaluated.get("rows")) and evaluated["rows"] < (evaluated.get("of") or 0)


def interim_rows(summary: RunSummary) -> tuple[int, int] | None:
    """Return (held-out examples of an evaluation before the last, all of them); None where each takes all."""
    rows, of = section(summary.config, "log").get("eval_rows"), summary.data_size.get("held_out")
    return (rows, of) if isinstance(rows, int) and isinstance(of, int) and rows < of else None


def evaluated_rows(summary: RunSummary, step: int) -> int | None:
    """Return on how many held-out examples the evaluation of a step was made; None when that is not known."""
    interim = interim_rows(summary)
    if interim is not None:
        return interim[int(step >= summary.max_steps)]
    rows = summary.data_size.get("held_out")
    return rows if isinstance(rows, int) else None


def sample_words(summary: RunSummary) -> str:
    """Say on how many held-out examples a run is evaluated; empty where each evaluation takes all."""
    interim = interim_rows(summary)
    if interim is None:
        return ""
    return (
        f"Evaluations before the last take a fixed sample of {interim[0]:,} of {interim[1]:,} held-out examples; "
        "the last takes all."
    )


def with_rows(series: pd.DataFrame, summary: RunSummary) -> pd.DataFrame:
    """Return numbers of evaluations with the column `examples`: on how many held-out ones; as it is where on all."""
    counts = interim_rows(summary)
    if counts is None:
        return series
    frame = series.assign(examples=[counts[int(step >= summary.max_steps)] for step in series["step"]])
    if "name" in frame:
        is_generated = frame["name"] == GENERATED
        prompts = frame["step"].map(lambda step: evaluated_prompts(summary, step))
        frame["examples"] = frame["examples"].mask(is_generated & prompts.notna(), prompts)
    return frame


def evaluated_prompts(summary: RunSummary, step: int) -> int | None:
    """Return how many prompts the evaluation of a step continued; None when that is not known."""
    log, of = section(summary.config, "log"), summary.data_size.get("held_out")
    prompts, interim = log.get("generate_rows"), log.get("generate_interim")
    if not isinstance(prompts, int) or not isinstance(of, int):
        return None
    is_last = step >= summary.max_steps or summary.metric == GENERATED
    return min(prompts, of) if is_last or not isinstance(interim, int) else min(prompts, of, interim)


def about(summary: RunSummary) -> str:
    """Return the line under a run's title: method, model and data, steps, seed."""
    model, data = (source_name(name or "?") for name in (summary.model, summary.data))
    parts = [format_strategy(dict(summary)), f"{model} on {data}", plural(summary.max_steps, "step")]
    return " · ".join(parts if summary.seed is None else [*parts, f"seed {summary.seed}"])


def state_words(summary: RunSummary) -> str:
    """Return the state of a run, of one that has ended with the step it reached and how long ago that was."""
    word = STATUS_WORDS.get(summary.status, summary.status)
    if summary.status in ACTIVE:
        return word
    is_whole, age = summary.step >= summary.max_steps, ago(summary.heartbeat_age_s)
    if is_whole:
        return f"{word} {age}".rstrip()
    return f"{word} at step {summary.step:,}{', ' if age else ''}{age}"


def origin_words(origin: Mapping[str, Any], name: str) -> str:
    """Say which adapter a run starts from.

    Args:
        origin: what `queries.run_summary` has under that key.
        name: of the run, or of the folder, that the adapter comes from.
    """
    share, called = origin.get("share"), one_line(name, 80)
    if not origin.get("run"):
        called = f"adapter {called}"
    else:
        called = f"run {called}" if origin.get("which") != "best" else f"the best adapter of run {called}"
    shrunk = share is not None and origin.get("parameters") != origin.get("of")
    return f"Starts from {called}" + (f", shrunk to {percent(share, 0)} of its parameters" if shrunk else "")


def format_strategy(row: Mapping[str, Any]) -> str:
    """Return the name of the strategy; its fidelity is said on Methods and in the details of a run."""
    name = row.get("strategy")
    return name if isinstance(name, str) and name else "no strategy"


def method_with_fidelity(summary: RunSummary) -> str:
    """Return the name of the strategy with how close it is to its paper."""
    name, fidelity = format_strategy(dict(summary)), summary.fidelity or ""
    words = f"from its {fidelity}" if fidelity in ("code", "description") else one_line(fidelity, 30)
    return f"{name} ({words})" if words else name


def headline(summary: RunSummary, reallocations: int, times: pd.DataFrame) -> dict[str, str]:
    """Return the figures that matter first on the Capacity page: label to value; `times` as `step_times`."""
    params = summary.params
    name, value = main_metric(dict(summary))
    share = budget_share(params)
    active = parameters_in_use(params)
    return {
        sentence_case(metric_words(name) if name else "metric"): score(value),
        "Adapter parameters in use": "–" if active is None else f"{active:,}",
        "Budget used": percent(None if share is None else share / 100),
        "Reallocations": f"{reallocations}",
        "Step time used by the strategy": percent(strategy_share(times)),
    }


def series(scalars: pd.DataFrame, name: str, split: str) -> pd.DataFrame:
    """Return one scalar of a frame of scalars: columns step and value, in order."""
    rows = scalars[(scalars["name"] == name) & (scalars["split"] == split)]
    return rows[["step", "value"]].reset_index(drop=True)


EVERY_RUN = ("loss", "lr", "step_ms", "strategy_ms", "tokens", "adapter_parameters", "optimizer_bytes")
"""Numbers of a training step that every run records."""

MOST_OWN = 8
"""Numbers of a method's own that are drawn at most."""


def own_numbers(scalars: pd.DataFrame) -> list[str]:
    """Return the names of the numbers that only this run's method records at its steps, penalties first."""
    train = scalars[scalars["split"] == "train"]
    names = [name for name in dict.fromkeys(train["name"]) if name not in EVERY_RUN]
    return sorted(names, key=lambda name: not name.startswith("penalty/"))[:MOST_OWN]


COUNTS = ("tokens",)
"""Numbers of an evaluation that say how much was judged, not how well."""

GENERATED = "exact_match"
"""The metric that is of the generated texts alone."""


def writes(summary: RunSummary) -> bool:
    """Say whether a run's model learns to write texts, so that its rows have completions and no labels."""
    return bool(summary.task_facts.get("generates"))


def held_out(scalars: pd.DataFrame) -> pd.DataFrame:
    """Return the held-out metrics but the loss: columns name, step, value."""
    rows = scalars[(scalars["split"] == "validation") & ~scalars["name"].isin(("loss", *COUNTS))]
    return rows[["name", "step", "value"]].reset_index(drop=True)


def step_times(scalars: pd.DataFrame) -> pd.DataFrame:
    """Return columns step, step_ms, strategy_ms of the steps that have both."""
    whole, part = series(scalars, "step_ms", "train"), series(scalars, "strategy_ms", "train")
    both = whole.merge(part, on="step", suffixes=("_step", "_strategy")).drop_duplicates("step")
    return both.rename(columns={"value_step": "step_ms", "value_strategy": "strategy_ms"})


def strategy_share(times: pd.DataFrame) -> float | None:
    """Return the strategy's fraction of all step time: of the sums, for most steps reallocate nothing."""
    total = float(times["step_ms"].sum())
    return float(times["strategy_ms"].sum()) / total if total > 0 else None


def nothing_recorded(summary: RunSummary, what: str, then: str) -> str:
    """Say that a run has nothing to show, and, while it is active, what appears when.

    Args:
        summary: as `queries.run_summary` returns it.
        what: it has not recorded, such as "step".
        then: what appears when, a sentence.
    """
    if summary.status in ACTIVE:
        return f"No {what} has been recorded yet. {then}"
    return f"This run has recorded no {what}, so there is nothing to show here."


def seconds_taken(row: Mapping[str, Any]) -> float | None:
    """Return the seconds that the steps and the evaluations of a run took; None when it does not say.

    Args:
        row: a summary, or a row of the list of runs as plain values.
    """
    times = row.get("time") or {}
    trained = finite(times.get("train_s"))
    return None if trained is None else trained + (finite(times.get("evaluated_s")) or 0.0)


def format_progress(row: Mapping[str, Any], phase: str = "") -> str:
    """Return the state of a run: its step, what it does besides steps, and how long it still needs.

    Args:
        row: a summary as plain values, or a row of the list of runs, which has no activity.
        phase: what it does, where the summary does not say.
    """
    activity = row.get("activity") or {}
    text = f"step {row['step']:,} of {row['max_steps']:,}"
    if phase := one_line(activity.get("phase") or phase, 120):
        text += f": {phase}"
    if (remaining := activity.get("remaining_s")) is not None:
        text += f", about {rough_duration(remaining)} remaining"
    return text


def evaluation(events: pd.DataFrame) -> tuple[int, dict[str, Any]] | None:
    """Return (step, payload) of the last evaluation, None before the first."""
    evaluations = events[events["kind"] == "evaluate"]
    return None if evaluations.empty else (int(evaluations["step"].iloc[-1]), evaluations["payload"].iloc[-1])


def confusion(payload: Mapping[str, Any]) -> tuple[list[list[float]], list[str]] | None:
    """Return (counts, labels) of an evaluation when they fit together, else None."""
    counts, labels = payload.get("confusion"), payload.get("labels")
    if not isinstance(counts, list) or not isinstance(labels, list) or not 0 < len(labels) <= 50:
        return None
    sizes = {len(row) if isinstance(row, list) else -1 for row in counts}
    numbers = all(isinstance(cell, int | float) for row in counts if isinstance(row, list) for cell in row)
    fits = sizes == {len(labels)} and len(counts) == len(labels) and numbers
    return (counts, [str(label) for label in labels]) if fits else None


def worst(payload: Mapping[str, Any]) -> pd.DataFrame:
    """Return the worst examples of an evaluation: loss, label, prediction, text."""
    rows = payload.get("worst")
    mappings = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    columns = ["loss", "label", "prediction", "text", "text_pair"]
    frame = pd.DataFrame([{column: row.get(column) for column in columns} for row in mappings], columns=columns)
    frame["loss"] = pd.to_numeric(frame["loss"], errors="coerce")
    words = ["label", "prediction", "text", "text_pair"]
    frame[words] = frame[words].map(_cell)
    return frame.drop(columns="text_pair") if frame["text_pair"].isna().all() else frame


def _cell(value: Any) -> str | None:
    """Return a value of an example as text, a number that is not whole with four significant digits."""
    if value is None:
        return None
    return number(value, 4) if isinstance(value, float) else str(value)


def log_text(logs: pd.DataFrame) -> str:
    """Return the log as lines of time, level and message."""
    times = pd.to_datetime(logs["time"].clip(0, 4e9), unit="s").dt.strftime("%H:%M:%S") if len(logs) else []
    rows = zip(times, logs["level"], logs["message"], strict=True)
    return "\n".join(f"{time} {one_line(level, 12):8} {one_line(message, 1000)}" for time, level, message in rows)


def phase(summary: RunSummary, last_lines: Callable[[], pd.DataFrame]) -> str:
    """Return the last line of a running run's log before its first step; empty when it has made one.

    Args:
        summary: as `queries.run_summary` returns it.
        last_lines: returns the last lines of its log, columns level and message.
    """
    if summary.status != "running" or summary.step:
        return ""
    logs = last_lines()
    messages = logs[logs["level"] == "info"]["message"]
    return one_line(messages.iloc[-1], 120) if len(messages) else ""


def progress_share(row: Mapping[str, Any]) -> float:
    """Return how much of a run is done, from 0 to 1."""
    return min(max(row["step"] / row["max_steps"], 0.0), 1.0) if row["max_steps"] > 0 else 0.0


def confusion_table(counts: Sequence[Sequence[float]], labels: Sequence[str]) -> pd.DataFrame:
    """Return a confusion matrix as a table: column `true`, then one per prediction."""
    frame = pd.DataFrame(counts, columns=[f"predicted {label}" for label in labels])
    frame.insert(0, "true", list(labels), allow_duplicates=True)
    return frame


def format_metrics(metrics: Mapping[str, Any], deciding: str = "") -> str:
    """Return the metrics that matter most, in words: the loss, and the one that decides or that most people know."""
    names = ("loss", deciding) if deciding else ("accuracy", "pearson", "perplexity", "loss")
    words = [f"{key} {score(value)}" for key, value in metrics.items() if key in names and value is not None]
    return ", ".join(words[:2]) or "not evaluated"


STATUS_WORDS = {"corrupt": "unreadable"}
"""Statuses that are said otherwise: a run of a newer dynlora cannot be read either, and is not corrupt."""
