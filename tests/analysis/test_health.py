"""Each finding appears when it should, stays away when all is well, and the sample runs are judged sensibly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis import frames, health
from dynlora.analysis.health import NOTICE, PROBLEM, Evidence, Finding
from dynlora.analysis.learning import Symptom
from dynlora.analysis.run_reading import read_run
from dynlora.store import queries

N = 8
SAMPLES = Path(__file__).resolve().parents[2] / "sample_runs"


def table(columns: Sequence[np.ndarray | Sequence[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        np.stack([np.asarray(column, float) for column in columns], axis=1), columns=range(len(columns))
    )


def events(edits: list[list[dict]]) -> pd.DataFrame:
    return pd.DataFrame({"step": range(len(edits)), "payload": [{"edits": rows} for rows in edits]})


def line(parameters: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"step": range(len(parameters)), "parameters": parameters, "share": np.nan})


def loss(values: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"step": range(len(values)), "value": values})


def well(**changes: object) -> Evidence:
    """A run in which nothing is wrong, with changes."""
    rows = [(f"l.{i}.query", i, "query", 8, 8, 8) for i in range(N)]
    order = np.arange(1.0, N + 1)
    moved = np.full(N, 4.0)
    moved[0], moved[1] = 5, 3
    evidence = Evidence(
        step=100,
        max_steps=100,
        first_reallocation=12,
        planned_events=3,
        budget=1000,
        modules=frames.described(pd.DataFrame(rows, columns=["name", "layer", "kind", "d_in", "d_out", "max_rank"])),
        line=line([980, 990]),
        ranks=table([np.full(N, 4.0), moved]),
        importance=table([order] * 24),
        gates=table([np.linspace(0.9, 1.1, N)] * 2),
        group_gates=pd.DataFrame([[0.9] * N, [1.1] * N]),
        reallocations=events([[{"edit": "move"}]] * 3),
        loss=loss(list(np.linspace(0.7, 0.3, 40))),
        confusion=[[40, 10], [10, 40]],
        evaluated_at=100,
        data_warnings=[],
        learning=[],
        learning_step=20,
    )
    return dataclasses.replace(evidence, **changes)


STILL = Symptom("unmoved", ("l.0.query",), 1)
STARVED = np.array([4.0, 4, 4, 4, 4, 4, 4, 1])
NOISE = [np.random.default_rng(i // 3).random(N) for i in range(24)]

CASES: list[tuple[str, Callable[[Evidence], Finding | None], dict[str, object], str, str]] = [
    ("never ran", health.allocator, {"reallocations": events([])}, PROBLEM, "3 reallocations are planned, but none"),
    ("frozen", health.frozen, {"ranks": table([[4] * N] * 3)}, NOTICE, "There were 3 reallocations, 3 of them"),
    ("exceeded", health.budget, {"line": line([990, 1100])}, PROBLEM, "100 parameters (10.0 %) above the budget"),
    (
        "wide start",
        health.budget,
        {"line": line([4000, 4000]), "reallocations": events([])},
        NOTICE,
        "The run started so; 3 reallocations to come.",
    ),
    (
        "exceeded once",
        health.budget,
        {"line": line([1500, 990])},
        NOTICE,
        "until step 0: The adapters exceeded the budget by up to 500 parameters",
    ),
    ("unused", health.budget, {"line": line([990, 800])}, NOTICE, "200 of 1,000 parameters (20.0 %)"),
    ("starved", health.starved, {"ranks": table([[4] * N, STARVED])}, NOTICE, "query 7 is in the top quarter"),
    ("collapsed", health.gates, {"gates": table([[1.0002] * N])}, NOTICE, "within 0.001 of 1"),
    ("alike", health.gates, {"group_gates": pd.DataFrame([[0.9] * N] * 2)}, NOTICE, "treat all inputs alike"),
    ("saturated", health.gates, {"gates": table([[1.0] * (N - 1) + [1.99]])}, PROBLEM, "1 of 8 gates"),
    ("noise", health.noise, {"importance": table(NOISE)}, NOTICE, "rank correlation"),
    ("not a number", health.loss, {"loss": loss([0.7, np.nan, 0.6])}, PROBLEM, "first at step 1"),
    ("does not learn", health.learning, {"learning": [STILL]}, PROBLEM, "B is still exactly 0, so the update is: all"),
    ("flat", health.flat, {"loss": loss([0.7, 0.69, 0.71] * 10)}, NOTICE, "a change that its noise of ±0.00"),
    ("rises", health.flat, {"loss": loss([0.5] * 15 + [0.6] * 15)}, NOTICE, "went from 0.500 to 0.600. Check"),
    ("diverged", health.loss, {"loss": loss([0.7] * 20 + [5.0] * 20)}, PROBLEM, "more than 1.5 times"),
    ("majority", health.majority, {"confusion": [[60, 0], [40, 0]]}, PROBLEM, "60.0 % of the held-out predictions"),
    ("data", health.data, {"data_warnings": ["3 rows are twice there"]}, NOTICE, "3 rows are twice there."),
]


@pytest.mark.parametrize(("check", "changes", "level", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_finding_appears_and_only_then(
    check: Callable[[Evidence], Finding | None], changes: dict[str, object], level: str, words: str
) -> None:
    assert check(well()) is None
    finding = check(well(**changes))
    assert finding is not None
    assert finding.level == level
    assert words in f"{finding.title}: {finding.words}"
    assert finding in health.outcome(well(**changes)).findings


def test_all_good_is_said_with_what_was_checked() -> None:
    assert health.outcome(well()).findings == []
    assert health.outcome(well()).conclusion == "11 of 11 checks passed."
    outcome = health.outcome(well(planned_events=None, gates=pd.DataFrame()))
    assert outcome.conclusion == "9 of 9 checks passed."
    assert outcome.missing == ["planned reallocations", "gates"]


EARLY: dict[str, object] = {
    "step": 6,
    "reallocations": events([]),
    "ranks": table([np.full(N, 4.0)]),
    "importance": table([np.arange(N)] * 6),
    "loss": loss([0.7, 0.6]),
    "evaluated_at": 0,
    "learning": None,
}


def test_a_check_that_is_not_possible_yet_has_not_passed() -> None:
    outcome = health.outcome(well(**EARLY))
    assert outcome.conclusion == "3 of 11 checks passed; 8 not possible yet."
    assert len(outcome.waiting) == 8
    assert all("(needs " in wait for wait in outcome.waiting)


def test_what_a_run_that_is_over_could_not_check_is_not_awaited() -> None:
    outcome = health.outcome(well(reallocations=events([[]]), ranks=table([np.full(N, 4.0)])))
    assert outcome.conclusion == "10 of 11 checks passed; 1 not possible."


def test_a_run_that_moves_no_rank_passes_no_check_of_moves() -> None:
    outcome = health.outcome(well(planned_events=0, reallocations=events([]), ranks=table([np.full(N, 4.0)])))
    assert not any("realloc" in words for words in outcome.passed)
    assert "planned reallocations" in outcome.missing


def test_problems_come_first() -> None:
    findings = health.outcome(well(line=line([800]), loss=loss([np.nan]), data_warnings=["odd"])).findings
    assert [finding.level for finding in findings] == [PROBLEM, NOTICE, NOTICE]


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 20, "reallocations": events([])},
        {"planned_events": 0, "reallocations": events([])},
        {"step": 10, "gates": table([[1.0] * N])},
        {"evaluated_at": 0, "confusion": [[60, 0], [40, 0]]},
        {"ranks": table([[1] * N, [1] * 7 + [2]])},
        {"importance": table([np.arange(N)])},
        {"importance": pd.DataFrame(), "gates": pd.DataFrame(), "line": line([]), "loss": loss([]), "confusion": None},
    ],
    ids=["in the warm-up", "nothing planned", "early gates", "first evaluation", "rank one", "one step", "no records"],
)
def test_nothing_is_found_too_early_or_without_records(changes: dict[str, object]) -> None:
    assert health.outcome(well(**changes)).findings == []


def test_an_allocator_is_late_only_after_its_first_planned_step() -> None:
    waiting = well(reallocations=events([]), max_steps=20, step=8, first_reallocation=6)
    assert health.allocator(waiting) is None  # a planned step that moves nothing leaves no event
    assert health.allocator(dataclasses.replace(waiting, step=9)) is not None
    not_recorded = dataclasses.replace(waiting, step=19, first_reallocation=20)  # of a run of an earlier version
    assert health.allocator(not_recorded) is None


TRAINED = [Path(folder) for folder in sorted(queries.list_runs(SAMPLES)["folder"])]


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_sample_runs_are_judged_sensibly(folder: Path) -> None:
    summary = queries.run_summary(folder)
    titles = {finding.title for finding in health.outcome(read_run(folder).evidence).findings}
    assert not {"The loss diverged", "The allocator never ran", "Gates are saturated"} & titles
    used = summary.params["active"] + summary.params["gate"]
    assert ("Part of the budget is unused" in titles) <= (used < 0.95 * summary.params["budget"])
