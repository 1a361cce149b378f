"""What the commands that examine a run do: each returns a document (plain values) and the words for a person."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dynlora.errors import ConfigError
from dynlora.store.schema import run_folder


def knockout(
    *, run_id: str, rows: int, together: tuple[str, ...], which: str, again: bool, runs_dir: Path
) -> tuple[Any, str]:
    """Measure knock-outs, keep them with the run, and compare them with every recorded score."""
    from dynlora.inference.client import knockout_target
    from dynlora.inference.session import Examined
    from dynlora.store.knockouts import keep_knockouts, kept_knockouts

    folder = run_folder(runs_dir, run_id)
    sets = [_positions(text) for text in together] or None
    file = knockout_target(folder)
    examined = Examined(folder, which)
    of = len(examined.model.adapters) if sets is None else len(sets)
    found = None
    for done, found in enumerate(examined.knockouts(sets, rows, kept_knockouts(file), again=again)):
        keep_knockouts(file, found)
        if sys.stderr.isatty():
            click.echo(f"\r{done} of {of} knocked out", nl=done == of, err=True)
    if found is None:
        raise ConfigError(f"run {run_id}: has no modules to knock out")
    return _report(folder, found)


def _positions(text: str) -> list[int]:
    """Return the positions in a text such as 3,17."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 7 for part in parts):
        raise ConfigError(f"--together {text}: must be positions of modules with commas between, such as 3,17")
    return [int(part) for part in parts]


def _report(folder: Path, found: Any) -> tuple[Any, str]:
    """Return knock-outs beside the scores that were recorded."""
    from dynlora.store import queries
    from dynlora.store.score_signals import module_scores
    from dynlora.viz.capacity import model as capacity
    from dynlora.viz.knockout import model as knockouts

    modules = capacity.described(queries.modules_frame(folder))
    effect = knockouts.effects(found, modules)
    agreed = knockouts.agreements(module_scores(folder), effect)
    alone = effect.drop(columns=["short", "label", "layer"]).to_dict("records")
    document = {
        "id": folder.name,
        **{key: value for key, value in asdict(found).items() if key != "effects"},
        "modules": [{**row, "sure": bool(row["sure"])} for row in alone],
        "together": [asdict(effect) for effect in found.effects if len(effect.modules) > 1],
        "agreement": agreed.to_dict("records"),
    }
    lines = [knockouts.effect_sentence(effect, found.n_modules, found.rows)]
    for row in effect.sort_values("delta", ascending=False).to_dict("records"):
        lines.append(f"  {row['short']:20} {row['delta']:+.5f} nats  ({row['low']:+.5f} to {row['high']:+.5f})")
    for row in agreed.to_dict("records"):
        lines.append(f"Spearman with {row['score']}: {row['spearman']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})")
    return document, "\n".join(lines)
