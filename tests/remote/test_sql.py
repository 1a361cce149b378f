"""The SQL of the guide, run by DuckDB over runs that were sent, says what the runs say."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from dynlora.remote.place import Place
from dynlora.remote.sync import push
from dynlora.store.notes import annotate_notes
from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter
from tests.conftest import Once

pytestmark = pytest.mark.slow
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "remote.md"
RUNS = 18
METHODS, RANKS, KINDS = ("dynamic", "lora", "adalora"), (2, 4, 8), ("query", "value", "dense")


def documented_queries(place: str) -> list[str]:
    """Return the SQL of the guide, in order, for a folder of runs."""
    blocks = re.findall(r"```sql\n(.*?)```", GUIDE.read_text("utf-8"), flags=re.DOTALL)
    return [block.replace("s3://bucket/runs", place) for block in blocks]


def facts(number: int) -> dict[str, Any]:
    """Return what a run is, a function of its number."""
    method, rank = METHODS[number % 3], RANKS[number // 3 % 3]
    ranks = np.random.default_rng(number).integers(0, 2 * rank, len(KINDS)).astype(np.float32)
    return {"method": method, "rank": rank, "best": 0.5 + number / 1000, "ranks": ranks}


def make(number: int, runs_dir: Path) -> Path:
    """Make a small finished run."""
    facts_of_run = facts(number)
    config = {"strategy": {"name": facts_of_run["method"]}, "adapter": {"rank": facts_of_run["rank"]}, "seed": number}
    meta = {
        "name": f"run {number}",
        "strategy": facts_of_run["method"],
        "seed": number,
        "config": config,
        "best": {"accuracy": facts_of_run["best"], "step": 2},
        "metric": "accuracy",
    }
    folder = RunWriter.create(
        runs_dir, run_id=f"run-{number:03}", config_yaml="seed: 0\n", meta=meta, max_steps=2, state="running"
    )
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.define_modules([ModuleRow(f"layer.0.{kind}", 0, kind, 8, 8, 16) for kind in KINDS])
        for signal in ("importance", "rank"):
            writer.define_signal(signal, "module", "", len(KINDS))
        for step in (1, 2):
            writer.vector("importance", step, np.full(3, 9.0))
            writer.vector("rank", step, facts_of_run["ranks"] if step == 2 else np.full(3, 99.0))
            writer.scalar("loss", "train", step, 1 / step)
        writer.finish("finished")
    return folder


@pytest.fixture(scope="module")
def there(once: Once) -> Path:
    """A folder of so many runs that were sent; of the first, files of an earlier state are there too."""

    def send(folder: Path) -> Path:
        place = Place(str(folder / "there"))
        for number in range(RUNS):
            push(make(number, folder / "runs"), place)
        first = folder / "runs" / "run-000"
        with RunWriter.open(first, resume_from=2) as writer:
            writer.set_meta("best", {"accuracy": 0.99, "step": 2})
            writer.finish("finished")
        annotate_notes(first, note="sent again")
        push(first, place)
        return folder / "there"

    return once.made("sent-runs", send)


@pytest.fixture
def answers(there: Path) -> list[list[tuple[Any, ...]]]:
    """What each block of the guide answers, in order."""
    with duckdb.connect() as connection:
        return [connection.execute(query).fetchall() for query in documented_queries(str(there))]


def test_the_best_accuracy_by_method_and_rank(answers: list[list[tuple[Any, ...]]]) -> None:
    expected: dict[tuple[str, int], list[float]] = defaultdict(list)
    for number in range(RUNS):
        facts_of_run = facts(number)
        expected[facts_of_run["method"], facts_of_run["rank"]].append(0.99 if number == 0 else facts_of_run["best"])
    rows = answers[1]
    assert {(method, rank): (runs, best) for method, rank, runs, best in rows} == {
        key: (len(values), pytest.approx(max(values))) for key, values in expected.items()
    }
    assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
    assert rows[0] == ("dynamic", 2, len(expected["dynamic", 2]), 0.99)


def test_the_final_rank_by_kind_of_module(answers: list[list[tuple[Any, ...]]], there: Path) -> None:
    every = np.stack([facts(number)["ranks"] for number in range(RUNS)])
    assert {kind: (runs, mean) for kind, runs, mean in answers[3]} == {
        kind: (RUNS, pytest.approx(float(every[:, place].mean()))) for place, kind in enumerate(KINDS)
    }
    several = [path for path in (there / "run-000" / "tables").glob("meta-*.parquet")]
    assert len(several) == 2, "an earlier state is there, and is not counted"
