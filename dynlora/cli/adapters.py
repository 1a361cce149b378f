"""Commands for adapter folders of anyone: what is in one, how engines read it, and the same in another form."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynlora.cli.options import formed, reports
from dynlora.errors import ConfigError
from dynlora.peft_adapter.forms import Form

if TYPE_CHECKING:
    from dynlora.peft_adapter import Adapter
    from dynlora.peft_adapter.engines import Reading


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
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new or empty folder, or a .zip file.")
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
