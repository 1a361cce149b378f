"""A decode that is killed by a signal that nobody can catch, and continued, is what nobody disturbed, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill_kinds import campaign
from tests.faults.marks import NOT_ON_WINDOWS
from tests.kinds.decode.conftest import STEP, Runs

PLACES = {
    "before the first problem": "dynlora.kinds.decode.work.run:_decoded@1",
    "solving": "dynlora.kinds.decode.work.writer:Writer._logits@30",
    "before a problem is stored": "dynlora.store.writer:Recording._commit@6",
    "between problems": "dynlora.kinds.decode.work.run:tqdm.update@4",
    "after the last problem of a point": "dynlora.kinds.decode.work.run:_end_of_point@2",
    "at the end": "dynlora.store.writer:RunWriter.finish@1",
}
TWICE = f"{PLACES['solving']},dynlora.kinds.decode.work.writer:Writer._logits@20"
SOME = (PLACES["solving"], PLACES["between problems"], PLACES["at the end"], TWICE)


def kill_at(trials: tuple[str, ...], runs: Runs, folder: Path) -> None:
    """Kill a decode at places; a reward that no rounding touches, and one that is drawn."""
    command = (
        "rsd",
        "--draft",
        str(runs.folder / runs.draft),
        "--target",
        str(runs.folder / runs.target),
        "--reward",
        "oracle",
        "--threshold",
        "0.5",
        "--control",
        "0.5",
        "--step-string",
        STEP,
        "--max-tokens",
        "24",
        "--step-tokens",
        "5",
        "--limit",
        "6",
    )
    assert campaign(folder, trials, command) == dict.fromkeys(trials, "equal")


@NOT_ON_WINDOWS
@pytest.mark.journey
def test_a_decode_that_is_killed_continues_bit_for_bit(runs: Runs, tmp_path: Path) -> None:
    kill_at(SOME, runs, tmp_path)


@NOT_ON_WINDOWS
@pytest.mark.torture
def test_a_decode_may_be_killed_anywhere(runs: Runs, tmp_path: Path) -> None:
    solving = (f"dynlora.kinds.decode.work.writer:Writer._logits@{visit}" for visit in range(2, 80, 6))
    stored = (f"dynlora.store.writer:Recording._commit@{visit}" for visit in range(1, 30))
    kill_at((*PLACES.values(), *solving, *stored), runs, tmp_path)
