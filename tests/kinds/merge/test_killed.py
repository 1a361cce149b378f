"""A merge that is killed by a signal that nobody can catch, and continued, is what nobody disturbed, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.kill_kinds import campaign
from tests.faults.marks import NOT_ON_WINDOWS

PLACES = {
    "loading": "dynlora.kinds.merge.work.run:Materials.load@1",
    "in a module": "dynlora.kinds.merge.work.run:merged_components@4",
    "in the test": "dynlora.kinds.merge.work.run:Merging._measured@2",
    "before a checkpoint": "dynlora.training.stepwise:write_checkpoint@3",
    "before the adapter is written": "dynlora.training.stepwise:adapter_state@1",
    "at the end": "dynlora.store.writer:RunWriter.finish@1",
}
TWICE = f"{PLACES['in a module']},{PLACES['in the test']}"
SOME = (PLACES["in the test"], PLACES["before the adapter is written"], TWICE)


def kill_at(trials: Sequence[str], taught: Path, teachers: Sequence[str], folder: Path) -> None:
    """Kill a merge by a method that draws, at places."""
    command = ("merge", *(str(taught / teacher) for teacher in teachers), "--method", "dare", "--rows", "20")
    assert campaign(folder, trials, command) == dict.fromkeys(trials, "equal")


@NOT_ON_WINDOWS
@pytest.mark.journey
def test_a_merge_that_is_killed_continues_bit_for_bit(taught: Path, teacher_ids: list[str], tmp_path: Path) -> None:
    kill_at(SOME, taught, teacher_ids, tmp_path)


@NOT_ON_WINDOWS
@pytest.mark.torture
def test_a_merge_may_be_killed_anywhere(taught: Path, teacher_ids: list[str], tmp_path: Path) -> None:
    modules = (f"dynlora.kinds.merge.work.run:Merging.advance@{visit}" for visit in range(1, 16))
    checkpoints = (f"dynlora.training.stepwise:write_checkpoint@{visit}" for visit in range(1, 16))
    kill_at((*PLACES.values(), *modules, *checkpoints), taught, teacher_ids, tmp_path)
