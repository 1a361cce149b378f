"""What the ranks of a run mean, in words, and as code for PEFT."""

from __future__ import annotations

import pandas as pd

from dynlora.viz.kit.text import listed, number, one_line, percent, signed
from dynlora.viz.ranks.model import HARMS, HELPS, UNCLEAR, Evidence, LoraSettings, agreement_of_seeds, by_kind


def headline(found: Evidence) -> str:
    """Say which kinds ended high and low, or that nothing moved."""
    if not found.is_moved:
        rank = int(found.modules["rank"].iloc[0])
        return (
            f"All {len(found.modules)} modules ended with rank {rank}: this run gives no reason to prefer other ranks."
        )
    kinds = by_kind(found)
    top, bottom = kinds.iloc[0], kinds.iloc[-1]
    if len(kinds) == 1:
        return f"The ranks of {_kind(top)} run from {top['least']} to {top['most']} (start: {top['start']})."
    return (
        f"Most rank went to {_kind(top)} (mean {number(top['rank'], 2)}), least to {_kind(bottom)} "
        f"({number(bottom['rank'], 2)}); every module started with {top['start']}."
    )


def _kind(row: pd.Series) -> str:
    return one_line(row["kind"], 40)


def confidence(found: Evidence) -> str:
    """Say how sure the ranks are: by knock-outs, and by other seeds."""
    return f"{_by_knockouts(found)} {_by_seeds(found)}"


def _by_knockouts(found: Evidence) -> str:
    if not found.rows:
        return "Confidence by ablation: none yet. Run the module ablation on Capacity to see which modules help."
    counts = found.modules["finding"].value_counts()
    helping, unclear, harming = (int(counts.get(name, 0)) for name in (HELPS, UNCLEAR, HARMS))
    helps = "module helps" if helping == 1 else "modules help"
    said = f"Ablation on {found.rows:,} held-out examples: {helping} {helps} (95 % CI above 0)"
    if harming:
        said += f", {harming} {'harms' if harming == 1 else 'harm'}"
    if not unclear:
        return f"{said}."
    names = listed([one_line(name, 30) for name in found.modules.loc[found.modules["finding"] == UNCLEAR, "short"]])
    are, them = ("is", "it") if unclear == 1 else ("are", "them")
    return (
        f"{said}, {unclear} {are} not shown to help when turned off alone ({names}). A run without {them} tests this."
    )


def _by_seeds(found: Evidence) -> str:
    agreement, n = agreement_of_seeds(found), found.seeds.shape[1]
    if n < 2:
        return "One seed: ranks of other seeds may differ."
    if agreement is None:
        return f"The same ranks in {n} seeds." if not found.is_moved else f"{n} seeds, whose ranks cannot be compared."
    return f"Ranks agree between {n} seeds with a Spearman correlation of {signed(agreement, 2)}."


def kinds_table(found: Evidence) -> pd.DataFrame:
    """Return the kinds of modules as a table that people read; columns without any value are left out."""
    kinds = by_kind(found)
    table = pd.DataFrame({
        "kind": kinds["kind"], "modules": kinds["modules"], "start rank": kinds["start"],
        "mean rank": kinds["rank"].round(2), "lowest": kinds["least"], "highest": kinds["most"],
        "fraction of parameters": [percent(share) for share in kinds["share"]],
        "update norm (mean)": kinds["norm"].round(3), "effective rank (mean)": kinds["effective"].round(2),
        "modules that help": [
            f"{helping} of {n}" if n else None for helping, n in zip(kinds["helping"], kinds["measured"], strict=True)
        ],
        "sum of loss changes (nats)": kinds["delta"].round(4),
    })  # fmt: skip
    if found.seeds.shape[1] > 1:
        table["mean rank over seeds"] = [f"{row.low:.2f} to {row.high:.2f}" for row in kinds.itertuples()]
    return table.dropna(axis="columns", how="all")


def modules_table(found: Evidence) -> pd.DataFrame:
    """Return the modules as a table that people read; columns without any value are left out."""
    frame = found.modules
    return pd.DataFrame({
        "module": frame["short"], "name": frame["name"], "start rank": frame["start"], "rank": frame["rank"],
        "update norm": frame["norm"].round(3), "effective rank": frame["effective"].round(2),
        "loss change (nats)": frame["delta"].round(4), "95 % CI from": frame["low"].round(4),
        "to": frame["high"].round(4), "finding": frame["finding"],
    }).dropna(axis="columns", how="all")  # fmt: skip


def code(found: LoraSettings) -> str:
    """Return the settings as code that makes PEFT's LoraConfig."""
    lines = ["from peft import LoraConfig", ""]
    if not found.is_scaling_known:
        lines.append("# The run did not record its scaling: alpha follows alpha / r of its settings.")
    lines.append("config = LoraConfig(")
    if found.task_type is not None:
        lines.append(f"    task_type={found.task_type!r},")
    lines += [f"    r={found.r},", f"    lora_alpha={_plain(found.lora_alpha)},", "    target_modules=["]
    lines += [f"        {name!r}," for name in found.target_modules]
    lines.append("    ],")
    for name, pattern in (("rank_pattern", found.rank_pattern), ("alpha_pattern", found.alpha_pattern)):
        if pattern:
            lines.append(f"    {name}={{")
            lines += [f"        {module!r}: {_plain(value)}," for module, value in pattern.items()]
            lines.append("    },")
    return "\n".join([*lines, ")"])


def _plain(value: float) -> str:
    """Return a number as code, whole where it is."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
