"""`dynlora data check`: every fault of a file at once, by line, without torch; `dynlora data tokens`: its tokens."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dynlora.cli.options import configured, in_rows, printable, reports


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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def check_data(
    path: Path, text: str | None, text_pair: str | None, label: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """List every fault of a data file by line, and the repair of each.

    Exit code: 0 no faults, 1 faults were found, 2 bad input.
    """
    columns = {"text": text, "text_pair": text_pair, "label": label}
    result = check_file(path, {key: name for key, name in columns.items() if name is not None}, overrides)
    document = asdict(result)
    click.echo(json.dumps(document, indent=2, default=str) if as_json else printable(in_words(document)))
    sys.exit(1 if result.faults else 0)


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
    guess = scan.guess(path, open_columns, config.data.encoding)
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
