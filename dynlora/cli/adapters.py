"""Commands for adapter folders of anyone: what is in one, how engines read it, and the same in another form."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynlora import assets
from dynlora.cli.options import OutFolder, formed, reports
from dynlora.cli.run_commands import Report
from dynlora.errors import ConfigError
from dynlora.kinds.run_kind import kind_of_run
from dynlora.peft_adapter.forms import Form
from dynlora.store.schema import run_folder
from dynlora.store.summary import recorded_adapter

if TYPE_CHECKING:
    from dynlora.peft_adapter import Adapter
    from dynlora.peft_adapter.engines import Reading


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
    from dynlora.remote.place import find_repository, send_folder

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


@click.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@reports
def inspect(folder: Path) -> Any:
    """Show ranks, norms and spectra of any PEFT adapter (LoRA, AdaLoRA)."""
    from dynlora.peft_adapter import read_adapter

    adapter = read_adapter(folder)
    return {"folder": str(folder), **asdict(adapter)}, _format_adapter(adapter)


def _format_adapter(adapter: Adapter) -> str:
    """Return an adapter as a sentence, a line per module, where its updates are, and what the numbers do not show."""
    from dynlora.analysis import adapter_frames

    modules = adapter_frames.described(adapter)
    table = adapter_frames.table(modules).drop(columns="name")
    lines = table.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.4g}")
    frames = [adapter_frames.overview(adapter, modules), lines, adapter_frames.norms(modules), *adapter.notes]
    return "\n".join(frames)


@click.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--for", "engines", default="", metavar="ENGINE,...", help="Only these engines; exit code 1 if one fails."
)
@reports
def check(folder: Path, engines: str) -> Any:
    """Say how engines read an adapter: right, wrong, or not at all.

    FOLDER holds an adapter of PEFT, mlx-lm, kohya or diffusers. Its configuration and the header of its tensors are
    read, no number of it.
    """
    from dynlora.peft_adapter.engines import ENGINES, RIGHT, check_engines
    from dynlora.peft_adapter.header import read_header

    names = tuple(name.strip() for name in engines.split(",") if name.strip())
    if unknown := [name for name in names if name not in ENGINES]:
        raise ConfigError(f"--for {unknown[0]}: must be one of {', '.join(ENGINES)}")
    header = read_header(folder)
    readings = check_engines(header, names)
    ranks = header.ranks.values()
    document = {
        "folder": str(folder),
        "layout": header.layout,
        "peft_type": header.peft_type,
        "modules": len(ranks),
        "ranks": [min(ranks, default=0), max(ranks, default=0)],
        "engines": [asdict(reading) for reading in readings],
    }
    is_wrong = bool(names) and any(reading.verdict != RIGHT for reading in readings)
    return document, "\n".join(_lines(folder, readings)), int(is_wrong)


def _lines(folder: Path, readings: tuple[Reading, ...]) -> list[str]:
    """Return a conclusion, then a line an engine, with what to do under those that do not read it right."""
    from dynlora.analysis.adapter_frames import engines_headline

    lines = [engines_headline(readings)]
    width = max(len(f"{reading.engine} {reading.version}") for reading in readings)
    for reading in readings:
        name = f"{reading.engine} {reading.version}".ljust(width)
        reason = f": {reading.reason}" if reading.reason else ""
        lines.append(f"  {name}  {reading.verdict}{reason}")
        if reading.remedy:
            remedy = reading.remedy.replace("FOLDER", shlex.quote(str(folder)))
            lines.append(f"  {' ' * width}  → {remedy}")
    return lines


@click.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option("--out", type=OutFolder(), required=True, help="A new or empty folder, or a .zip file.")
@click.option("--base", default=None, metavar="FOLDER|NAME", help="The base model, where the adapter does not name it.")
@formed
@reports
def convert(folder: Path, out: Path, base: str | None, form: Form) -> Any:
    """Write an adapter folder of anyone in another form, without its base model.

    FOLDER holds an adapter of PEFT (LoRA, AdaLoRA), mlx-lm, kohya or diffusers.
    """
    from dynlora.inference.convert import convert as write

    document = write(folder, out, form, base)
    parts = document.get("parts") or {"": document}
    lines = [f"wrote {out} ({form.name}, for {form.goes_to})"]
    for part, written in parts.items():
        lines.append(
            f"{part + ': ' if part else ''}{written['modules']} modules, rank {written['rank']}{_filled(written)}"
        )
    return document, "\n".join(lines)


def _filled(written: dict[str, Any]) -> str:
    """Return how much was filled with zeros, and whether the base model's layers were known."""
    if "filled" not in written:
        return ", each module with its own"
    more = "" if written["layers_known"] else "; layers after the last one named are not known: give --base"
    return f" for all, {written['padded']} padded and {written['filled']} added as zeros{more}"
