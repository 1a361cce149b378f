"""Is importance real? What held-out rows lose without each module, against every score that claims to know it.

python -m benchmarks.knockouts [--runs-dir sample_runs] [--strategies lora,dynamic,adalora] [--rows 512]

Of each strategy one finished run that kept its adapter or its ablations, with the same model, data and budget.
Spearman's correlation over the modules, its 95 % interval from drawing modules with replacement: of each recorded score
with the ablations of its own run, and with those of the uniform run, where no rank moved. What is measured already is
taken from `knockout.json` beside the run, and what is measured is kept there where it can be written.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import results
from dynlora.analysis import frames, retention
from dynlora.analysis.retention import knockout_file, knockout_target
from dynlora.analysis.stats import spearman
from dynlora.inference.session import Examined
from dynlora.store import queries
from dynlora.store.catalogue import run_rows
from dynlora.store.measurements import keep_knockouts, kept_knockouts
from dynlora.store.run import module_scores

UNIFORM = "lora"


def is_measurable(folder: Path) -> bool:
    """Say whether a run kept its adapter, or what its ablations found."""
    return (folder / "adapter").is_dir() or knockout_file(folder).is_file()


def chosen(runs_dir: Path, strategies: list[str]) -> dict[str, Path]:
    """Return a finished run of each strategy, all with the model, data and budget of the first."""
    folders: dict[str, Path] = {}
    wanted: tuple[Any, ...] | None = None
    for name in strategies:
        for row in run_rows(runs_dir):
            folder = Path(row["folder"])
            if row["strategy"] != name or row["status"] != "finished" or not is_measurable(folder):
                continue
            budget = (row.get("params") or {}).get("budget")
            if wanted in (None, (row["model"], row["data"], budget)):
                wanted = (row["model"], row["data"], budget)
                folders[name] = folder
                break
    return folders


def measured(folder: Path, rows: int) -> pd.DataFrame:
    """Return the effects of a run's modules, measured where they are not known, and kept."""
    file = knockout_target(folder)
    modules = frames.described(queries.modules_frame(folder))
    for knockouts in kept_knockouts(file):
        if knockouts.rows == rows and len(knockouts.alone) == len(modules):
            return retention.effects(knockouts, modules)
    for knockouts in Examined(folder).knockouts(rows=rows, known=kept_knockouts(file)):
        keep_knockouts(file, knockouts)
    return retention.effects(knockouts, modules)


def tried(folder: Path, rows: int, known: pd.DataFrame) -> str:
    """Return how effects on few rows, measured now and not kept, agree with those that are known."""
    *_, knockouts = Examined(folder).knockouts(rows=rows)
    few = retention.effects(knockouts, frames.described(queries.modules_frame(folder)))
    rho = spearman(few["delta"], known["delta"])
    return f"{rows} rows of {folder.name}, measured now: Spearman {rho:+.2f} with what is known of it"


def compared(folder: Path, own: pd.DataFrame, uniform: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return each score's agreement with the run's own effects and with those of the uniform run."""
    rows = []
    for name, score in module_scores(folder).items():
        row: dict[str, Any] = {"score": name, "own": asdict(retention.agreement(score, own))}
        if uniform is not None:
            row["uniform"] = asdict(retention.agreement(score, uniform))
        rows.append(row)
    return rows


def agreement_text(agreement: dict[str, Any] | None) -> str:
    """Return an agreement in words of equal width."""
    if agreement is None or agreement["rho"] != agreement["rho"]:
        return f"{'-':>22}"
    return f"{agreement['rho']:+.2f} [{agreement['low']:+.2f}, {agreement['high']:+.2f}]".rjust(22)


def main() -> None:
    """Measure what is missing, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=Path("sample_runs"))
    parser.add_argument("--strategies", default="lora,dynamic,adalora")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--quick", action="store_true", help="what is known, and 32 rows of one run again")
    arguments, _ = parser.parse_known_args()
    rows = arguments.rows
    folders = chosen(arguments.runs_dir, arguments.strategies.split(","))
    effects = {name: measured(folder, rows) for name, folder in folders.items()}
    figures: dict[str, Any] = {"rows": rows, "runs": {}}
    for name, folder in folders.items():
        effect, uniform = effects[name], effects.get(UNIFORM)
        scores = compared(folder, effect, None if name == UNIFORM else uniform)
        helps = int(np.count_nonzero(effect["sure"].to_numpy(bool) & (effect["delta"].to_numpy(float) > 0)))
        figures["runs"][name] = {"run": folder.name, "modules": len(effect), "helps": helps, "scores": scores}
        print(f"\n{name}: {helps} of {len(effect)} modules help, their intervals clear of zero, {rows} rows")
        for row in scores:
            print(f"  {row['score']:34}{agreement_text(row['own'])}{agreement_text(row.get('uniform'))}")
    if arguments.quick:
        name = next(name for name, folder in folders.items() if (folder / "adapter").is_dir())
        print("\n" + tried(folders[name], 32, effects[name]))
    print(
        "written:",
        results.write("knockouts-quick" if arguments.quick else "knockouts", figures, "benchmarks.knockouts"),
    )


if __name__ == "__main__":
    main()
