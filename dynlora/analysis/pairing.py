"""Is one group of runs better than another? The paired difference over shared seeds and examples, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dynlora.analysis import results
from dynlora.analysis.run_summary import loss_unit
from dynlora.analysis.seed_groups import Group, set_values
from dynlora.analysis.stats import LEVEL, Difference, normal_reach, paired_difference, t_reach
from dynlora.store import queries
from dynlora.store.summary import RunSummary

FEWEST_SEEDS = 3
"""Common seeds below which nothing is called better or worse: the interval would hold for the examples only."""


def same_task(runs: pd.DataFrame, row: Mapping[str, Any]) -> pd.DataFrame:
    """Return the other runs on the model and data of a run, of its length, in the order given.

    Args:
        runs: as `queries.list_runs` returns them.
        row: of the run, or its summary as plain values.
    """
    alike = runs[runs["id"] != row["id"]]
    for column in ("model", "data", "max_steps"):
        alike = alike[alike[column] == row.get(column)]
    return alike


def terms(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what runs share that can be set against each other: model, data, steps, budget, and whose they are."""
    return row["model"], row["data"], row["max_steps"], (row["params"] or {}).get("budget"), row["is_own"]


def pairs(summaries: Mapping[str, RunSummary], first: Group, second: Group) -> tuple[list[tuple[int, str, str]], str]:
    """Return the pairs (seed, run of the first group, run of the second), and why there are no more of them.

    A pair has one seed, one data set with the same settings, and as many rows in both runs. Of several runs with one
    seed the last of the list counts.
    """
    by_seed = [{summaries[run].seed: run for run in group.runs} for group in (first, second)]
    shared = [seed for seed in by_seed[0] if seed in by_seed[1] and isinstance(seed, int)]
    shared_pairs = [(seed, by_seed[0][seed], by_seed[1][seed]) for seed in sorted(shared)]
    comparable = [pair for pair in shared_pairs if _data(summaries[pair[1]]) == _data(summaries[pair[2]])]
    if not shared_pairs:
        return [], "The two groups share no seed."
    if len(comparable) < (total := len(shared_pairs)):
        return (
            comparable,
            f"{total - len(comparable)} of {total} shared seeds have different data or data sizes.",
        )
    return comparable, ""


def _data(summary: RunSummary) -> tuple[Any, ...]:
    settings = set_values({"data": summary.config.get("data") or {}})
    return summary.data, settings, summary.data_size, summary.labels


def is_significant(rows: Sequence[np.ndarray], difference: Difference, level: float = LEVEL) -> bool:
    """Say whether enough seeds were paired, and both the bootstrap interval and that of t over the seeds exclude 0.

    Args:
        rows: differences by example, one array per seed.
        difference: of these, as `stats.paired_difference` returns it: alone it is too narrow for few seeds.
        level: of the t interval, 0 to 1.
    """
    is_known = len(rows) >= FEWEST_SEEDS and difference.excludes_0
    return is_known and t_reach([float(values.mean()) for values in rows], level) < abs(difference.mean)


def is_equivalent(rows: Sequence[np.ndarray], difference: Difference, margin: float, level: float = LEVEL) -> bool:
    """Say whether enough seeds were paired, and both intervals of `is_significant` are within ±`margin`.

    It is two one-sided tests (Schuirmann 1987): the mean is not as low as -margin, and not as high as margin.
    """
    if len(rows) < FEWEST_SEEDS or not -margin < difference.low <= difference.high < margin:
        return False
    return abs(difference.mean) + t_reach([float(values.mean()) for values in rows], level) < margin


def forest(differences: Mapping[int, np.ndarray]) -> pd.DataFrame:
    """Return the difference of each seed and of all together: columns row, mean, low, high, examples.

    The interval of one seed is `normal_reach`; that of all `paired_difference`.

    Args:
        differences: one value per example, by seed; not empty, all of one length.
    """
    rows: list[tuple[Any, ...]] = []
    for seed, values in differences.items():
        reach = normal_reach(values)
        rows.append((f"seed {seed}", float(values.mean()), values.mean() - reach, values.mean() + reach, len(values)))
    whole = paired_difference(list(differences.values()))
    rows.append((f"all, n = {whole.seeds}", whole.mean, whole.low, whole.high, whole.examples))
    return pd.DataFrame(rows, columns=["row", "mean", "low", "high", "examples"])


def same_length(differences: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return the differences of those seeds that have as many finite examples as the first."""
    finite = {seed: values for seed, values in differences.items() if len(values) and np.isfinite(values).all()}
    size = next((len(values) for values in finite.values()), 0)
    return {seed: values for seed, values in finite.items() if len(values) == size}


Ask = Callable[..., Any]
"""Answers a query of the store: ask(query, folder, *arguments)."""

BySeed = dict[int, np.ndarray]
_Both = tuple[np.ndarray, np.ndarray | None]


class Side(NamedTuple):
    """One number that two groups of runs are set against each other in.

    Attributes:
        key: loss, accuracy or exact_match.
        differences: by seed, one value per row, the second run of a pair minus the first; empty when not recorded.
        what: the unit and the rows, in words.
        title: of an axis, with which side is better.
        low_is_good: whether less of it is better.
        digits: after the point that are read.
    """

    key: str
    differences: BySeed
    what: str
    title: str
    low_is_good: bool
    digits: int


EXACT_MATCH = (
    "points of exact match on generated texts",
    "Exact match difference (points; right is better)",
    False,
    1,
)
"""What else a `Side` of exact match holds."""


@dataclass(frozen=True)
class RunPairs:
    """Runs that are set side by side.

    Attributes:
        folders: by id of the run.
        summaries: by id, as `queries.run_summary` returns them.
        ask: answers the store's queries.
    """

    folders: Mapping[str, Path]
    summaries: Mapping[str, RunSummary]
    ask: Ask

    def differences(self, pairs: Sequence[tuple[int, str, str]]) -> list[Side]:
        """Return what the runs of each pair differ by: loss, accuracy, and exact match where both wrote texts.

        On all held-out examples where the runs recorded them, else on the probe set; exact match on the prompts that
        both continued at their last evaluations.

        Args:
            pairs: (seed, first run, second run), as `pairing.pairs` returns them.

        Raises:
            DynloraError: when a run cannot be read.
        """
        held, probe = ({seed: ask(a, b) for seed, a, b in pairs} for ask in (self._held_out, self._probe))
        losses, rights = ([_part(source, part) for source in (held, probe)] for part in (0, 1))
        right = {seed: 100 * values for seed, values in (rights[0] or rights[1]).items()}
        where = ["held-out examples" if part[0] else "the probe set" for part in (losses, rights)]
        unit = loss_unit(self.summaries[pairs[0][1]]) if pairs else "nats"
        titles = f"Loss difference ({unit}; left is better)", "Accuracy difference (points; right is better)"
        sides = [
            Side("loss", losses[0] or losses[1], f"{unit} of loss on {where[0]}", titles[0], True, 4),
            Side("accuracy", right, f"points of accuracy on {where[1]}", titles[1], False, 1),
        ]
        matches = _known({seed: self._exact_match(a, b) for seed, a, b in pairs})
        return [*sides, Side("exact_match", matches, *EXACT_MATCH)] if matches else sides

    def _held_out(self, first: str, second: str) -> _Both | None:
        """Return (loss, right answers) of the second run minus the first by held-out row; None when not recorded."""
        losses = [self._last(run, "held_out_loss") for run in (first, second)]
        if losses[0] is None or losses[1] is None or len(losses[0]) != len(losses[1]):
            return None
        right = [self._right(run) if self.summaries[first].labels else None for run in (first, second)]
        both = None if right[0] is None or right[1] is None else right[1] - right[0]
        return losses[1] - losses[0], both

    def _exact_match(self, first: str, second: str) -> np.ndarray | None:
        """Return 100 where only the second run's text is right, -100 where only the first's, 0 elsewhere.

        Of the held-out prompts that both continued; None where there is none.
        """
        right = [self._last(run, "held_out_exact_match") for run in (first, second)]
        if right[0] is None or right[1] is None or len(right[0]) != len(right[1]):
            return None
        difference = 100 * (right[1] - right[0])
        both = difference[np.isfinite(difference)]
        return both if len(both) else None

    def _right(self, run: str) -> np.ndarray | None:
        """Return 1 for each held-out row that was answered right at the last evaluation, 0 for the others.

        None when that evaluation took a sample: a run that ended early was never asked about all rows.
        """
        truth, answer = self._last(run, "held_out_label"), self._last(run, "held_out_prediction")
        if truth is None or answer is None or np.isnan(answer).any():
            return None
        return (truth == answer).astype(float)

    def _last(self, run: str, name: str) -> np.ndarray | None:
        try:
            bins = self.ask(queries.heatmap, self.folders[run], name, 1)
        except KeyError:
            return None
        return bins.frame.to_numpy(float)[:, -1] if bins.points else None

    def _probe(self, first: str, second: str) -> _Both | None:
        """Return (loss, right answers) of the second run minus the first by probe example; None when they differ."""
        frames = [self.ask(queries.examples_frame, self.folders[run]) for run in (first, second)]
        texts = [frame[["text", "text_pair", "label"]].fillna("").to_numpy().tolist() for frame in frames]
        if not texts[0] or texts[0] != texts[1]:
            return None
        loss = (frames[1]["loss"] - frames[0]["loss"]).to_numpy(float)
        labels = [str(label) for label in self.summaries[first].labels]
        if not labels:
            return loss, None
        right = [results.is_right(frame, labels) for frame in frames]
        return loss, right[1] - right[0]


def _part(differences: Mapping[int, _Both | None], part: int) -> BySeed:
    return _known({seed: both[part] for seed, both in differences.items() if both is not None})


def _known(differences: Mapping[int, np.ndarray | None]) -> BySeed:
    return same_length({seed: one for seed, one in differences.items() if one is not None})
