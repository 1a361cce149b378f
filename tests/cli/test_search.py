"""`dynlora runs --where`: what it lists, and how it says where a search is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import document, run
from tests.store.builder import finished_run


@pytest.fixture
def two(runs_dir: Path) -> Path:
    config = {"seed": 1, "strategy": {"name": "dynamic", "gates": "module"}, "train": {"lr": 2e-3}}
    finished_run(runs_dir, 20, "20260101-000000-00000001", name="first", strategy="dynamic", config=config)
    finished_run(
        runs_dir,
        10,
        "20260101-000000-00000002",
        name="second",
        strategy="lora",
        config={"seed": 1, "strategy": {"name": "lora"}},
    )
    return runs_dir


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("strategy=dynamic and accuracy>0.015 or tag:paper", "first"),
        ("strategy.unheard=1", ""),
    ],
)
def test_a_search_leaves_the_runs_that_fit(two: Path, where: str, names: str) -> None:
    listing = document(run(two, "runs", "--where", where, "--json"))
    assert sorted(row["name"] for row in listing) == names.split()


def test_none_that_fits_is_said(two: Path) -> None:
    done = run(two, "runs", "--where", "third")
    assert (done.exit_code, done.stdout) == (0, "none of 2 runs matches\n")


def test_a_mistake_is_a_sentence_and_its_place(two: Path) -> None:
    done = run(two, "runs", "--where", "first and acuracy>0.8", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "Error: search, column 11: 'acuracy' is not a field of these runs; did you mean accuracy?",
        "first and acuracy>0.8",
        "          ^",
    ]
