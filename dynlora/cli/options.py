"""What several commands share: how they report, where the runs are, how a config is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from dynlora.cli.terminal import shown


def reports(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json; the function returns a document and how to say it in words."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @wraps(function)
    def wrapped(as_json: bool, **options: Any) -> None:
        document, words = function(**options)
        click.echo(json.dumps(document, indent=2, allow_nan=False, default=str) if as_json else shown(words))

    return wrapped


DEFAULT_RUNS_DIR = Path("runs")
"""Where runs lie unless a command is told otherwise."""


def in_runs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --runs-dir."""
    option = click.option(
        "--runs-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_RUNS_DIR,
        show_default=True,
        help="Folder of the runs.",
    )
    return option(function)


def configured(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config, --set and --name."""
    for option in (
        click.option("--name", default=None, help="Display name of the run."),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one key, such as train.lr=1e-3."
        ),
        click.option(
            "--config", type=click.Path(path_type=Path), default=None, help="YAML file, such as config.yaml of a run."
        ),
    ):
        function = option(function)
    return function
