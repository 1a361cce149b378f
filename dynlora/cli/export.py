"""The command that writes a run's adapter for others, and sends it to the hub where told so."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from dynlora import assets
from dynlora.cli.run_commands import Report
from dynlora.errors import ConfigError
from dynlora.kinds.registry import kind_of_run
from dynlora.peft_adapter.forms import Form
from dynlora.store.schema import run_folder
from dynlora.store.summary import recorded_adapter


def export(
    *,
    run_id: str,
    out: Path | None,
    form: Form,
    which: str,
    measure: str,
    push_to: str | None,
    private: bool,
    runs_dir: Path,
) -> Report:
    """Write the adapter for others, and send it to the hub where told so."""
    folder = run_folder(runs_dir, run_id)
    if push_to is None:
        if out is None:
            raise ConfigError("--out: is missing; give a folder or a .zip file, or --push-to owner/name")
        if private:
            raise ConfigError("--private: is for --push-to alone; leave it out")
        return _exported(folder, out, form, which, measure)
    from dynlora.remote.hub import find_repository, send_folder

    if recorded_adapter(folder):
        raise ConfigError(
            f"--push-to {push_to}: {run_id} was recorded, and its adapter is as PEFT wrote it; send it with PEFT's "
            "push_to_hub"
        )
    if out is not None and out.suffix.lower() == ".zip":
        raise ConfigError(f"--out {out}: must be a folder with --push-to; give a folder, or leave it out")
    _check_base(folder, push_to, form)
    repository = find_repository(push_to, format=form.format, private=private)
    with tempfile.TemporaryDirectory(prefix="dynlora-push-") as spare:
        place = out or Path(spare) / "export"
        exported, words = _exported(folder, place, form, which, measure)
        exported["pushed"] = send_folder(place, repository, f"{run_id}: {which} adapter ({form.name})")
    if out is None:
        exported["folder"], words = None, words.replace(f"wrote {place} ", "exported ", 1)
    return exported, f"{words}\nsent to {exported['pushed']['url']}, commit {exported['pushed']['commit'][:12]}"


def _check_base(folder: Path, push_to: str, form: Form) -> None:
    """Refuse to send an adapter whose base model is a folder of this machine: nobody else could load it."""
    base = assets.shared_model_name(kind_of_run(folder).model_config(folder).model.name)
    if form.format == "peft" and Path(base).is_absolute():
        raise ConfigError(
            f"--push-to {push_to}: the base model is a folder of this machine, so nobody else could load the adapter; "
            "add --format merged, which holds the whole model"
        )


def _exported(folder: Path, out: Path, form: Form, which: str, measure: str) -> tuple[dict[str, Any], str]:
    """Write the model of a run, whatever its kind."""
    return kind_of_run(folder).export(folder, out, form.name, which, measure)
