"""A run in a bucket draws and compares as the run here does, and shows what was sent since."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import pytest

import dynlora
from dynlora.errors import NotRecordedError
from dynlora.notebook.figure import Figures
from dynlora.remote.place import Place
from dynlora.remote.sync import push
from tests.viz.growing import Running

SAMPLES = Path(__file__).resolve().parents[2] / "sample_runs"
MOVED, LORA, DYNAMIC = "20261205-153533-21b95200", "20261205-144905-03e6ddf3", "20261205-145115-dab7e702"
FIGURES = ("capacity", "flow", "importance_vs_rank", "ranks", "gates", "knockouts")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path) -> None:
    """Use an empty cache: what was sent is noted there."""


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    """Address of a folder of runs in fsspec's memory."""
    return f"memory://{tmp_path.name}/runs"


def values(figure: Any) -> list[str]:
    return [str(one.to_json()) for one in (figure if isinstance(figure, Figures) else [figure])]


def test_its_figures_and_card_are_those_of_the_run_here(bucket: str, tmp_path: Path) -> None:
    push(SAMPLES / MOVED, Place(bucket))
    shutil.copytree(SAMPLES / MOVED, tmp_path / MOVED)  # alone, as it is there: no other run to be judged against
    there, here = dynlora.open_run(f"{bucket}/{MOVED}"), dynlora.open_run(tmp_path / MOVED)
    for name in (*FIGURES, "training"):
        assert values(getattr(there.plot, name)()) == values(getattr(here.plot, name)()), name
    assert there.plot.replay().data["rank"] == here.plot.replay().data["rank"]
    assert there._repr_html_() == here._repr_html_()


def test_its_sizes_are_fetched_and_what_is_missing_is_measured_on_a_copy(bucket: str) -> None:
    push(SAMPLES / LORA, Place(bucket))
    run = dynlora.open_run(f"{bucket}/{LORA}")
    assert values(run.plot.shrink()) == values(dynlora.open_run(SAMPLES / LORA).plot.shrink())
    with pytest.raises(NotRecordedError, match=rf"`dynlora pull {bucket}/{LORA}; dynlora ablate {LORA}`\.$"):
        run.plot.knockouts()


def test_runs_there_and_here_are_compared(bucket: str) -> None:
    push(SAMPLES / LORA, Place(bucket))
    push(SAMPLES / DYNAMIC, Place(bucket))
    here = dynlora.compare([LORA, DYNAMIC], SAMPLES)
    for runs, runs_dir in (
        ([LORA, DYNAMIC], bucket),
        ([f"{bucket}/{LORA}", SAMPLES / DYNAMIC], "runs"),
        ([dynlora.open_run(f"{bucket}/{LORA}"), f"{bucket}/{DYNAMIC}"], "runs"),
    ):
        there = dynlora.compare(runs, runs_dir)
        assert there.verdict == here.verdict
        assert there._repr_html_() == here._repr_html_()
        assert values(there.plot.capacity()) == values(here.plot.capacity())


def test_figures_keep_the_run_that_they_are_of(bucket: str) -> None:
    push(SAMPLES / MOVED, Place(bucket))
    plots = dynlora.open_run(f"{bucket}/{MOVED}").plot  # nothing else holds the run, whose folder goes with it
    gc.collect()
    assert len(plots.flow().table)


def test_what_was_sent_since_is_drawn(bucket: str, runs_dir: Path) -> None:
    going = Running(runs_dir)
    going.advance(10)
    push(going.folder, Place(bucket))
    plots = dynlora.open_run(f"{bucket}/{going.folder.name}").plot
    assert plots.capacity().table["step"].max() == 10
    going.advance(30)
    push(going.folder, Place(bucket))
    assert plots.capacity().table["step"].max() == 30
