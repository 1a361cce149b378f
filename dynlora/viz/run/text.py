"""Captions of the Run page: what each chart shows, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dynlora.analysis.frames import at_highest, at_lowest, smoothed
from dynlora.analysis.run_summary import LOW_IS_GOOD, strategy_share
from dynlora.text import metric_words, number, one_line, percent, score, sentence_case


def loss(train: pd.DataFrame, validation: pd.DataFrame) -> str:
    """Say how far the loss fell."""
    known = train.dropna(subset=["value"])
    if known.empty:
        return "No loss has been recorded yet."
    smooth = smoothed(known["value"])
    first, last = float(smooth.iloc[0]), float(smooth.iloc[-1])
    verb = "fell" if last < first else "rose"
    words = f"The smoothed training loss {verb} from {first:.3f} to {last:.3f} over {int(known['step'].iloc[-1])} steps"
    if len(validation):
        words += (
            f"; the held-out loss was {validation['value'].iloc[-1]:.3f} at step {int(validation['step'].iloc[-1])}"
        )
    return words + "."


def metric(series: pd.DataFrame, name: str) -> str:
    """Say the last and the best value of a held-out metric; `series` holds step and value."""
    known = series.dropna(subset=["value"])
    if known.empty:
        return "The run has not been evaluated yet."
    is_low = name in LOW_IS_GOOD
    last, best = known.iloc[-1], known.loc[(at_lowest if is_low else at_highest)(known["value"])]
    return (
        f"{sentence_case(metric_words(name))} is {score(last['value'])} at step {int(last['step'])}; "
        f"the {'lowest' if is_low else 'highest'} value is {score(best['value'])} at step {int(best['step'])}."
    )


def learning_rate(series: pd.DataFrame) -> str:
    """Say where the learning rate peaked, and its present value."""
    series = series.dropna(subset=["value"])
    if series.empty:
        return "No learning rate has been recorded yet."
    peak = series.loc[at_highest(series["value"])]
    return (
        f"Peak {number(peak['value'])} at step {int(peak['step'])}; current value "
        f"{number(float(series['value'].iloc[-1]))}."
    )


def budget(line: pd.DataFrame, limit: int | None) -> str:
    """Say how much of the budget is in use, and whether it was ever exceeded."""
    known = line.dropna(subset=["parameters"])
    if known.empty or not limit:
        return "The budget is not known yet."
    now, most = float(known["parameters"].iloc[-1]), float(known["parameters"].max())
    over = "never exceeded" if most <= limit else f"exceeded by {number(int(most - limit))}"
    return f"{number(int(now))} of {number(limit)} parameters in use ({percent(now / limit)}); {over}."


def step_time(times: pd.DataFrame, kept: pd.DataFrame) -> str:
    """Say what a step takes, the strategy's part of it, and the size of the optimizer state.

    Args:
        times: columns step, step_ms, strategy_ms.
        kept: bytes of the optimizer's state, columns step and value; empty in runs of earlier versions.
    """
    if times.empty:
        return "No step has been timed yet."
    words = (
        f"The median step takes {_step_length(times['step_ms'].median())}; the strategy takes "
        f"{percent(strategy_share(times))} of "
        "all step time"
    )
    most = 0.0 if kept.empty else float(kept["value"].max())
    return f"{words}; the optimizer state takes {most / 2**20:.2f} MiB." if most > 0 else f"{words}."


def _step_length(milliseconds: float) -> str:
    return f"{milliseconds:,.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:,.1f} s"


def confusion(counts: Sequence[Sequence[float]], labels: Sequence[str], step: int) -> str:
    """Say the share of right answers and the most frequent mistake."""
    table = np.asarray(counts, dtype=float)
    total = table.sum()
    if not total:
        return "Nothing was evaluated."
    wrong = table - np.diag(np.diag(table))
    truth, guess = np.unravel_index(int(wrong.argmax()), wrong.shape)
    words = (
        f"At step {step}, {percent(np.trace(table) / total)} of {number(int(total))} held-out predictions are correct"
    )
    if not wrong.max():
        return words + "."
    return (
        f"{words}; the most frequent error is {one_line(labels[int(truth)], 40)} predicted as "
        f"{one_line(labels[int(guess)], 40)} ({number(int(wrong.max()))} examples)."
    )
