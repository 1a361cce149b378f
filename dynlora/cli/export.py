"""The command that writes a run's adapter for others, and sends it to the hub where told so."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora import assets
from dynlora.cli.commands import Report
from dynlora.cli.formatting import format_metrics
from dynlora.errors import ConfigError, DynloraError
from dynlora.kinds.distil import student_config
from dynlora.store.kinds import DISTIL, RECYCLE, kind_of
from dynlora.store.lifecycle import annotate
from dynlora.store.reader import RunReader
from dynlora.store.recorded import recorded_adapter
from dynlora.store.schema import run_folder


def export(
    *, run_id: str, out: Path | None, format_: str, which: str, push_to: str | None, private: bool, runs_dir: Path
) -> Report:
    """Write the adapter for others, and send it to the hub where told so."""
    folder = run_folder(runs_dir, run_id)
    if push_to is None:
        if out is None:
            raise ConfigError("--out: is missing; give a folder or a .zip file, or --push-to owner/name")
        if private:
            raise ConfigError("--private: is for --push-to alone; leave it out")
        return _exported(folder, out, format_, which)
    from dynlora.remote.hub import find_repository, send_folder

    if recorded_adapter(folder):
        raise ConfigError(
            f"--push-to {push_to}: {run_id} was recorded, and its adapter is as PEFT wrote it; send it with PEFT's "
            "push_to_hub"
        )
    if out is not None and out.suffix.lower() == ".zip":
        raise ConfigError(f"--out {out}: must be a folder with --push-to; give a folder, or leave it out")
    _check_base(folder, push_to, format_)
    repository = find_repository(push_to, format=format_, private=private)
    with tempfile.TemporaryDirectory(prefix="dynlora-push-") as spare:
        place = out or Path(spare) / "export"
        found, words = _exported(folder, place, format_, which)
        found["pushed"] = send_folder(place, repository, f"{run_id}: {which} adapter ({format_})")
    if out is None:
        found["folder"], words = None, words.replace(f"wrote {place} ", "exported ", 1)
    return found, f"{words}\nsent to {found['pushed']['url']}, commit {found['pushed']['commit'][:12]}"


def _check_base(folder: Path, push_to: str, format_: str) -> None:
    """Refuse to send an adapter whose base model is a folder of this machine: nobody else could load it."""
    base = assets.shared_model_name(student_config(folder).model.name)
    if format_ == "peft" and Path(base).is_absolute():
        raise ConfigError(
            f"--push-to {push_to}: the base model is a folder of this machine, so nobody else could load the adapter; "
            "add --format merged, which holds the whole model"
        )


def _exported(folder: Path, out: Path, format_: str, which: str) -> tuple[dict[str, Any], str]:
    """Write the adapter, and note in the run what that changed."""
    with RunReader(folder) as reader:
        kind = kind_of(reader.meta(("kind",)))
    if kind == RECYCLE:
        return _exported_meta(folder, out, format_)
    if kind == DISTIL:
        from dynlora.distilling.export import export_student

        student = export_student(folder, out, format_)
        return student, f"wrote {out} ({format_}), the student of a distillation, {student['parameters']:,} parameters"
    from dynlora.cli.conclusions import conclusions
    from dynlora.inference.export import export_run
    from dynlora.store.summary import run_summary

    verdict = conclusions(folder, run_summary(folder))["verdict"]
    found = export_run(folder, out, format=format_, which=which, verdict=verdict and verdict["text"])
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


def _exported_meta(folder: Path, out: Path, format_: str) -> tuple[dict[str, Any], str]:
    """Write the meta-LoRA of a recycle."""
    from dynlora.recycling.export import export_meta

    if format_ != "peft":
        raise ConfigError(f"--format {format_}: a meta-LoRA has no head to predict with; export it as peft")
    found = export_meta(folder, out)
    return found, f"wrote {out} (peft), a feature-extraction adapter of {found['parameters']:,} parameters"


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
