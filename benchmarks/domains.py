"""Where does adapting to the input pay? Four domains: trained on all, and on three of them and tried on the fourth.

python -m benchmarks.domains --seeds 3

`sentiment4` has four domains (tweets, movie reviews, Amazon reviews, editorials). Each run is `dynamic` without gates,
with one a module and sequence, a component and sequence, or a module and token; everything else is equal: rows,
batches, head, budget, and the rate, which was chosen with one gate a module on all four domains. Trained on all four,
every domain's held-out rows are reported apart; trained on three, the held-out rows of the fourth. Over all rows: what
gates gain on domains that training saw, on those it did not see, and how much more on these. Moves are on in every run,
so this asks what gates add to `dynamic`, not to LoRA.
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
from benchmarks.kept_runs import KeptRuns
from benchmarks.quality.methods import GRIDS, METHODS, REPORTING_SEEDS
from benchmarks.quality.paired import paired_difference
from benchmarks.quality.runs import PARTS_PER_NAT, Job, finished_run
from benchmarks.quality.side_by_side import carry_out
from benchmarks.quality.tasks import TASKS, task_data
from dynlora.engine.data.text_data import Rows, TextData

KEPT = KeptRuns.of("domains")
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
        steps = self.steps or TASKS["sentiment4"].steps
        return f"without-{self.left_out}-gates-{self.gates}-r{self.rank}-lr{self.lr:g}-n{steps}-s{self.seed}.json"

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


Table = Mapping[tuple[str, str, str], Mapping[int, Mapping[str, np.ndarray]]]
"""Each held-out row's loss and answer, by what was left out of training, the domain that is read, gates, and seed."""


def table_of(made: Sequence[Mapping[str, Any]]) -> Table:
    """Return the rows of finished runs, sorted."""
    table: dict[tuple[str, str, str], dict[int, Mapping[str, np.ndarray]]] = defaultdict(dict)
    for run in made:
        job, domain = run["job"], np.array(run["domain"])
        for name in sorted(set(domain)):
            rows = domain == name
            values = {"loss": np.array(run["loss"])[rows] / PARTS_PER_NAT}
            values["right"] = np.array(list(run["right"]), int)[rows]
            table[job["left_out"], name, job["gates"]][job["seed"]] = values
    return table


def by_domain(table: Table) -> list[dict[str, Any]]:
    """Return, by where the runs were trained and which domain was read, gates minus no gates: loss and accuracy."""
    rows = []
    for left_out, domain, gates in sorted(table):
        mine, off = table[left_out, domain, gates], table.get((left_out, domain, "off"), {})
        row: dict[str, Any] = {"trained_without": left_out, "domain": domain, "gates": gates, "seeds": sorted(mine)}
        row |= {key: float(np.mean([run[key].mean() for run in mine.values()])) for key in ("loss", "right")}
        rows.append(row | (_difference(mine, off) if gates != "off" else {}))
    return rows


def _difference(mine: Mapping[int, Any], off: Mapping[int, Any]) -> dict[str, Any]:
    """Return the paired differences of two sides over the seeds that both have."""
    seeds = sorted(set(mine) & set(off))
    differences = {}
    for key in ("loss", "right") if seeds else ():
        here, there = ([side[seed][key] for seed in seeds] for side in (mine, off))
        differences[f"{key}_difference"] = dataclasses.asdict(paired_difference(here, there))
    return differences


def overall(table: Table) -> list[dict[str, Any]]:
    """Return for each kind of gates what it gains over none on all rows: domains that were seen, unseen, and between.

    `between` is the gain on a row by a run that never saw its domain, less that by a run that did: below zero, gates
    help more where the domain is new.
    """
    names = sorted({domain for _, domain, _ in table})
    overall_rows = []
    for gates in sorted({gates for _, _, gates in table} - {"off"}):
        seen = [(_joined(table, names, side, False)) for side in (gates, "off")]
        unseen = [(_joined(table, names, side, True)) for side in (gates, "off")]
        seeds = sorted(set.intersection(*(set(side) for side in (*seen, *unseen))))
        if not seeds:
            continue
        gained = {
            "seen": [seen[0][seed] - seen[1][seed] for seed in seeds],
            "unseen": [unseen[0][seed] - unseen[1][seed] for seed in seeds],
        }
        nothing = [np.zeros_like(rows) for rows in gained["seen"]]
        row: dict[str, Any] = {"gates": gates, "seeds": seeds, "domains": names}
        row |= {kind: dataclasses.asdict(paired_difference(rows, nothing)) for kind, rows in gained.items()}
        row["between"] = dataclasses.asdict(paired_difference(gained["unseen"], gained["seen"]))
        overall_rows.append(row)
    return overall_rows


def _joined(table: Table, names: Sequence[str], gates: str, unseen: bool) -> dict[int, np.ndarray]:
    """Return every row's loss by seed, domain after domain; of the seeds that have all of them."""
    parts = [table.get((name if unseen else EVERYTHING, name, gates), {}) for name in names]
    seeds = set.intersection(*(set(part) for part in parts))
    return {seed: np.concatenate([part[seed]["loss"] for part in parts]) for seed in seeds}


def interval_text(difference: Mapping[str, Any]) -> str:
    """Return a difference with its wider interval."""
    return f"{difference['mean']:+.4f} [{difference['wide_low']:+.4f}, {difference['wide_high']:+.4f}]"


def show(figures: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print the tables."""
    for row in figures["by_domain"]:
        trained = "all domains" if row["trained_without"] == EVERYTHING else "the other three"
        text = f"{row['domain']:8} trained on {trained:16} gates {row['gates']:7} loss {row['loss']:.4f}  "
        text += f"accuracy {100 * row['right']:.2f} %"
        text += f"  against no gates {interval_text(row['loss_difference'])}" if "loss_difference" in row else ""
        print(text)
    for row in figures["overall"]:
        parts = "  ".join(f"{kind} {interval_text(row[kind])}" for kind in ("seen", "unseen", "between"))
        print(f"all rows, gates {row['gates']:7} {parts}  {len(row['seeds'])} seeds")


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
        kept, limit, steps = KeptRuns.below(results.emptied("domains")), 300, 12
        arguments.seeds, left_out, gates = 1, left_out[:2], GATES[:2]
    seeds = range(REPORTING_SEEDS, REPORTING_SEEDS + arguments.seeds)
    jobs = [DomainJob(g, out, seed, steps) for seed, out, g in itertools.product(seeds, left_out, gates)]
    made = carry_out(jobs, kept, None, arguments.workers, limit)
    table = table_of(made)
    figures = {"by_domain": by_domain(table), "overall": overall(table)}
    show(figures)
    print("written:", results.write("domains-quick" if arguments.quick else "domains", figures, "benchmarks.domains"))


if __name__ == "__main__":
    main()
