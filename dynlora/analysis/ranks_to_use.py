"""The ranks of a run by kind of module and by module, with the evidence for each; pandas in, pandas out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis import ablations
from dynlora.analysis.run_reading import RunReading

HELPS, UNCLEAR, HARMS, UNKNOWN = "helps", "not shown to help", "harms", "not measured"
"""What an ablation says of a module: its 95 % interval is above 0, includes 0, is below 0; or there is none."""


@dataclass(frozen=True)
class Evidence:
    """What a run says of its ranks.

    Attributes:
        modules: one row per module: name, label (its kind), short, start, rank, cost, norm and effective (rank) of the
            update, delta, low and high (change of the loss without it, nats), finding; NaN for what was not recorded.
        seeds: ranks by module (rows, as `modules`) and run of the same configuration (columns), this one first.
        rows: held-out examples of the ablations, 0 without any.
    """

    modules: pd.DataFrame
    seeds: pd.DataFrame
    rows: int = 0

    @cached_property
    def kinds(self) -> pd.DataFrame:
        """One row per kind of module, as `by_kind` returns it."""
        return by_kind(self)

    @property
    def is_moved(self) -> bool:
        """Whether modules ended with different ranks."""
        return self.modules["rank"].nunique() > 1

    @property
    def is_as_set(self) -> bool:
        """Whether every module ended with the rank it started with."""
        return bool((self.modules["rank"] == self.modules["start"]).all())

    @property
    def is_measured(self) -> bool:
        """Whether every module was ablated."""
        return bool((self.modules["finding"] != UNKNOWN).all())


def evidence(
    modules: pd.DataFrame,
    ranks: Mapping[str, int],
    start: np.ndarray | None,
    effects: pd.DataFrame,
    rows: int,
    norms: Mapping[str, np.ndarray | None],
    others: Sequence[Mapping[str, int]] = (),
) -> Evidence:
    """Return what a run says of its ranks.

    Args:
        modules: as `analysis.frames.described` returns them.
        ranks: last rank of each module by name.
        start: first recorded rank of each module, as recorded; None where none was.
        effects: of the ablations, as `ablations.effects` returns them.
        rows: held-out examples of the ablations.
        norms: `delta_norm` and `effective_rank` by module as recorded, None where they were not.
        others: last ranks of runs of the same configuration with other seeds.
    """
    frame = modules[["position", "name", "label", "short", "cost"]].copy()
    frame["start"] = np.nan if start is None else start[frame["position"].to_numpy(int)]
    frame["rank"] = [ranks.get(name, 0) for name in frame["name"]]
    for column, signal in (("norm", "delta_norm"), ("effective", "effective_rank")):
        values = norms.get(signal)
        frame[column] = np.nan if values is None else values[frame["position"].to_numpy(int)]
    measured = effects.set_index("position")[["delta", "low", "high"]]
    frame = frame.join(measured, on="position")
    frame["finding"] = [_finding(low, high) for low, high in zip(frame["low"], frame["high"], strict=True)]
    seeds = pd.DataFrame([[one.get(name) for one in (ranks, *others)] for name in frame["name"]])
    return Evidence(frame.reset_index(drop=True), seeds, rows if len(effects) else 0)


def are_final(summary: Mapping[str, Any]) -> bool:
    """Say whether a run has ended with ranks that plain LoRA can take; one stopped before a rank could move has not."""
    first, status = summary.get("first_reallocation"), summary["status"]
    has_moved = first is None or (summary["step"] or 0) > first
    has_ended = status == "finished" or status == "stopped" and has_moved
    return has_ended and lora_settings(summary, summary["ranks"]) is not None


def evidence_of(run: RunReading, others: Sequence[Mapping[str, int]] = ()) -> Evidence | None:
    """Return what a run says of its ranks; None where it has not ended, or where its ranks are none of a LoRA's.

    Args:
        run: with its summary.
        others: last ranks of runs of the same configuration with other seeds.
    """
    summary = run.summary
    if not are_final(summary) or run.modules.empty:
        return None
    ablation = ablations.kept(run.folder)
    return evidence(
        run.modules,
        summary["ranks"],
        run.values("rank", None),
        ablations.effects(ablation, run.modules),
        0 if ablation is None else ablation.rows,
        {name: run.values(name, run.last) for name in ("delta_norm", "effective_rank")},
        others,
    )


def _finding(low: float, high: float) -> str:
    if math.isnan(low) or math.isnan(high):
        return UNKNOWN
    return HELPS if low > 0 else HARMS if high < 0 else UNCLEAR


def by_kind(evidence: Evidence) -> pd.DataFrame:
    """Return one row per kind of module, the highest mean rank first.

    Columns: kind, modules, start (lowest and highest, as a pair), rank (mean), least, most, share (of the adapter
    parameters), norm and effective (means), helping (modules shown to help), measured (ablated modules), delta (sum of
    the loss changes, nats), low and high (mean rank of the lowest and highest seed; equal for one).
    """
    rows = []
    total = float((evidence.modules["rank"] * evidence.modules["cost"]).sum())
    for label, group in evidence.modules.groupby("label", sort=False):
        means = evidence.seeds.loc[group.index].astype(float).mean()
        rows.append(
            {
                "kind": label,
                "modules": len(group),
                "rank": group["rank"].mean(),
                "start": (group["start"].min(), group["start"].max()),
                "least": group["rank"].min(),
                "most": group["rank"].max(),
                "share": (group["rank"] * group["cost"]).sum() / total if total else float("nan"),
                "norm": group["norm"].mean(),
                "effective": group["effective"].mean(),
                "helping": int((group["finding"] == HELPS).sum()),
                "measured": int((group["finding"] != UNKNOWN).sum()),
                "delta": group["delta"].sum(min_count=1),
                "low": means.min(),
                "high": means.max(),
            }
        )
    return pd.DataFrame(rows).sort_values("rank", ascending=False, kind="stable").reset_index(drop=True)


def agreement_of_seeds(evidence: Evidence) -> float | None:
    """Return the mean rank correlation (Spearman) of the modules' ranks between seeds; None for one seed."""
    if evidence.seeds.shape[1] < 2:
        return None
    matrix = evidence.seeds.astype(float).corr("spearman").to_numpy()
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    return float(pairs[np.isfinite(pairs)].mean()) if np.isfinite(pairs).any() else None


@dataclass(frozen=True)
class LoraSettings:
    """Ranks as PEFT's `LoraConfig` takes them.

    Attributes:
        task_type: of PEFT; None where the run did not record it.
        r: rank of the modules that have no rank of their own.
        lora_alpha: r times the scaling of these modules.
        target_modules: modules with a rank above 0, by full name.
        rank_pattern: rank of the modules whose rank is another.
        alpha_pattern: alpha, scaling times rank, where it is another.
        is_scaling_known: whether the run recorded its scaling; else alpha / r of its settings is taken.
    """

    task_type: str | None
    r: int
    lora_alpha: float
    target_modules: list[str]
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    is_scaling_known: bool


def lora_settings(summary: Mapping[str, Any], ranks: Mapping[str, int]) -> LoraSettings | None:
    """Return the settings that train plain LoRA with these ranks; None when no module has one, or they are sums.

    PEFT scales an update by alpha / r, so alpha is given as scaling · rank: the scaling stays what the run had.

    Args:
        summary: as `queries.run_summary` returns it.
        ranks: of the modules, by name.
    """
    live = {name: rank for name, rank in ranks.items() if rank > 0}
    if not live or summary.get("ranks_are_sums"):
        return None
    recorded = {name: value for name, value in (summary.get("scaling") or {}).items() if value}
    adapter = (summary.get("config") or {}).get("adapter") or {}
    base = _number(adapter.get("rank")) or 4.0
    usual = (_number(adapter.get("alpha")) or 2 * base) / base
    scaling = {name: float(recorded.get(name, usual)) for name in live}
    r = _commonest(list(live.values()))
    alpha = _commonest([scaling[name] for name in live]) * r
    own_alpha = {name: scaling[name] * rank for name, rank in live.items()}
    return LoraSettings(
        summary.get("peft_task_type"),
        r,
        alpha,
        list(live),
        {name: rank for name, rank in live.items() if rank != r},
        {name: value for name, value in own_alpha.items() if value != alpha},
        all(name in recorded for name in live),
    )


def _number(value: Any) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return float(value) if fits else None


def _commonest(values: Sequence[Any]) -> Any:
    """Return the most frequent value, the smallest of equals."""
    return min(set(values), key=lambda value: (-values.count(value), value))
