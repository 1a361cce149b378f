"""A recycle that is killed by a signal that nobody can catch, and continued, is what nobody disturbed, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.kill_kinds import campaign
from tests.faults.marks import NOT_ON_WINDOWS

PLACES = {
    "loading": "dynlora.kinds.recycle.work.materials:Materials.load@1",
    "in an inversion": "dynlora.kinds.recycle.work.materials:Inversion.advance@6",
    "in meta-training": "dynlora.kinds.recycle.work.steps:MetaTraining.advance@3",
    "in the control": "dynlora.kinds.recycle.work.steps:MetaTraining.advance@6",
    "before a checkpoint": "dynlora.training.stepwise:write_checkpoint@4",
    "in the test": "dynlora.kinds.recycle.work.run:RecycleMetrics._take@2",
    "before the adapter is written": "dynlora.training.stepwise:adapter_state@1",
    "at the end": "dynlora.store.writer:RunWriter.finish@1",
}
TWICE = f"{PLACES['in an inversion']},{PLACES['in meta-training']}"
SOME = (PLACES["in an inversion"], PLACES["in the control"], PLACES["at the end"], TWICE)


def kill_at(trials: Sequence[str], taught: Path, teachers: Sequence[str], folder: Path) -> None:
    """Kill a recycle of 12 steps of inversion and 4 episodes, and 4 of the control, at places."""
    command = (
        "recycle",
        *(str(taught / teacher) for teacher in teachers),
        "--iterations",
        "4",
        "--inputs",
        "5",
        "--tokens",
        "6",
        "--shots",
        "1,2",
        "--ways",
        "3",
        "--episodes",
        "4",
        "--queries",
        "3",
        "--test-episodes",
        "12",
        "--rank",
        "2",
        "--noise",
    )
    assert campaign(folder, trials, command) == dict.fromkeys(trials, "equal")


@NOT_ON_WINDOWS
@pytest.mark.journey
def test_a_recycle_that_is_killed_continues_bit_for_bit(taught: Path, teacher_ids: list[str], tmp_path: Path) -> None:
    kill_at(SOME, taught, teacher_ids, tmp_path)


@NOT_ON_WINDOWS
@pytest.mark.torture
def test_a_recycle_may_be_killed_anywhere(taught: Path, teacher_ids: list[str], tmp_path: Path) -> None:
    inverting = (f"dynlora.kinds.recycle.work.materials:Inversion.advance@{visit}" for visit in range(1, 13))
    learning = (f"dynlora.kinds.recycle.work.steps:MetaTraining.advance@{visit}" for visit in range(1, 9))
    kept = (f"dynlora.training.stepwise:write_checkpoint@{visit}" for visit in range(1, 10))
    kill_at((*PLACES.values(), *inverting, *learning, *kept), taught, teacher_ids, tmp_path)
