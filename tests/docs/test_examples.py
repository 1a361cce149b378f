"""The examples run and show what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import dynlora
from tests.store.builder import finished_run
from tests.tiny import tiny_arguments, tiny_values

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_own_loop_finds_the_planted_layer() -> None:
    ranks = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"]()
    assert ranks[2] == max(ranks) > 3
    assert sum(ranks) <= 9


def test_the_trainer_moves_ranks_within_the_budget() -> None:
    ranks = runpy.run_path(str(EXAMPLES / "trainer.py"))["main"]()
    assert len(set(ranks)) > 1
    assert min(ranks) >= 1


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # PEFT asks the old name
def test_a_peft_run_is_recorded(runs_dir: Path) -> None:
    run = dynlora.open_run(runpy.run_path(str(EXAMPLES / "record.py"))["main"](str(runs_dir)))
    assert run.status == "finished"
    assert len(run.signal("importance")) == 40


@pytest.mark.journey
def test_a_search_from_python_ends_with_its_best_trial(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    values = tiny_values(tiny_bert, tiny_data)
    found = runpy.run_path(str(EXAMPLES / "search.py"))["main"](values, runs_dir)
    assert len(found["trials"]) == 4
    assert 5e-4 <= found["best"]["values"]["train.lr"] <= 3e-2


@pytest.mark.journey
def test_a_sweep_on_a_cluster_from_python_ends(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'dynlora[ray]'")
    settings = tiny_arguments(tiny_bert, tiny_data)[1::2]
    found = runpy.run_path(str(EXAMPLES / "cluster.py"))["main"](None, runs_dir, settings)
    assert [run["status"] for run in found["runs"]] == ["finished"] * 4


def test_a_run_is_written_to_a_tracker_and_read_from_its_files(
    runs_dir: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    main = runpy.run_path(str(EXAMPLES / "trackers.py"))["main"]
    settings = {"model": {"name": str(tiny_bert)}, "data": {"path": str(tiny_data), "max_length": 16}}
    mine, theirs = map(dynlora.open_run, main(str(runs_dir), **settings))
    assert theirs.scalars("loss", "train")["value"].to_numpy() == pytest.approx(mine.scalars("loss", "train")["value"])
    assert len(mine.scalars("loss", "train")) == 20


def test_a_run_that_was_sent_is_opened_there_and_fetched(tmp_path: Path, cache: Path) -> None:
    folder = finished_run(tmp_path / "runs")
    copy = runpy.run_path(str(EXAMPLES / "remote.py"))["main"](folder, str(tmp_path / "there"), tmp_path / "here")
    assert dynlora.open_run(copy).events().equals(dynlora.open_run(folder).events())
