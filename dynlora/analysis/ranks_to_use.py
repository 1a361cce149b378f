"""The ranks of a run by kind of module and by module, with the evidence for each; pandas in, pandas out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis import retention
from dynlora.analysis.run_reading import RunReading
from dynlora.store.summary import RunSummary
from dynlora.text import listed, one_line, plural, sentence_case, signed

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


def are_final(summary: RunSummary) -> bool:
    """Say whether a run has ended with ranks that plain LoRA can take; one stopped before a rank could move has not."""
    first, status = summary.first_reallocation, summary.status
    has_moved = first is None or summary.step > first
    has_ended = status == "finished" or status == "stopped" and has_moved
    return has_ended and lora_settings(summary, summary.ranks) is not None


def evidence_of(run: RunReading, others: Sequence[Mapping[str, int]] = ()) -> Evidence | None:
    """Return what a run says of its ranks; None where it has not ended, or where its ranks are none of a LoRA's.

    Args:
        run: with its summary.
        others: last ranks of runs of the same configuration with other seeds.
    """
    summary = run.summary
    if not are_final(summary) or run.modules.empty:
        return None
    ablation = retention.kept(run.folder)
    return evidence(
        run.modules,
        summary.ranks,
        run.values("rank", None),
        retention.effects(ablation, run.modules),
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


def lora_settings(summary: RunSummary, ranks: Mapping[str, int]) -> LoraSettings | None:
    """Return the settings that train plain LoRA with these ranks; None when no module has one, or they are sums.

    PEFT scales an update by alpha / r, so alpha is given as scaling · rank: the scaling stays what the run had.

    Args:
        summary: as `queries.run_summary` returns it.
        ranks: of the modules, by name.
    """
    live = {name: rank for name, rank in ranks.items() if rank > 0}
    if not live or summary.ranks_are_sums:
        return None
    recorded = {name: value for name, value in summary.scaling.items() if value}
    adapter = summary.config.get("adapter") or {}
    base = _number(adapter.get("rank")) or 4.0
    usual = (_number(adapter.get("alpha")) or 2 * base) / base
    scaling = {name: float(recorded.get(name, usual)) for name in live}
    r = _commonest(list(live.values()))
    alpha = _commonest([scaling[name] for name in live]) * r
    own_alpha = {name: scaling[name] * rank for name, rank in live.items()}
    return LoraSettings(
        summary.peft_task_type,
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


SHOWN = 2
"""Decimals of a mean rank that are shown; means that are equal with these are a tie."""


def headline(evidence: Evidence) -> str:
    """Say which kinds ended high and low, or that nothing moved."""
    ranks, n = evidence.modules["rank"], len(evidence.modules)
    if not evidence.is_moved:
        before = "" if evidence.is_as_set else _started(evidence)
        return (
            f"All {n} modules ended with rank {int(ranks.iloc[0])}{before}: this run gives no reason to prefer others."
        )
    since = ", as set before training" if evidence.is_as_set else _started(evidence)
    kinds = evidence.kinds
    means = kinds["rank"].round(SHOWN)
    if means.nunique() == 1:
        of = _kind(kinds.iloc[0]) if len(kinds) == 1 else "every kind"
        return (
            f"The mean rank of {of} is {mean_words(means.iloc[0])}; single modules have ranks from {ranks.min()} to "
            f"{ranks.max()}{since}."
        )
    top, bottom = (kinds[means == value] for value in (means.max(), means.min()))
    most, least = _tied("most rank went to", top, "mean "), _tied("least to", bottom)
    return f"Over {n} modules, {most}, {least}{since}."


def _tied(verb: str, kinds: pd.DataFrame, what: str = "") -> str:
    """Return kinds of one mean rank with it."""
    names = listed([one_line(name, 40) for name in kinds["kind"]])
    tie = "" if len(kinds) == 1 else "tie at "
    return f"{verb} {names} ({tie}{what}{mean_words(kinds['rank'].iloc[0])})"


def mean_words(rank: float) -> str:
    """Return a mean rank with no more decimals than it has."""
    return f"{rank:.{SHOWN}f}".rstrip("0").rstrip(".")


def _started(evidence: Evidence) -> str:
    """Say with which ranks the modules started; empty where that was not recorded."""
    start = evidence.modules["start"]
    if start.isna().any():
        return ""
    who = "every module started" if start.nunique() == 1 else "the modules started"
    return f"; {who} with rank {_span(start.min(), start.max())}"


def _span(low: float, high: float) -> str:
    if pd.isna(low) or pd.isna(high):
        return "–"
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _kind(row: pd.Series) -> str:
    return one_line(row["kind"], 40)


def confidence(evidence: Evidence, why_not: str = "") -> str:
    """Say how sure the ranks are: by ablations, and by other seeds.

    Args:
        evidence: of the run.
        why_not: why no ablation can be made of it; empty where one can.
    """
    return f"{_by_knockouts(evidence, why_not)} {_by_seeds(evidence)}"


def _by_knockouts(evidence: Evidence, why_not: str) -> str:
    if not evidence.rows and why_not:
        return f"Confidence by ablation: none. {why_not}"
    if not evidence.rows:
        return "Confidence by ablation: none yet. Run the module ablation to see which modules help."
    counts = evidence.modules["finding"].value_counts()
    helping, unclear, harming = (int(counts.get(name, 0)) for name in (HELPS, UNCLEAR, HARMS))
    measured = len(evidence.modules) - int(counts.get(UNKNOWN, 0))
    so_far = (
        "" if evidence.is_measured else f", {measured} of {plural(len(evidence.modules), 'module')} measured so far"
    )
    helps = "module helps" if helping == 1 else "modules help"
    sentence = f"Ablation on {evidence.rows:,} held-out examples{so_far}: {helping} {helps} (95 % CI above 0)"
    if harming:
        sentence += f", {harming} {'harms' if harming == 1 else 'harm'}"
    if not unclear:
        return f"{sentence}."
    names = listed(
        [one_line(name, 30) for name in evidence.modules.loc[evidence.modules["finding"] == UNCLEAR, "short"]]
    )
    are, them = ("is", "it") if unclear == 1 else ("are", "them")
    sentence += f", {unclear} {are} not shown to help when turned off alone ({names})"
    return f"{sentence}. Train a run without {them} to test this."


def _by_seeds(evidence: Evidence) -> str:
    agreement, n = agreement_of_seeds(evidence), evidence.seeds.shape[1]
    if n < 2:
        return "One seed: ranks of other seeds may differ."
    if agreement is None:
        return (
            f"The same ranks in {n} seeds." if not evidence.is_moved else f"{n} seeds, whose ranks cannot be compared."
        )
    return f"Ranks agree between {n} seeds with a Spearman correlation of {signed(agreement, 2)}."


def kinds_table(evidence: Evidence) -> pd.DataFrame:
    """Return the kinds of modules as a table that people read; columns without any value are left out."""
    kinds = evidence.kinds
    spread = [_span(low, high) for low, high in zip(kinds["least"], kinds["most"], strict=True)]
    table = pd.DataFrame(
        {
            "kind": kinds["kind"],
            "start": [_span(*pair) for pair in kinds["start"]],
            "mean rank": kinds["rank"].round(SHOWN),
            "ranks": spread,
            "modules": kinds["modules"],
            "parameters (%)": _rounded(100 * kinds["share"], 1),
            "update norm": _rounded(kinds["norm"], 3),
            "effective rank": _rounded(kinds["effective"], 2),
            "help": [
                f"{helping} of {n}" if n else None
                for helping, n in zip(kinds["helping"], kinds["measured"], strict=True)
            ],
            "loss change": _rounded(kinds["delta"], 4),
        }
    )
    if evidence.seeds.shape[1] > 1:
        table["means over seeds"] = [f"{row.low:.2f} to {row.high:.2f}" for row in kinds.itertuples()]
    return table.dropna(axis="columns", how="all")


def _rounded(values: pd.Series, digits: int) -> pd.Series:
    """Return rounded numbers; one of a file of others may be too large to be rounded, and stays."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = values.astype(float).round(digits)
    return rounded.where(np.isfinite(rounded), values)


def columns(kinds: pd.DataFrame) -> str:
    """Return what the columns of a table of `kinds_table` mean, only those that it has."""
    means = [name for name in ("update norm", "effective rank") if name in kinds]
    sentences = [
        "Start and ranks: lowest to highest of the kind.",
        "Parameters: fraction of all in use.",
        f"{sentence_case(listed(means))}: means." if means else "",
        "Help: modules whose ablation raises the loss (95 % CI above 0)." if "help" in kinds else "",
        "The table has every module.",
    ]
    return " ".join(filter(None, sentences))


def modules_table(evidence: Evidence) -> pd.DataFrame:
    """Return the modules as a table that people read; columns without any value are left out."""
    frame = evidence.modules
    return pd.DataFrame(
        {
            "module": frame["short"],
            "name": frame["name"],
            "start rank": frame["start"],
            "rank": frame["rank"],
            "update norm": _rounded(frame["norm"], 3),
            "effective rank": _rounded(frame["effective"], 2),
            "loss change": _rounded(frame["delta"], 4),
            "95 % CI from": _rounded(frame["low"], 4),
            "to": _rounded(frame["high"], 4),
            "finding": frame["finding"],
        }
    ).dropna(axis="columns", how="all")


def snippets(settings: LoraSettings) -> dict[str, tuple[str, str]]:
    """Return the settings as others take them: text and its language, by where it goes, PEFT first."""
    return {"LoraConfig for PEFT": (code(settings), "python"), "YAML for Axolotl": (axolotl(settings), "yaml")}


def axolotl(settings: LoraSettings) -> str:
    """Return the settings as lines of Axolotl's YAML, whose patterns become those of PEFT's LoraConfig.

    The keys are those of its `docs/lora.qmd` at 01883e35; it takes whole alphas only.
    """
    alphas = {settings.lora_alpha, *settings.alpha_pattern.values()}
    lines = ["adapter: lora", f"lora_r: {settings.r}", f"lora_alpha: {_plain(settings.lora_alpha)}"]
    lines.append("lora_target_modules:")
    lines += [f"  - {json.dumps(name)}" for name in settings.target_modules]
    for name, pattern in (("lora_rank_pattern", settings.rank_pattern), ("lora_alpha_pattern", settings.alpha_pattern)):
        if pattern:
            lines.append(f"{name}:")
            lines += [f"  {json.dumps(module)}: {_plain(value)}" for module, value in pattern.items()]
    if not all(float(alpha).is_integer() for alpha in alphas):
        lines.insert(0, "# Axolotl refuses alphas with a fraction: give adapter.alpha as a multiple of adapter.rank.")
    return "\n".join(lines)


def code(settings: LoraSettings) -> str:
    """Return the settings as code that makes PEFT's LoraConfig."""
    lines = ["from peft import LoraConfig", ""]
    if not settings.is_scaling_known:
        lines.append("# The run did not record its scaling: alpha follows alpha / r of its settings.")
    lines.append("config = LoraConfig(")
    if settings.task_type is not None:
        lines.append(f"    task_type={settings.task_type!r},")
    lines += [f"    r={settings.r},", f"    lora_alpha={_plain(settings.lora_alpha)},", "    target_modules=["]
    lines += [f"        {name!r}," for name in settings.target_modules]
    lines.append("    ],")
    for name, pattern in (("rank_pattern", settings.rank_pattern), ("alpha_pattern", settings.alpha_pattern)):
        if pattern:
            lines.append(f"    {name}={{")
            lines += [f"        {module!r}: {_plain(value)}," for module, value in pattern.items()]
            lines.append("    },")
    return "\n".join([*lines, ")"])


def _plain(value: float) -> str:
    """Return a number as code, whole where it is."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
