"""Commands that examine a trained run: ablations, its strength, and the child process that answers pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynlora.analysis.stats import FEWEST_PAIRS
from dynlora.cli.options import MOST_SECONDS, ROWS, WHICH, OutFolder, Real, Whole, formed, of_run, progress, reports
from dynlora.errors import ConfigError
from dynlora.inference.forms import Form
from dynlora.kinds.run_kind import kind_of_run
from dynlora.store.summary import recorded_adapter

if TYPE_CHECKING:
    import pandas as pd

    from dynlora.inference.compress import AtStrength


@click.command()
@ROWS
@click.option(
    "--together",
    multiple=True,
    metavar="I,J",
    help=("Modules to turn off together, by position; repeat the option for more."),
)
@WHICH
@click.option("--again", is_flag=True, help="Measure again what is already measured.")
@of_run
@reports
def ablate(*, folder: Path, rows: int, together: tuple[str, ...], which: str, again: bool) -> Any:
    """Module ablation: the held-out loss without each module, compared with the recorded scores."""
    from dynlora.analysis.retention import knockout_target
    from dynlora.inference.session import Examined
    from dynlora.store.measurements import keep_knockouts, kept_knockouts

    sets = [_positions(text) for text in together] or None
    file = knockout_target(folder)
    examined = Examined(folder, which)
    of = len(examined.model.adapters) if sets is None else len(sets)
    result = None
    for done, result in enumerate(examined.knockouts(sets, rows, kept_knockouts(file), again=again)):
        keep_knockouts(file, result)
        progress("modules measured", done, of)
    if result is None:
        raise ConfigError(f"run {folder.name}: has no modules to measure")
    return _report(folder, result)


knockout = copy(ablate)
"""The command under its former name, which scripts may use."""

knockout.name, knockout.hidden = "knockout", True


@click.command()
@click.option(
    "--strengths",
    default="0,0.25,0.5,0.75,1,1.25",
    show_default=True,
    metavar="S,T,...",
    help="Numbers that the adapter is multiplied by: 0 is the base model, 1 as trained.",
)
@ROWS
@click.option(
    "--out",
    type=OutFolder(),
    default=None,
    help="Export the adapter at the best strength: a new or empty folder, or a .zip file.",
)
@WHICH
@formed
@of_run
@reports
def strength(*, folder: Path, strengths: str, rows: int, out: Path | None, which: str, form: Form) -> Any:
    """Adapter strength: held-out loss and what is forgotten with the adapter scaled from 0 to 1.25."""
    numbers = _strengths(strengths)
    if (kind := kind_of_run(folder).name) != "train":
        raise ConfigError(
            f"run {folder.name}: is of the kind {kind}, and strength scales a trained adapter; give a training"
        )
    if recorded_adapter(folder):
        raise ConfigError(
            f"run {folder.name}: was recorded, and its model is not here; give a run that dynlora trained"
        )
    from dynlora.inference.compress import best_of, checked_strengths, strength_curve
    from dynlora.inference.export import export_run
    from dynlora.inference.session import Examined

    chosen = checked_strengths(numbers)
    examined = Examined(folder, which)
    curve = []
    for done, point in enumerate(strength_curve(examined, chosen, rows), 1):
        curve.append(point)
        progress("strengths measured", done, len(chosen))
    best = best_of(curve)
    n, of, step = min(rows, len(examined.data.held_out)), len(examined.data.held_out), examined.model.step
    exported = None
    if out is not None:
        factor = best.strength
        exported = export_run(folder, out, format=form.name, which=which, strength=factor, retention=best.forgotten)
    document = {
        "id": folder.name,
        "which": which,
        "step": step,
        "rows": n,
        "of": of,
        "best": best.strength,
        "strengths": [point.document() for point in curve],
        "exported": exported,
    }
    return document, _strength_lines(curve, best, document)


@click.command(hidden=True)
@click.option("--idle", type=Real(0, MOST_SECONDS, above=True), default=None, help="Seconds without a request.")
@click.option("--memory", type=Whole(1, 2**60), default=None, help="Memory limit in bytes.")
def answer(idle: float | None, memory: int | None) -> None:
    """Answer requests about trained runs, one JSON line each; pages start this."""
    from dynlora.inference.worker import IDLE_S, main

    main(IDLE_S if idle is None else idle, memory)


def _strengths(text: str) -> list[float]:
    """Return the numbers in a text such as 0,0.5,1."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"--strengths {text}: must be numbers separated by commas, such as 0,0.5,1")
    return numbers


def _strength_lines(curve: Sequence[AtStrength], best: AtStrength, document: Mapping[str, Any]) -> str:
    """Return a line for each strength, the best one in a sentence, and where it was written."""
    unit = curve[0].forgotten.unit
    lines = [f"strength   held-out loss (95 % CI)        minus that at 1 (95 % CI)         forgotten ({unit})"]
    for point in curve:
        loss = f"{point.loss:.4f} ({point.low:.4f} to {point.high:.4f})"
        gap = f"{point.difference:+.4f} ({point.difference_low:+.4f} to {point.difference_high:+.4f})"
        lines.append(f"{point.strength:<10g} {loss:30} {gap:33} {point.forgotten.forgotten:+.4f}")
    if len(curve) > 1:
        comparison = (
            ""
            if best.strength == 1 or document["rows"] < FEWEST_PAIRS
            else f"; {'not significantly ' if best.is_like_trained else ''}lower than at 1"
        )
        lines.append(
            f"Lowest held-out loss at strength {best.strength:g}, on {document['rows']:,} of {document['of']:,} "
            f"held-out examples{comparison}. It was chosen on these examples, so others gain less."
        )
    if document["exported"]:
        lines.append(f"wrote {document['exported']['folder']} (strength {best.strength:g} folded into the weights)")
    return "\n".join(lines)


def _positions(text: str) -> list[int]:
    """Return the positions in a text such as 3,17."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 7 for part in parts):
        raise ConfigError(f"--together {text}: must be positions of modules separated by commas, such as 3,17")
    return [int(part) for part in parts]


def _report(folder: Path, result: Any) -> tuple[Any, str]:
    """Return ablations beside the scores that were recorded."""
    from dynlora.analysis import frames, retention
    from dynlora.store import queries
    from dynlora.store.run import module_scores

    modules = frames.described(queries.modules_frame(folder))
    effect = retention.effects(result, modules)
    scores, active = module_scores(folder), effect[effect["delta"] != 0]
    agreed, agreed_active = (retention.agreements(scores, part) for part in (effect, active))
    alone = effect.drop(columns=["short", "label", "layer", "half", "other_half"]).to_dict("records")
    document = {
        "id": folder.name,
        **result.model_dump(exclude={"effects"}),
        "modules": [{**row, "sure": bool(row["sure"])} for row in alone],
        "together": [effect.model_dump() for effect in result.effects if len(effect.modules) > 1],
        "agreement": agreed.to_dict("records"),
        "agreement_of_active": agreed_active.to_dict("records"),
    }
    lines = [retention.effect_caption(effect, result.n_modules, result.rows)]
    for row in effect.sort_values("delta", ascending=False).to_dict("records"):
        lines.append(f"  {row['short']:20} {row['delta']:+.5f}  (95 % CI {row['low']:+.5f} to {row['high']:+.5f})")
    lines += _agreement_lines(agreed)
    if len(active) < len(effect) and len(agreed_active):
        lines += [f"Of the {len(active)} modules whose absence changes the loss:", *_agreement_lines(agreed_active)]
    return document, "\n".join(lines)


def _agreement_lines(agreed: pd.DataFrame) -> list[str]:
    """Return a line for each score, as `retention.agreements` returns them."""
    return [
        f"Spearman with {row['score']}: {row['spearman']:+.2f} (95 % CI {row['low']:+.2f} to {row['high']:+.2f})"
        for row in agreed.to_dict("records")
    ]
