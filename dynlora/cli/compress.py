"""The command that makes a finished adapter smaller: how small may it be, and where must it stay large."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dynlora.cli.options import (
    MOST_STEPS,
    ROWS,
    WHICH,
    OutFolder,
    PathOrName,
    Real,
    Whole,
    configured,
    formed,
    in_runs,
    reports,
)
from dynlora.config import RunConfig
from dynlora.config_files import load_config
from dynlora.errors import ConfigError, DynloraError
from dynlora.inference.forms import Form
from dynlora.jobs import helper_job
from dynlora.kinds.train.kind import lora_config
from dynlora.store.measurements import FEWEST, WEIGHTINGS, Compressed, Half, Size
from dynlora.store.schema import command_text, run_folder
from dynlora.store.summary import recorded_adapter, run_summary

TOLERANCE = 0.005
"""Largest increase of the held-out loss in nats that counts as none, unless told otherwise."""

MOST_NATS = 1000.0
"""Largest tolerance: no useful loss is so large."""


@click.command()
@click.argument("run_id", metavar="ID|FOLDER", type=PathOrName())
@click.option(
    "--tolerance",
    type=Real(0, MOST_NATS),
    default=None,
    metavar="NATS",
    help=f"Keep the smallest adapter shown to cost at most this; the default is {TOLERANCE}.",
)
@click.option(
    "--budget",
    type=Real(0, 1, above=True),
    default=None,
    metavar="FRACTION",
    help="Keep this fraction of the adapter's parameters instead.",
)
@click.option(
    "--recover",
    type=Whole(1, MOST_STEPS),
    default=None,
    metavar="STEPS",
    help="Queue a run of so many steps that starts from the adapter at this size.",
)
@click.option("--curve", is_flag=True, help="Measure every size, and the other ways to choose, too.")
@click.option("--out", type=OutFolder(), default=None, help="Write the adapter: folder or .zip file.")
@ROWS
@click.option(
    "--weighting",
    type=click.Choice(WEIGHTINGS),
    default=WEIGHTINGS[0],
    show_default=True,
    help="What a component is measured by: loss, inputs (the module's output) or plain (singular values).",
)
@WHICH
@formed
@configured
@in_runs
@reports
def compress(**options: Any) -> Any:
    """Make a trained adapter smaller without training.

    ID is a run; FOLDER is an adapter that PEFT wrote, whose base model and rows --set or --config name.
    """
    del options["name"]  # of a run, and this makes none
    return shrink(Request(**options))


@dataclass(frozen=True)
class Request:
    """The command's arguments; see there."""

    run_id: str
    tolerance: float | None
    budget: float | None
    recover: int | None
    curve: bool
    out: Path | None
    rows: int
    weighting: str
    which: str
    form: Form
    config: Path | None
    overrides: tuple[str, ...]
    runs_dir: Path

    @property
    def limit(self) -> float:
        """Largest increase of the loss that counts as none, nats."""
        return TOLERANCE if self.tolerance is None else self.tolerance

    @property
    def name(self) -> str:
        """Name of the folder that the adapter comes from."""
        return Path(os.path.expanduser(self.run_id)).resolve().name if self.is_brought else self.run_id

    @property
    def adapter(self) -> Path | None:
        """The folder that PEFT wrote: the one that is named, or that of a recorded run; None for a run of our own."""
        folder = Path(os.path.expanduser(self.run_id))
        if (folder / "adapter_config.json").is_file():
            return folder
        return None if self.recorded is None else recorded_adapter(self.recorded)

    @property
    def recorded(self) -> Path | None:
        """The folder of a run that was recorded and left its adapter; None for anything else."""
        with suppress(DynloraError):
            folder = run_folder(self.runs_dir, self.run_id)
            return folder if recorded_adapter(folder) else None
        return None

    @property
    def is_brought(self) -> bool:
        """Whether the adapter is a folder that PEFT wrote, and no run that was trained here."""
        return self.adapter is not None


def shrink(request: Request) -> tuple[Any, str]:
    """Measure sizes, choose one, write it to `out`, and report.

    Raises:
        ConfigError: when the arguments contradict each other, or nothing was good enough to be written.
    """
    from dynlora.inference.compress import queue_recovery, write_size

    _check(request)
    subject = _subject(request)
    folder = None if request.is_brought else run_folder(request.runs_dir, request.run_id)
    sizes = subject.sizes(request.which, _plan(request))
    measured = _last(_until_worse(sizes, None if request.curve or request.budget else request.limit))
    chosen = _chosen(measured, request)
    if request.recorded is not None:
        measured = measured.model_copy(update={"step": run_summary(request.recorded).step})
    run = folder or request.recorded
    if run is not None and request.curve:  # a part of the sizes says nothing of the smallest that is good enough
        _keep(run, measured)
    if chosen is None and (request.out is not None or request.recover is not None):
        raise ConfigError(f"--tolerance {request.limit:g}: no size was shown good enough; raise it, or give --budget")
    written = made = None
    if request.out is not None and chosen is not None:
        written = write_size(
            subject, request.out, chosen, run=folder, which=request.which, name=request.name, form=request.form
        )
    if request.recover is not None and chosen is not None:
        made = queue_recovery(
            subject, measured, chosen, request.recover, run=folder, name=request.name, runs_dir=request.runs_dir
        )
    document = {"id": request.run_id, **_document(measured, chosen, request), "written": written, "recovery": made}
    if chosen is not None and run is not None:
        document["chosen"]["lora_config"] = lora_config(run_summary(run), measured.ranks_of(chosen))
    return document, "\n".join(_lines(measured, chosen, request, made))


def _check(request: Request) -> None:
    """Refuse arguments that contradict each other, before anything is loaded."""
    if request.tolerance is not None and request.budget is not None:
        raise ConfigError("--budget: a size is given by --budget or found by --tolerance; give one of them")
    if not request.is_brought and (request.config is not None or request.overrides):
        raise ConfigError("--set: a run brings its own configuration; --set and --config are for a PEFT folder")


def _subject(request: Request) -> Any:
    """Return the adapter that is compressed, loaded with its model and data; something is left at the given size."""
    from dynlora.inference.compress import Compression

    if request.is_brought:
        from dynlora.inference.gated_adapter import load_folder

        settings = _settings(request)
        model, data = load_folder(request.adapter or Path(request.run_id), settings)
        subject = Compression.of_model(settings, model, data, rows=request.rows, weighting=request.weighting)
    else:
        folder = run_folder(request.runs_dir, request.run_id)
        subject = Compression.of_run(folder, which=request.which, rows=request.rows, weighting=request.weighting)
    if request.budget is not None:
        subject.check_share(request.budget)
    return subject


def _settings(request: Request) -> RunConfig:
    """Return what names base model and rows of a brought adapter; a recorded run knows its base model.

    Raises:
        ConfigError: when nothing names the rows of a recorded run.
    """
    if request.recorded is None:
        return load_config(request.config, request.overrides)
    if request.config is None and not any(one.startswith(("data.path=", "data.name=")) for one in request.overrides):
        raise ConfigError(
            f"compress {request.run_id}: the run was recorded, so its dataset is not available; add "
            "--set data.path=FILE, and data.text and data.label where they are named otherwise"
        )
    base = run_summary(request.recorded).config["model"]["name"]
    return load_config(request.config, [f"model.name={base}", *request.overrides])


def _plan(request: Request) -> list[tuple[str, float]]:
    """Return the sizes to measure: method and share, the largest first."""
    from dynlora.inference.compress import OFFERED, SHARES, whole_curve

    plan = (
        whole_curve() if request.curve else [] if request.budget is not None else [(OFFERED, share) for share in SHARES]
    )
    if request.budget is not None and (OFFERED, request.budget) not in plan:
        plan.append((OFFERED, request.budget))
    return sorted(plan, key=lambda one: -one[1])


def _until_worse(steps: Iterable[Compressed], tolerance: float | None) -> Iterator[Compressed]:
    """Yield what is known until a size fails, where one is looked for: the sequence of tests ends there."""
    for now in steps:
        helper_job.tell(len(now.sizes), now.planned, "sizes measured")
        if sys.stderr.isatty():
            click.echo(f"\r{len(now.sizes)} of at most {now.planned} sizes measured", nl=False, err=True)
        yield now
        if tolerance is not None and now.sizes and now.sizes[-1].chosen_on.high > tolerance:
            break
    if sys.stderr.isatty():
        click.echo(err=True)


def _last(steps: Iterable[Compressed]) -> Compressed:
    *_, last = steps
    return last


def _chosen(compressed: Compressed, request: Request) -> Size | None:
    """Return the size that was asked for."""
    if request.budget is None:
        return compressed.smallest(request.limit)
    return next(size for size in compressed.of_method() if size.share == request.budget)


def _keep(folder: Path, compressed: Compressed) -> None:
    """Keep the curve for the pages, which offer sizes of the last adapter."""
    from dynlora.analysis.retention import compress_target

    if compressed.which == "last":
        compressed.write(compress_target(folder))


def _document(compressed: Compressed, chosen: Size | None, request: Request) -> dict[str, Any]:
    """Return what `--json` prints."""
    whole = compressed.whole
    return {
        "which": compressed.which,
        "step": compressed.step,
        "weighting": compressed.weighting,
        "rows": compressed.rows,
        "tolerance": request.limit if request.budget is None else None,
        "full": {"loss": whole.loss, "parameters": compressed.parameters, "metrics": dict(whole.metrics)},
        "curve": [_point(size) for size in compressed.sizes],
        "chosen": None if chosen is None else {**_point(chosen), "ranks": compressed.ranks_of(chosen)},
    }


def _point(size: Size) -> dict[str, Any]:
    """Return a size on the rows that it was not chosen on; low and high bound the difference to the whole adapter."""
    worth = size.reported_on.model_dump()
    return {"method": size.method, "share": size.share, "parameters": size.parameters, **worth}


def _lines(
    compressed: Compressed, chosen: Size | None, request: Request, made: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Yield the conclusion, what to do next, and the sizes."""
    if chosen is None:
        judged = compressed.rows // 2
        yield f"No size was shown to cost at most {request.limit:g} nats on {judged:,} examples: keep all of it."
    else:
        yield from _conclusion(compressed, chosen, request)
        if request.out is None and made is None:
            yield f"next: {_next(request, chosen)}"
    if request.out is not None:
        yield f"wrote {request.out}, an adapter that PEFT loads"
    if made is not None:
        yield f"queued {made['id']}, {made['steps']:,} steps that start from this adapter"
    yield "share   parameters   method    loss     difference (95 % CI)"
    for size in compressed.sizes:
        worth = size.reported_on
        yield f"{size.share:5.0%} {size.parameters:12,}   {size.method:8} {worth.loss:8.4f}   {_signed(worth)}"


def _next(request: Request, chosen: Size) -> str:
    """Return the command that writes the chosen size: what was asked beside the size is asked again."""
    context = click.get_current_context()
    again = [part for one in request.overrides for part in ("--set", one)]
    again += [] if request.config is None else ["--config", str(request.config)]
    for name in ("rows", "weighting", "which"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            again += [f"--{name}", str(context.params[name])]
    size = ["--budget", f"{chosen.share:g}", "--out", "adapter-small"]
    return command_text("compress", request.run_id, *size, *again, runs_dir=request.runs_dir)


def _conclusion(compressed: Compressed, chosen: Size, request: Request) -> Iterator[str]:
    """Yield what a size keeps and costs, and what that rests on."""
    seen, judged = compressed.rows - compressed.rows // 2, compressed.rows // 2
    fraction = chosen.parameters / max(1, compressed.parameters)
    yield (
        f"Keep {fraction:.0%} of the parameters ({chosen.parameters:,} of {compressed.parameters:,}): held-out loss "
        f"{_signed(chosen.reported_on)} on {seen:,} examples{_scores(compressed, chosen)}"
    )
    if seen < FEWEST:
        yield f"{seen:,} held-out examples are too few to rely on"
    if request.budget is None:
        yield f"the smallest size shown to cost at most {request.limit:g} nats on {judged:,} other examples"
        if chosen.reported_on.high > request.limit:
            yield f"on the {seen:,} it is not shown to be within {request.limit:g} nats: its interval ends above"


def _signed(worth: Half) -> str:
    return f"{worth.difference:+.4f} (95 % CI {worth.low:+.4f} to {worth.high:+.4f})"


def _scores(compressed: Compressed, chosen: Size) -> str:
    """Return the accuracy, or whatever the task has in its place, of the size and of the whole."""
    for name in ("accuracy", "pearson", "token_accuracy"):
        if name in compressed.whole.metrics and name in chosen.reported_on.metrics:
            after, before = chosen.reported_on.metrics[name], compressed.whole.metrics[name]
            return f", {name.replace('_', ' ')} {after:.3f} against {before:.3f}"
    return ""
