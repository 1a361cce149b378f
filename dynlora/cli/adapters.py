"""Commands for files of anyone: adapter folders, what is in one and who reads it, and the faults of data files."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynlora import assets
from dynlora.cli.options import WHICH, OutFolder, configured, formed, in_rows, of_run, reports
from dynlora.cli.run_commands import Report
from dynlora.errors import ConfigError
from dynlora.inference.forms import Form
from dynlora.kinds.run_kind import kind_of_run
from dynlora.store.summary import recorded_adapter

if TYPE_CHECKING:
    from dynlora.peft_adapter import Adapter
    from dynlora.peft_adapter.engines import Reading


@click.group()
def data() -> None:
    """Look at data files."""


@data.command("check")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--text", default=None, help="Column of the text; the default is guessed from the names.")
@click.option("--text-pair", default=None, help="Column of the second text of a pair.")
@click.option("--label", default=None, help="Column of the label; the default is guessed from the names.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the run, such as data.repair=[drop_duplicates], data.max_length=256 or seed=1.",
)
@reports
def check_data(
    path: Path, text: str | None, text_pair: str | None, label: str | None, overrides: tuple[str, ...]
) -> Any:
    """List every fault of a data file by line, and the repair of each.

    Exit code: 0 no faults, 1 faults were found, 2 bad input.
    """
    columns = {"text": text, "text_pair": text_pair, "label": label}
    result = check_file(path, {key: name for key, name in columns.items() if name is not None}, overrides)
    document = asdict(result)
    return document, in_words(document), int(bool(result.faults))


@data.command()
@configured
@reports
def tokens(*, config: Path | None, overrides: tuple[str, ...], name: str | None) -> tuple[dict[str, Any], str]:
    """Show the tokens that a language model sees of a few examples, and which of them are in the loss.

    The chat template is applied, and examples that lose their completion to data.max_length are listed by line.
    """
    from dynlora.cli.commands import fetch, read_config

    settings = read_config(config, overrides, name)
    fetch(settings)
    from dynlora.training.preflight import format_preview, token_preview

    preview = token_preview(settings)
    return preview, format_preview(preview)


def check_file(path: Path, columns: dict[str, str], overrides: tuple[str, ...]) -> Any:
    """Return what the check of a file found.

    Args:
        path: of a file or folder.
        columns: names of columns by the keys of section `data`; those left out are guessed.
        overrides: `key=value` each.

    Raises:
        ConfigError: when a setting cannot be used.
        DataError: when the file cannot be read.
    """
    from dynlora.config import parse_config
    from dynlora.config_files import set_key, split_override
    from dynlora.data_files import scan
    from dynlora.errors import ConfigError

    values: dict[str, Any] = {"data": {}}
    for override in overrides:
        key, value = split_override(override)
        if key in ("data.path", "data.name"):
            raise ConfigError(f"--set {override}: the file to check is given as FILE; leave {key} out")
        set_key(values, key, value)
    values["data"] = {**values["data"], **columns, "path": str(path)}
    config = parse_config(values)
    open_columns = [key for key in ("text", "label") if key not in values["data"]]
    guess = scan.guess(path, open_columns, config.data.encoding, config.data.repair or ())
    section = config.data.model_copy(update=guess)
    return scan.look(path, scan.wanted_of(section, config.seed))


def in_words(result: dict[str, Any]) -> str:
    """Return what was found for a person: the conclusion first, then the faults, then what was read."""
    options = _repair_options(result)
    result = in_rows(result)
    lines = [result["conclusion"], ""]
    for fault in result["faults"]:
        lines.append(f"{fault['title']}: {fault['sentence']}")
        lines += [f"    {row['place']}: {_cells(row)}" for row in fault["examples"][:3]]
    lines += [item["sentence"] for item in result["repaired"]]
    sizes = ", ".join(f"{count:,} {part}" for part, count in result["rows"].items())
    named = ", ".join(f"{key}={name}" for key, name in _columns(result["columns"]).items())
    lines += [f"Rows: {sizes}. Columns: {named}.", *(f"Read: {note}." for note in result["notes"])]
    return "\n".join(line for line in [*lines, *options] if line or result["faults"])


def _repair_options(report: dict[str, Any]) -> list[str]:
    """Return the options that repair: what training refuses first; a warning may be about rows that are right."""
    kinds = {fault["refuses"] for fault in report["faults"] if fault["repair"] is not None}
    lines = [f"Repair what training refuses: {setting(report['needed'])}"] if True in kinds else []
    if False in kinds:
        lines.append(f"Review the warnings first. Then, with their repairs: {setting(report['repairs'])}")
    return lines


def _columns(columns: dict[str, Any]) -> dict[str, str]:
    """Return the columns by the settings of section `data` that name them."""
    is_pair = columns.get("is_generative") and columns.get("text_pair") is not None
    words = {"text": "prompt", "text_pair": "completion"} if is_pair else {}
    return {words.get(key, key): name for key, name in columns.items() if name is not None and key != "is_generative"}


def _cells(row: dict[str, str]) -> str:
    """Return text and label, or completion, of an example."""
    return ", ".join(
        repr(row[key][:most]) for key, most in (("text", 60), ("label", 40), ("completion", 40)) if key in row
    )


def setting(repairs: list[Any]) -> str:
    """Return the option of the command line that carries out repairs."""
    import shlex

    from dynlora.config_files import value_text

    return f"--set {shlex.quote('data.repair=' + value_text(repairs))}"


@click.command()
@click.option("--out", type=OutFolder(), default=None, help="A new or empty folder, or a .zip file.")
@formed
@WHICH
@click.option(
    "--measure",
    type=click.Choice(["sample", "all"]),
    default="sample",
    show_default=True,
    help="On which held-out examples the effect of averaging the gates is measured.",
)
@click.option("--push-to", metavar="OWNER/NAME", default=None, help="Send it to this model repository of the hub, too.")
@click.option("--private", is_flag=True, help="Make that repository private where it is new.")
@of_run
@reports
def export(
    *,
    folder: Path,
    out: Path | None,
    form: Form,
    which: str,
    measure: str,
    push_to: str | None,
    private: bool,
) -> Report:
    """Export the adapter for PEFT, another engine, or merged into the model; reports the error from averaging gates."""
    if push_to is None:
        if out is None:
            raise ConfigError("--out: is missing; give a folder or a .zip file, or --push-to owner/name")
        if private:
            raise ConfigError("--private: is for --push-to alone; leave it out")
        return _exported(folder, out, form, which, measure)
    from dynlora.remote.place import find_repository, send_folder

    if recorded_adapter(folder):
        raise ConfigError(
            f"--push-to {push_to}: {folder.name} was recorded, and its adapter is as PEFT wrote it; send it with "
            "PEFT's push_to_hub"
        )
    if out is not None and out.suffix.lower() == ".zip":
        raise ConfigError(f"--out {out}: must be a folder with --push-to; give a folder, or leave it out")
    _check_base(folder, push_to, form)
    repository = find_repository(push_to, format=form.format, private=private)
    with tempfile.TemporaryDirectory(prefix="dynlora-push-") as spare:
        place = out or Path(spare) / "export"
        exported, words = _exported(folder, place, form, which, measure)
        exported["pushed"] = send_folder(place, repository, f"{folder.name}: {which} adapter ({form.name})")
    if out is None:
        exported["folder"], words = None, words.replace(f"wrote {place} ", "exported ", 1)
    return exported, f"{words}\nsent to {exported['pushed']['url']}, commit {exported['pushed']['commit'][:12]}"


def _check_base(folder: Path, push_to: str, form: Form) -> None:
    """Refuse to send an adapter whose base model is a folder of this machine: nobody else could load it."""
    base = assets.shared_model_name(kind_of_run(folder).model_config(folder).model.name)
    if not form.holds_model and Path(base).is_absolute():
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
    from dynlora.peft_adapter.read import read_header

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
    from dynlora.inference.forms import convert as write

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
