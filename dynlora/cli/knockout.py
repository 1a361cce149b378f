"""Commands that examine a trained run: ablations, and the child process that answers pages."""

from __future__ import annotations

import sys
from copy import copy
from pathlib import Path
from typing import Any

import click

from dynlora.cli.options import MOST_ROWS, MOST_SECONDS, Real, Whole, in_runs, reports
from dynlora.errors import ConfigError
from dynlora.jobs import helper_job
from dynlora.store.schema import run_folder


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--rows", type=Whole(1, MOST_ROWS), default=512, show_default=True, help="Number of held-out examples.")
@click.option(
    "--together",
    multiple=True,
    metavar="I,J",
    help=("Modules to turn off together, by position; repeat the option for more."),
)
@click.option("--which", default="last", show_default=True, help="last or best.")
@click.option("--again", is_flag=True, help="Measure again what is already measured.")
@in_runs
@reports
def ablate(**options: Any) -> Any:
    """Module ablation: the held-out loss without each module, compared with the recorded scores."""
    return measure(**options)


knockout = copy(ablate)
"""The command under its former name, which scripts may use."""

knockout.name, knockout.hidden = "knockout", True


@click.command(hidden=True)
@click.option("--idle", type=Real(0, MOST_SECONDS, above=True), default=None, help="Seconds without a request.")
@click.option("--memory", type=Whole(1, 2**60), default=None, help="Memory limit in bytes.")
def answer(idle: float | None, memory: int | None) -> None:
    """Answer requests about trained runs, one JSON line each; pages start this."""
    from dynlora.inference.worker import IDLE_S, main

    main(IDLE_S if idle is None else idle, memory)


def measure(
    *, run_id: str, rows: int, together: tuple[str, ...], which: str, again: bool, runs_dir: Path
) -> tuple[Any, str]:
    """Measure ablations, keep them with the run, and compare them with every recorded score."""
    from dynlora.analysis.measurement_files import knockout_target
    from dynlora.inference.session import Examined
    from dynlora.store.knockouts import keep_knockouts, kept_knockouts

    folder = run_folder(runs_dir, run_id)
    sets = [_positions(text) for text in together] or None
    file = knockout_target(folder)
    examined = Examined(folder, which)
    of = len(examined.model.adapters) if sets is None else len(sets)
    result = None
    for done, result in enumerate(examined.knockouts(sets, rows, kept_knockouts(file), again=again)):
        keep_knockouts(file, result)
        helper_job.tell(done, of, "modules measured")
        if sys.stderr.isatty():
            click.echo(f"\r{done} of {of} modules measured", nl=done == of, err=True)
    if result is None:
        raise ConfigError(f"run {run_id}: has no modules to measure")
    return _report(folder, result)


def _positions(text: str) -> list[int]:
    """Return the positions in a text such as 3,17."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 7 for part in parts):
        raise ConfigError(f"--together {text}: must be positions of modules separated by commas, such as 3,17")
    return [int(part) for part in parts]


def _report(folder: Path, result: Any) -> tuple[Any, str]:
    """Return ablations beside the scores that were recorded."""
    from dynlora.analysis import ablations, frames
    from dynlora.store import queries
    from dynlora.store.run import module_scores

    modules = frames.described(queries.modules_frame(folder))
    effect = ablations.effects(result, modules)
    agreed = ablations.agreements(module_scores(folder), effect)
    alone = effect.drop(columns=["short", "label", "layer"]).to_dict("records")
    document = {
        "id": folder.name,
        **result.model_dump(exclude={"effects"}),
        "modules": [{**row, "sure": bool(row["sure"])} for row in alone],
        "together": [effect.model_dump() for effect in result.effects if len(effect.modules) > 1],
        "agreement": agreed.to_dict("records"),
    }
    lines = [ablations.effect_caption(effect, result.n_modules, result.rows)]
    for row in effect.sort_values("delta", ascending=False).to_dict("records"):
        lines.append(f"  {row['short']:20} {row['delta']:+.5f} nats  (95 % CI {row['low']:+.5f} to {row['high']:+.5f})")
    for row in agreed.to_dict("records"):
        lines.append(
            f"Spearman with {row['score']}: {row['spearman']:+.2f} (95 % CI {row['low']:+.2f} to {row['high']:+.2f})"
        )
    return document, "\n".join(lines)
