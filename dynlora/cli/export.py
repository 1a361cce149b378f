"""The command that writes a run's adapter for others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora.cli.commands import Report
from dynlora.cli.formatting import format_metrics
from dynlora.errors import DynloraError
from dynlora.store.lifecycle import annotate
from dynlora.store.recorded import recorded_adapter
from dynlora.store.schema import run_folder


def export(*, run_id: str, out: Path, format_: str, which: str, runs_dir: Path) -> Report:
    """Write the adapter for others."""
    from dynlora.inference.export import export_run

    folder = run_folder(runs_dir, run_id)
    found = export_run(folder, out, format=format_, which=which)
    kept = {key: value for key, value in found.items() if key != "folder"}
    try:
        annotate(folder, meta={f"export_{format_}_{which}": kept})
    except (DynloraError, OSError) as error:
        found["not_stored"] = str(error)
    if recorded_adapter(folder):
        return found, f"wrote {out} (peft): the adapter of a recorded run, as PEFT wrote it when training ended"
    return found, (
        f"wrote {out} ({format_}, {which}); averaging the gates changed logits by at most "
        f"{found['max_abs_logit_gap']:.2e}; "
        f"held-out: {format_metrics(found['metrics_before'])} before, {format_metrics(found['metrics_after'])} after"
        f"{_cost_of_baking(found)}"
    )


COSTLY = 1.02
"""Held-out loss after the gates were replaced by their means, over that before, from which a warning says so."""


def _cost_of_baking(found: Mapping[str, Any]) -> str:
    """Return a warning where the export is worse than what was trained, with its remedy; else nothing."""
    before, after = (found[f"metrics_{when}"].get("loss") for when in ("before", "after"))
    if before is None or after is None or after <= COSTLY * before:
        return ""
    return (
        f"\nwarning: without its gates the held-out loss is {after:.3f} instead of {before:.3f}; to export what was "
        "trained, train with strategy.gates=off"
    )
