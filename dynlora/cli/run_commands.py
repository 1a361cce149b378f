"""Commands on runs that exist: each returns a document (plain values) and the words for a person."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from dynlora import assets
from dynlora.analysis.run_summary import format_metrics, main_metric
from dynlora.analysis.seed_groups import flat
from dynlora.cli.kinds import facts_of
from dynlora.cli.options import (
    RUN_ID,
    STDOUT,
    WHICH,
    OutFile,
    OutFolder,
    files_into,
    in_rows,
    in_runs,
    of_run,
    progress,
    reports,
    write_out,
)
from dynlora.cli.remote import format_trackers, tracker_rows
from dynlora.errors import ConfigError, DynloraError
from dynlora.jobs import helper_job, launch
from dynlora.kinds.run_kind import registry
from dynlora.safe_files import is_empty, output_folder, read_plain
from dynlora.store.schema import command_text, run_folder
from dynlora.store.summary import readable, run_summary

Report = tuple[Any, str]

COMPARED = (
    "id",
    "name",
    "status",
    "strategy",
    "fidelity",
    "seed",
    "step",
    "metrics",
    "best",
    "params",
    "ranks",
    "time",
)
"""What `compare` shows of each run."""

UNUSUAL = "\t(unusual: the ensemble members disagree)"
"""What is said of a text that is unlike the data."""


def format_method(row: Mapping[str, Any]) -> str:
    """Return a run's strategy with its fidelity, which belongs wherever methods are side by side."""
    name = row["strategy"] or "?"
    return f"{name} ({row['fidelity']})" if row["fidelity"] else name


def format_summary(document: Mapping[str, Any]) -> str:
    """Return a run in a few lines, as its kind words them."""
    document = in_rows(document)
    kind = registry().get(document["kind"])
    standing = f"{document['status']} at step {document['step']}/{document['max_steps']}, of an unknown kind"
    return f"{document['id']}  {document['name']}\n{standing if kind is None else kind.standing(document)}"


def show_document(folder: Path) -> dict[str, Any]:
    """Return a run as `show --json` prints it; the model's folder is resolved now, not remembered."""
    document = run_summary(folder).model_dump()
    try:
        document["model_path"] = str(assets.resolve_model(document["model"] or ""))
    except DynloraError:
        document["model_path"] = None
    return document


@click.command()
@RUN_ID
@click.option("--now", is_flag=True, help="End the process at once; steps since the last checkpoint are lost.")
@in_runs
@reports
def stop(*, run_id: str, now: bool, runs_dir: Path) -> Report:
    """Stop a run: it finishes its step and saves its state. A second stop changes nothing."""
    if not now:
        status = launch.stop(runs_dir, run_id)
        saving = "; it finishes its step and saves its state; a second stop changes nothing"
        return {"id": run_id, "status": status}, f"{run_id}: {status}{saving if status == 'stopping' else ''}"
    status = launch.end_now(runs_dir, run_id)
    summary = run_summary(run_folder(runs_dir, run_id))
    lost = max(0, summary.step - (summary.checkpoint_step or 0)) if status == "interrupted" else 0
    words = f"; {lost} steps since the checkpoint of step {summary.checkpoint_step or 0} are lost" if lost else ""
    return {"id": run_id, "status": status, "lost_steps": lost}, f"{run_id}: {status}{words}"


@click.command()
@RUN_ID
@in_runs
@reports
def delete(*, run_id: str, runs_dir: Path) -> Report:
    """Move a run to the trash of the runs folder."""
    launch.delete(runs_dir, run_id)
    return {"id": run_id, "status": "deleted"}, f"moved {run_id} to the trash of {runs_dir}"


@click.command()
@click.option("--add", multiple=True, metavar="TAG", help="Add a tag; repeat the option for more.")
@click.option("--remove", multiple=True, metavar="TAG", help="Remove a tag; repeat the option for more.")
@click.option("--note", default=None, help="Note of the run; an empty text removes it.")
@of_run
@reports
def tag(*, folder: Path, add: tuple[str, ...], remove: tuple[str, ...], note: str | None) -> Report:
    """Change the tags and note of a run, also while it trains; without options, show them."""
    from dynlora.store.notes import annotate_notes

    notes = annotate_notes(folder, add=add, remove=remove, note=note)
    words = f"{folder.name}: {', '.join(in_rows(notes.tags)) or 'no tags'}" + (f"\n{notes.note}" if notes.note else "")
    return {"id": folder.name, "tags": list(notes.tags), "note": notes.note}, words


@click.command()
@click.option("--where", default="", metavar="QUERY", help="Only matching runs, such as 'accuracy>0.85 or tag:paper'.")
@in_runs
@reports
def runs(*, where: str, runs_dir: Path) -> Report:
    """List all runs, or the runs that match a search."""
    from dynlora.store.catalogue import run_rows
    from dynlora.store.search import found_rows

    launch.wake(runs_dir)
    keep = ("id", "name", "status", "strategy", "model", "data", "seed", "step", "max_steps", "metrics", "tags")
    every = run_rows(runs_dir)
    matching = found_rows(where, every)
    rows = [{key: row.get(key) for key in keep} for row in matching]
    lines = [
        f"{row['id']:30} {row['status']:12} {row['step'] or 0:>6}/{row['max_steps'] or 0:<6} "
        f"{format_method(row):28} {format_metrics(row['metrics'] or {}, main_metric(row)[0]):24} {row['name'] or ''}"
        for row in in_rows(matching)
    ]
    start = command_text("train", runs_dir=runs_dir)
    empty = f"none of {len(every)} runs matches" if every else f"no runs in {runs_dir}; start one with `{start}`"
    return rows, "\n".join(lines) or empty


@click.command()
@of_run
@reports
def show(*, folder: Path) -> Report:
    """Show one run."""
    launch.wake(folder.parent)
    document = {**show_document(folder), "trackers": tracker_rows(folder)}
    words = format_summary(document) + format_trackers(document["trackers"])
    facts = facts_of(folder, document)
    conclusion = facts["conclusion"]
    return {**document, **facts}, f"{words}\n{in_rows(conclusion)}" if conclusion else words


@click.command()
@click.argument("run_ids", metavar="ID...", nargs=-1, required=True)
@in_runs
@reports
def compare(*, run_ids: tuple[str, ...], runs_dir: Path) -> Report:
    """Compare the settings and results of runs."""
    folders = [run_folder(runs_dir, run_id) for run_id in run_ids]
    summaries, damaged = readable(folders)
    documents = [show_document(folder) for folder in folders if folder in summaries]
    configs = [flat(run["config"]) for run in documents]
    keys = sorted({key for config in configs for key in config})
    differing = {
        key: [config.get(key) for config in configs] for key in keys if len({str(c.get(key)) for c in configs}) > 1
    }
    rows = [{key: run[key] for key in COMPARED} for run in documents]
    document = {"runs": rows, "config_differences": differing, **({"damaged": damaged} if damaged else {})}
    lines = [
        *in_rows(damaged),
        *(
            f"{run['id']}  {run['name']}  {format_method(run)}  {format_metrics(run['metrics'], main_metric(run)[0])}"
            for run in in_rows(documents)
        ),
    ]
    lines += [f"  {key}: " + " | ".join(map(str, values)) for key, values in in_rows(differing).items()]
    return document, "\n".join(lines)


@click.command()
@click.option("--text", multiple=True, help="A text; repeat the option for more.")
@click.option("--text-pair", multiple=True, help="The second text of a pair, one per --text.")
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    default=None,
    help="CSV, JSON, JSONL, Parquet, Excel, or one text per line.",
)
@WHICH
@of_run
@reports
def predict(
    *, folder: Path, text: tuple[str, ...], text_pair: tuple[str, ...], path: Path | None, which: str
) -> Report:
    """Predict texts with the adapter of a run."""
    from dynlora.inference.session import answers_of_file, load_run

    if text_pair and len(text_pair) != len(text):
        raise ConfigError(f"--text-pair: {len(text_pair)} given for {len(text)} --text; give one for each --text")
    if path is None and not (text and all(item.strip() for item in text)):
        raise ConfigError("--text: is empty; give a text or --file")
    if path is None:
        rows = load_run(folder, which).answers(list(text), list(text_pair) or None)
    else:
        rows = answers_of_file(folder, path, which)
    lines = [f"{row['prediction']}\t{in_rows(row['text'])}{UNUSUAL if row.get('unusual') else ''}" for row in rows]
    return rows, "\n".join(lines)


@click.command()
@click.option("--split", default="validation", show_default=True, help="train or validation.")
@click.option("--baked", is_flag=True, help="Replace each gate by its mean, as in an export.")
@WHICH
@of_run
@reports
def evaluate(*, folder: Path, split: str, baked: bool, which: str) -> Report:
    """Evaluate the adapter of a run on a split of its data."""
    from dynlora.inference.session import evaluate_run

    result = evaluate_run(folder, split=split, baked=baked, which=which)
    return {"id": folder.name, **result}, f"{split}, {result['rows']:,} examples: {format_metrics(result['metrics'])}"


MAX_REPORTED = 50
"""Runs that one report compares, as many as the Compare page takes."""


def _distinct(run_ids: tuple[str, ...], what: str) -> list[str]:
    """Return each id once; more than fit are refused."""
    ids = list(dict.fromkeys(run_ids))
    if len(ids) > MAX_REPORTED:
        raise ConfigError(f"ID: has {len(ids)} runs, at most {MAX_REPORTED} are allowed in {what}; give fewer")
    return ids


@click.command()
@click.argument("run_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--out", type=OutFile(), required=True, help="HTML file to write; - is standard output.")
@in_runs
@reports
def report(run_ids: tuple[str, ...], out: Path, runs_dir: Path) -> Any:
    """Write a report of one run, or of several runs compared, as one HTML file that works offline."""
    from dynlora.viz.report import comparison_report, run_report

    ids = _distinct(run_ids, "a report")
    launch.wake(runs_dir)
    folders = [run_folder(runs_dir, run_id) for run_id in ids]
    page = run_report(folders[0]) if len(folders) == 1 else comparison_report(folders)
    write_out(out, page)
    document = {"runs": ids, "out": str(out), "bytes": len(page)}
    return document, f"wrote {out}, {len(page) / 1e6:.1f} MB; open it in a browser"


@click.command()
@click.option(
    "--out",
    type=OutFolder(lambda out: output_folder(out, "--out", lambda folder: True)),
    default=Path(),
    help="Folder to write to; by default the current one.",
)
@click.option("--dark", is_flag=True, help="Draw the pictures light on dark.")
@of_run
@reports
def share(folder: Path, out: Path, dark: bool) -> Any:
    """Write what can be shared of a run: pictures with its verdict (PNG, and GIF up to 3 MB), and its report."""
    from dynlora.viz.report import Shared, shared_files

    launch.wake(folder.parent)
    files, missing = {}, {}
    with files_into(out):
        for one in shared_files(folder, is_dark=dark, progress=partial(progress, "frames drawn")):
            if isinstance(one, Shared):
                write_out(out / one.file, one.content)
                files[one.file] = {"what": one.name, "bytes": len(one.content), "alt": one.alt}
            else:
                missing[one.name] = one.reason
    lines = [f"wrote {out / name}, {file['bytes'] / 1e6:.1f} MB" for name, file in files.items()]
    lines += [f"{name}: {reason}" for name, reason in missing.items()]
    return {"id": folder.name, "out": str(out), "files": files, "missing": missing}, "\n".join(lines)


_GALLERY = "<p>Written by dynlora "
"""What the first page of every gallery says."""


def _takes_gallery(folder: Path) -> bool:
    """Say whether a folder is empty, or a gallery that may be written again."""
    return is_empty(folder) or _GALLERY in (read_plain(folder / "index.html", 2**24) or "")


@click.command()
@click.argument("out", type=OutFolder(lambda out: output_folder(out, "OUT", _takes_gallery)))
@click.argument("run_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--title", default="Runs of dynlora", show_default=True, help="Heading of the first page.")
@in_runs
@reports
def gallery(out: Path, run_ids: tuple[str, ...], title: str, runs_dir: Path) -> Any:
    """Write a static site of runs to the folder OUT: a first page, moving pictures, reports, and a comparison."""
    from dynlora.viz.report import gallery as files_of

    ids = _distinct(run_ids, "a gallery")
    folders = [run_folder(runs_dir, run_id) for run_id in ids]
    sizes = {}
    with files_into(out):
        for name, page in files_of(folders, title):
            write_out(out / name, page)
            sizes[name] = len(page)
            if name.removesuffix(".html") in ids:
                helper_job.tell(ids.index(name.removesuffix(".html")) + 1, len(ids), "runs written")
    document = {"runs": ids, "out": str(out), "files": sizes}
    return document, f"wrote {len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB; open {out / 'index.html'}"


@click.command()
@click.option(
    "--signal", required=True, help=("rank, importance, gate, grad_norm, delta_norm or another recorded signal.")
)
@click.option("--format", "format_", type=click.Choice(["csv", "parquet", "json"]), default="csv", show_default=True)
@click.option("--out", type=OutFile(), default=STDOUT, show_default=True, help="File to write; - is standard output.")
@of_run
def signals(folder: Path, signal: str, format_: str, out: Path) -> None:
    """Write one signal as a wide table: column step, then one per module."""
    from dynlora.store import queries, whole_tables

    try:
        frame = queries.signal_frame(folder, signal)
    except KeyError as error:
        raise error if isinstance(error, DynloraError) else ConfigError(f"--signal {signal}: {error.args[0]}") from None
    write_out(out, whole_tables.encode(frame, format_))
