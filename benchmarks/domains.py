"""Where does adapting to the input pay? Four domains: trained on all, and on three of them and tried on the fourth.

python -m benchmarks.domains --seeds 3

`sentiment4` has four domains (tweets, movie reviews, Amazon reviews, editorials). Each run is `dynamic` without gates,
with one a module and sequence, a component and sequence, or a module and token; everything else is equal: rows,
batches, head, budget. Trained on all four, every domain's held-out rows are reported apart; trained on three, the
held-out rows of the fourth.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.quality.methods import GRIDS, METHODS, REPORTING_SEEDS
from benchmarks.quality.paired import paired_difference
from benchmarks.quality.runs import PARTS_PER_NAT, Job, finished_run
from benchmarks.quality.side_by_side import carry_out
from benchmarks.quality.tasks import TASKS, task_data
from dynlora.engine.data import Rows, TextData

KEPT = results.RESULTS / "domains"
GATES = ("off", "module", "rank", "token")
EVERYTHING = "all"


@dataclasses.dataclass(frozen=True)
class DomainJob:
    """One run: a gate mode, and the domain that is left out of training (`all`: none)."""

    gates: str
    left_out: str
    seed: int
    steps: int = 0
    rank: int = 4
    lr: float = GRIDS[4][1]

    @property
    def file_name(self) -> str:
        """The name of the file that keeps the run."""
        return f"without-{self.left_out}-gates-{self.gates}-s{self.seed}.json"

    def run(self, folder: Any, limit: int | None) -> dict[str, Any]:
        """Train, and return every held-out row's loss with its domain."""
        data = without(task_data(TASKS["sentiment4"], None, "report"), self.left_out, limit)
        job = Job("report", "sentiment4", "dynamic", self.rank, self.seed, self.lr, steps=self.steps)
        method = dataclasses.replace(METHODS["dynamic"], fields={"gates": self.gates})
        return finished_run(job, method, data) | {"job": vars(self), "domain": data.held_out.group}


def domains(rows: Rows) -> list[str]:
    """Return the domains of rows, sorted."""
    return sorted(set(rows.group or ()))


def without(data: TextData, left_out: str, limit: int | None) -> TextData:
    """Return data whose training rows lack a domain and whose held-out rows are of it; `all` changes nothing."""
    train_rows, held_out = data.train, data.held_out
    if left_out != EVERYTHING:
        train_rows = train_rows.take(np.flatnonzero(np.array(train_rows.group) != left_out))
        held_out = held_out.take(np.flatnonzero(np.array(held_out.group) == left_out))
    if limit is not None:
        spread = [np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int) for rows in (train_rows, held_out)]
        train_rows, held_out = train_rows.take(spread[0]), held_out.take(spread[1])
    return dataclasses.replace(data, train=train_rows, held_out=held_out)


def compare(made: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, by where the runs were trained and which domain was read, gates minus no gates: loss and accuracy."""
    table: dict[tuple[str, str, str], dict[int, Mapping[str, np.ndarray]]] = defaultdict(dict)
    for run in made:
        job, domain = run["job"], np.array(run["domain"])
        for name in sorted(set(domain)):
            rows = domain == name
            values = {"loss": np.array(run["loss"])[rows] / PARTS_PER_NAT}
            values["right"] = np.array(list(run["right"]), int)[rows]
            table[job["left_out"], name, job["gates"]][job["seed"]] = values
    found = []
    for left_out, domain, gates in sorted(table):
        mine, off = table[left_out, domain, gates], table.get((left_out, domain, "off"), {})
        seeds = sorted(set(mine) & set(off))
        row: dict[str, Any] = {"trained_without": left_out, "domain": domain, "gates": gates, "seeds": sorted(mine)}
        row |= {key: float(np.mean([run[key].mean() for run in mine.values()])) for key in ("loss", "right")}
        if gates != "off" and seeds:
            for key in ("loss", "right"):
                here, there = ([side[seed][key] for seed in seeds] for side in (mine, off))
                row[f"{key}_difference"] = dataclasses.asdict(paired_difference(here, there))
        found.append(row)
    return found


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table."""
    for row in rows:
        trained = "all domains" if row["trained_without"] == EVERYTHING else "the other three"
        text = f"{row['domain']:8} trained on {trained:16} gates {row['gates']:7} loss {row['loss']:.4f}  "
        text += f"accuracy {100 * row['right']:.2f} %"
        if "loss_difference" in row:
            difference = row["loss_difference"]
            text += (
                f"  against no gates {difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
            )
        print(text)


def main() -> None:
    """Train what is missing, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="optimizer steps, instead of the task's own")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny runs: does it work")
    arguments, _ = parser.parse_known_args()
    kept, limit, steps, gates = KEPT, None, arguments.steps, GATES
    left_out = [EVERYTHING, *domains(task_data(TASKS["sentiment4"], None, "report").held_out)]
    if arguments.quick:
        kept, limit, steps = results.emptied("domains"), 300, 12
        arguments.seeds, left_out, gates = 1, left_out[:2], GATES[:2]
    seeds = range(REPORTING_SEEDS, REPORTING_SEEDS + arguments.seeds)
    jobs = [DomainJob(g, out, seed, steps) for seed, out, g in itertools.product(seeds, left_out, gates)]
    made = carry_out(jobs, kept, None, arguments.workers, limit)
    rows = compare(made)
    show(rows)
    print("written:", results.write("domains-quick" if arguments.quick else "domains", rows, "benchmarks.domains"))


if __name__ == "__main__":
    main()
