"""Commands about files that travel: a report or a table to take away, an adapter that somebody brought along."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynlora.cli.options import STDOUT, OutFile, in_runs, reports, write_out
from dynlora.errors import ConfigError, DynloraError

if TYPE_CHECKING:
    from dynlora.peft_adapter import Adapter

MAX_REPORTED = 50
"""Runs that one report compares, as many as the Compare page takes."""


@click.command()
@click.argument("run_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--out", type=OutFile(), required=True, help="HTML file to write; - is standard output.")
@in_runs
@reports
def report(run_ids: tuple[str, ...], out: Path, runs_dir: Path) -> Any:
    """Write a report of one run, or of several runs compared, as one HTML file that works offline."""
    from dynlora.jobs import launch
    from dynlora.store.schema import run_folder
    from dynlora.viz.report import comparison_report, run_report

    ids = list(dict.fromkeys(run_ids))
    if len(ids) > MAX_REPORTED:
        raise ConfigError(f"ID: has {len(ids)} runs, at most {MAX_REPORTED} are allowed in a report; give fewer")
    launch.wake(runs_dir)
    folders = [run_folder(runs_dir, run_id) for run_id in ids]
    page = run_report(folders[0]) if len(folders) == 1 else comparison_report(folders)
    write_out(out, page)
    document = {"runs": ids, "out": str(out), "bytes": len(page)}
    return document, f"wrote {out}, {len(page) / 1e6:.1f} MB; open it in a browser"


@click.command()
@click.argument("run_id", metavar="ID")
@click.option(
    "--signal", required=True, help=("rank, importance, gate, grad_norm, delta_norm or another recorded signal.")
)
@click.option("--format", "format_", type=click.Choice(["csv", "parquet", "json"]), default="csv", show_default=True)
@click.option("--out", type=OutFile(), default=STDOUT, show_default=True, help="File to write; - is standard output.")
@in_runs
def signals(run_id: str, signal: str, format_: str, out: Path, runs_dir: Path) -> None:
    """Write one signal as a wide table: column step, then one per module."""
    from dynlora.store import queries, tables
    from dynlora.store.schema import run_folder

    folder = run_folder(runs_dir, run_id)
    try:
        frame = queries.signal_frame(folder, signal)
    except KeyError as error:
        raise error if isinstance(error, DynloraError) else ConfigError(f"--signal {signal}: {error.args[0]}") from None
    write_out(out, tables.encode(frame, format_))


@click.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@reports
def inspect(folder: Path) -> Any:
    """Show ranks, norms and spectra of any PEFT adapter (LoRA, AdaLoRA)."""
    from dynlora.peft_adapter import read_adapter

    adapter = read_adapter(folder)
    return {"folder": str(folder), **asdict(adapter)}, _format_adapter(adapter)


def _format_adapter(adapter: Adapter) -> str:
    """Return an adapter as a sentence, a line per module, and what the numbers do not show."""
    from dynlora.analysis import adapter_frames

    modules = adapter_frames.described(adapter)
    table = adapter_frames.table(modules).drop(columns="name")
    lines = table.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.4g}")
    return "\n".join([adapter_frames.overview(adapter, modules), lines, *adapter.notes])
