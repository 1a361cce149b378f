"""Commands that start a run, and those on what there is to start it with. Torch is imported late."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from dynlora import assets, discovery
from dynlora.analysis import advice
from dynlora.cli.kinds import resumed
from dynlora.cli.options import (
    MOST_STEPS,
    STDOUT,
    OutFile,
    Real,
    Whole,
    configured,
    exit_code,
    in_rows,
    in_runs,
    reports,
    write_out,
)
from dynlora.cli.run_commands import Report, format_summary, show_document
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import check_data_path, read_yaml, set_key, split_override, with_run_folder
from dynlora.data_files.reader import check_sides
from dynlora.errors import ConfigError, RunNotFoundError
from dynlora.jobs import launch
from dynlora.jobs.queue import LOG_NAME, claim, put_in_queue
from dynlora.jobs.spawn import log_from_here
from dynlora.jobs.trackers import check_trackers
from dynlora.kinds.train.kind import lora_config
from dynlora.store.schema import DEFAULT_RUNS_DIR, run_folder
from dynlora.store.summary import RunSummary


def read_config(config: Path | None, overrides: tuple[str, ...], name: str | None) -> RunConfig:
    """Return the config a command was given; --name wins over a name in the file."""
    values = read_yaml(config) if config is not None else {}
    for override in overrides:
        set_key(values, *split_override(override))
    if name is not None:
        values["name"] = name
    return parse_config(values)


def fetch(config: RunConfig) -> None:
    """Make model and data local before torch is loaded: what is missing is refused in seconds.

    Raises:
        AssetError: when a name cannot be resolved.
        ConfigError: when the data is an address.
        DataError: when the data is no file that can be read, and no folder.
    """
    if config.data.path is not None:
        check_data_path(config)
        check_sides(Path(os.path.expanduser(config.data.path)))
    assets.resolve_model(config.model.name)
    if config.data.path is None:
        assets.resolve_data(config.data.name or "")


def train(
    *,
    config: Path | None,
    overrides: tuple[str, ...],
    name: str | None,
    runs_dir: Path,
    queue: bool,
    progress: bool,
    stay: Callable[[Any, str], None] | None = None,
) -> tuple[Any, str, int]:
    """Train a run here, or queue it.

    Args:
        config: file of the settings, or None.
        overrides: `key=value` each.
        name: display name, or None.
        runs_dir: folder of the runs.
        queue: make a queued run instead.
        progress: draw a bar.
        stay: tells what was queued; this process then trains the run itself where it is next, as it has loaded model
            and data already. None leaves that to another process.
    """
    settings = with_run_folder(read_config(config, overrides, name), runs_dir)
    check_trackers(settings.log.to)
    fetch(settings)
    from dynlora.training import run

    if queue:
        from dynlora.training.run import plan

        planned = plan(settings)
        (folder,) = put_in_queue(runs_dir, [partial(planned.create, runs_dir, "queued")])
        document, words = {"id": folder.name, "status": "queued"}, f"queued {folder.name}"
        if stay is not None and claim(runs_dir, folder.name):
            stay(document, words)
            log_from_here(folder / LOG_NAME)
            return _ended(run.train_planned(planned, folder))
        launch.wake(runs_dir)
        return document, words, 0
    return _ended(run.train(settings, runs_dir, progress=progress))


def resume(*, run_id: str, runs_dir: Path, force: bool, progress: bool) -> tuple[Any, str, int]:
    """Continue a run here, whatever its kind."""
    return _ended(resumed(run_folder(runs_dir, run_id), force=force, progress=progress))


def _ended(outcome: Any) -> tuple[Any, str, int]:
    """Return summary, words and exit code of a run that ended; its folder may have been removed meanwhile."""
    try:
        document = show_document(outcome.folder)
    except RunNotFoundError:
        reason = outcome.error or "its folder was moved or removed during training"
        return {"id": outcome.folder.name, "status": "failed", "error": reason}, reason, 1
    words = format_summary(document)
    return document, f"{words}\n{outcome.error}" if outcome.error else words, exit_code(outcome)


@click.command()
@configured
@reports
def preflight(*, config: Path | None, overrides: tuple[str, ...], name: str | None) -> Report:
    """Check a config and estimate the cost of the run, without creating it."""
    settings = with_run_folder(read_config(config, overrides, name), DEFAULT_RUNS_DIR)
    fetch(settings)
    from dynlora.training.preflight import format_preflight
    from dynlora.training.preflight import preflight as look

    estimate = look(settings)
    return estimate, format_preflight(estimate)


@click.command()
@reports
def models() -> Report:
    """List the built-in models."""
    return _catalogue(assets.MODELS)


@click.command()
@reports
def datasets() -> Report:
    """List the built-in data sets."""
    return _catalogue(assets.DATASETS)


def _catalogue(items: Any) -> Report:
    """Return built-in assets as rows."""
    keys = ("name", "hub_id", "package", "licence", "description", "size", "cached", "needs")
    rows = [{key: _plain(getattr(item, key, None)) for key in keys} for item in items.values()]
    return rows, "\n".join(
        f"{row['name']:16} {row['size'] / 1e6:6.1f} MB  {row['licence']:10} {_at_hand(row):12} {row['description']}"
        for row in rows
    )


def _at_hand(row: dict[str, Any]) -> str:
    """Return whether a built-in asset is here, or what has to be installed first."""
    return "cached" if row["cached"] else f"needs [{row['needs']}]" if row["needs"] else "not downloaded"


def _plain(value: Any) -> Any:
    """Return a value JSON can hold; a package by its requirement, as pip would be told."""
    value = getattr(value, "requirement", value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


@click.command()
@click.argument("name", required=False)
@reports
def strategies(*, name: str | None) -> Report:
    """List the strategies; with NAME, the settings of one."""
    from dynlora import strategies as registry

    if name is not None:
        described = registry.describe(name)
        lines = [f"strategy.{one['name']}={one['default']}: {one['help']}" for one in described["fields"]]
        return described, "\n".join([described["summary"], *lines])
    rows = [registry.describe(one) for one in registry.registry()]
    return rows, "\n".join(
        f"{item['name']:16} {item['title']:20} {item['paper']} [{item['fidelity']}]" for item in rows
    )


@click.command()
@click.argument("run_id", metavar="[ID]", required=False)
@in_runs
@reports
def doctor(*, run_id: str | None, runs_dir: Path) -> Report:
    """Say what this machine can do; with the ID of a run, whether anything is wrong with it, and what to do."""
    return _machine(runs_dir) if run_id is None else _run_health(run_folder(runs_dir, run_id))


def _run_health(folder: Path) -> Report:
    """Return what the checks of a run find: does it learn, is the budget kept, did the loss fall."""
    from dynlora.analysis.health import outcome
    from dynlora.analysis.run_reading import read_run

    health = outcome(read_run(folder).evidence)
    document = {"id": folder.name, "conclusion": health.conclusion, **asdict(health)}
    lines = [f"{one.level.capitalize()}: {one.title}. {one.words}" for one in health.findings]
    return document, "\n".join(in_rows([health.conclusion, *lines, *health.details]))


def _machine(runs_dir: Path) -> Report:
    """Return what this machine can do, and whether everything needed is at hand."""
    import torch

    from dynlora.engine.loop.hardware import resolve_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = Path(os.path.realpath(runs_dir))
    facts = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "precision": resolve_precision("auto", device),
        "threads": torch.get_num_threads(),
        "models": {name: model.cached for name, model in assets.MODELS.items()},
        "datasets": {name: data.cached for name, data in assets.DATASETS.items()},
        "plugins": discovery.installed(),
        "missing_extras": [],  # none is needed any more; the key stays for scripts that read it
        "runs_dir": str(folder),
        "runs_dir_writable": os.access(folder if folder.exists() else folder.parent, os.W_OK),
    }
    return facts, "\n".join(f"{key}: {value}" for key, value in facts.items())


@click.command()
@click.option("--rate", is_flag=True, help="Suggest a learning rate instead, from a range test of the method.")
@click.option(
    "--budget",
    type=Real(0, 1, above=True),
    default=1.0,
    show_default=True,
    metavar="FRACTION",
    help="Of the parameters that uniform LoRA has at adapter.rank.",
)
@click.option("--leave-out", is_flag=True, help="Give no rank to the families that may be left out.")
@click.option("--steps", type=Whole(2, MOST_STEPS), default=None, help="Steps of the probe, or of a range test.")
@click.option("--no-timing", is_flag=True, help="Do not time steps without the lowest layers.")
@click.option(
    "--out", type=OutFile(), default=None, help="Write the answer (ranks: strategy.ranks_from); - is standard output."
)
@configured
@reports
def advise(*, rate: bool, **options: Any) -> Any:
    """Suggest modules and ranks, or a learning rate, from a short probe; nothing is trained to the end, no run made."""
    del options["name"]  # of a run, and this makes none
    return suggested_rate(**options) if rate else suggested(**options)


RATE_TAKES_NO = {"budget": "--budget", "leave_out": "--leave-out", "no_timing": "--no-timing"}
"""Options that are about ranks alone."""


def suggested_rate(
    *, config: Path | None, overrides: tuple[str, ...], steps: int | None, out: Path | None, **ranks: Any
) -> tuple[Any, str]:
    """Test rates, write what was asked for, and report.

    Raises:
        ConfigError: when the configuration cannot be used, an option is about ranks, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    for name, option in RATE_TAKES_NO.items():
        if ranks[name] != (1.0 if name == "budget" else False):
            raise ConfigError(f"{option}: is about ranks, and --rate suggests a learning rate; give one of them")
    settings = _advised(config, overrides, out)
    from dynlora.training.advice import advise_rate

    answer = advise_rate(settings, steps)
    document = {**answer, "evidence": advice.RATE_EVIDENCE}
    if out is not None:
        write_out(out, (json.dumps(document, indent=1) + "\n").encode())
    lines = [advice.rate_headline(answer), advice.rate_confidence(answer), advice.rate_curve(answer)]
    lines += [f"next: dynlora train --set train.lr={answer['rate']:.3g} ..."] if answer["rate"] else []
    lines += [line] if (line := advice.rank_capacity(answer)) else []
    return document, "\n".join([*lines, advice.RATE_EVIDENCE, advice.rate_look(answer)])


def _advised(config: Path | None, overrides: tuple[str, ...], out: Path | None) -> RunConfig:
    """Return the configuration to advise on, with model and data at hand.

    Raises:
        ConfigError: when it cannot be used, or `out` is taken.
    """
    if out not in (None, STDOUT) and out.exists():
        raise ConfigError(f"--out {out}: exists already; give another file")
    settings = with_run_folder(read_config(config, overrides, None), DEFAULT_RUNS_DIR)
    fetch(settings)
    return settings


def suggested(
    *,
    config: Path | None,
    overrides: tuple[str, ...],
    budget: float,
    leave_out: bool,
    steps: int | None,
    no_timing: bool,
    out: Path | None,
) -> tuple[Any, str]:
    """Look, write what was asked for, and report.

    Raises:
        ConfigError: when the configuration cannot be used, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    settings = _advised(config, overrides, out)
    from dynlora.training.advice import LOOK_STEPS, AdviceRequest
    from dynlora.training.advice import advise as look

    request = AdviceRequest(budget, leave_out=leave_out, look_steps=steps or LOOK_STEPS, is_timed=not no_timing)
    answer = look(settings, request)
    summary = RunSummary.model_construct(
        config=settings.model_dump(mode="json"), scaling=answer["scaling"], peft_task_type=answer["task_type"]
    )
    document = {**answer, "lora_config": lora_config(summary, answer["ranks"]), "evidence": advice.EVIDENCE}
    if out is not None:
        write_out(out, (json.dumps(document, indent=1) + "\n").encode())
    return document, "\n".join(_lines(answer, out))


def _lines(answer: Mapping[str, Any], out: Path | None) -> Iterator[str]:
    """Yield the conclusion, what to do next, and the evidence."""
    yield advice.headline(answer)
    yield advice.confidence(answer)
    yield advice.leave_out(answer)
    file = out or "ranks.json"
    again = "" if out else f"dynlora advise ... --out {file}; "
    yield f"next: {again}dynlora train --set strategy.name=lora --set strategy.ranks_from={file} ..."
    yield advice.EVIDENCE
    yield "family                                   modules  mean rank  parameters  gain  gain per parameter (halves)"
    for family in answer["families"]:
        yield (
            f"{family['name']:40} {family['modules']:7} {family['mean_rank']:10.1f} {family['parameters_share']:11.0%} "
            f"{family['gain_share']:5.0%}  {family['gain_per_parameter']:.2f} ({family['low']:.2f} to "
            f"{family['high']:.2f})"
        )
    yield from map(advice.layer, answer["layers"])
    yield advice.look(answer)
