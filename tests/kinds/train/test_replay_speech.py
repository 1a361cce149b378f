"""What the moving picture says: true of the ranks that it draws, in under a minute, for every sample run."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis.run_reading import RunReading, read_run
from dynlora.kinds.train.panels.replay import ModelReplay, due, speech
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import RunView
from tests.kinds.train.samples import TRAININGS
from tests.viz.growing import PLANNED, Running

PLAYER = (Path(__file__).resolve().parents[3] / "dynlora/viz/ui/replay/replay.js").read_text("utf-8")
CUT = re.compile(r"A cut removes ([\d,]+) ranks?, (\d+) of them in (.+)")
MOVE = re.compile(r"(?P<name>.+) (?P<verb>gives|gets) (?P<n>\d+) ranks?")


def spoken(run: RunReading) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the player draws of a run, and what it says."""
    panel = ModelReplay()
    values = panel.element_values(panel.data(RunView(run.folder, run, run.store)), theme.LIGHT)
    return values, speech(values, run)


def constant(name: str) -> float:
    """Return a number of the player's source."""
    match = re.search(rf"\b{name} = (\d+)", PLAYER)
    assert match is not None
    return float(match[1])


@pytest.mark.parametrize("folder", TRAININGS, ids=lambda folder: folder.name)
def test_each_sentence_is_true_of_what_is_drawn_and_all_is_said_within_a_minute(folder: Path) -> None:
    run = read_run(folder)
    values, script = spoken(run)
    ranks, names = np.array(values["rank"]), [module["short"] for module in values["modules"]]
    assert len(script["due"]) == len(values["steps"])
    moves = [cue for cue in script["cues"] if len(cue["rows"]) == 2]
    assert len({tuple(cue["words"]) for cue in moves}) == len(moves), "a move is told once"
    changes = np.diff(ranks, axis=0)
    assert bool(moves) == (changes < 0).any()
    for cue in moves:
        change = ranks[cue["frame"]] - ranks[cue["frame"] - 1]
        if cut := CUT.fullmatch(cue["words"][0]):
            assert (change <= 0).all()
            assert (int(cut[1].replace(",", "")), int(cut[2])) == (-change.sum(), -change[cue["rows"][0]])
            kept = int(ranks[cue["frame"]].max())
            assert cue["words"][1] == f"{names[cue['rows'][1]]} has {kept} rank{'' if kept == 1 else 's'} now"
            continue
        for row, words, sign in zip(cue["rows"], cue["words"], (-1, 1), strict=True):
            move = MOVE.fullmatch(words)
            assert move is not None
            assert move["name"] == names[row]
            assert change[row] == sign * int(move["n"])
    texts = " ".join(words for cue in script["cues"] for words in cue["words"])
    assert "A cell is one module" in texts
    assert f"{run.summary.params['budget']:,} parameters" in texts
    last = ranks[-1]
    assert f"has rank {last.max()}" in script["cues"][-1]["words"][0]
    events = sorted({int(step) for step in run.events["step"]})
    for step, words in zip(values["steps"], script["due"], strict=True):
        later = [event for event in events if event > step]
        assert not later or words == f"next reallocation: step {later[0]:,}"
    sentences = [words for cue in script["cues"] for words in cue["words"]]
    reading = sum(constant("READ_MS") + constant("LETTER_MS") * len(words) for words in sentences)
    playing = len(values["steps"]) * max(60, constant("PLAY_MS") / len(values["steps"]))
    assert reading + playing < 45_000, "a page needs time to load"


def reading(planned: int | None, events: list[int], status: str = "running", **strategy: Any) -> RunReading:
    """Return a run of which nothing is known but its schedule."""
    facts = {"status": status, "planned_events": planned, "first_reallocation": 51, "config": {"strategy": strategy}}
    run = read_run(TRAININGS[0])
    return replace(run, summary=run.summary.model_copy(update=facts), events=pd.DataFrame({"step": events}))


@pytest.mark.parametrize(
    ("run", "step", "words"),
    [
        (reading(4, []), 20, "next reallocation: step 51"),
        (reading(4, [51], allocate_every=15), 55, "next reallocation: step 66"),
        (reading(4, [51, 66]), 70, "next reallocation: step 81"),
        (reading(4, [51, 66, 81, 96]), 99, "no reallocation left"),
        (reading(4, [51, 66], "stopped"), 70, ""),
        (reading(None, []), 20, ""),
    ],
)
def test_the_next_reallocation_is_the_one_that_is_due(run: RunReading, step: int, words: str) -> None:
    assert due(run, step) == words


def test_a_run_that_trains_does_not_speak_of_its_end(tmp_path: Path) -> None:
    run = Running(tmp_path)
    run.advance(40)
    _, script = spoken(read_run(run.folder))
    assert not any("At the end" in words for cue in script["cues"] for words in cue["words"])
    assert read_run(run.folder).summary.step < PLANNED


def test_another_run_of_the_same_length_is_another_picture(tmp_path: Path) -> None:
    """The player keeps its frames while the version is the same; a run is never drawn with those of another one."""
    first = TRAININGS[0]
    second = shutil.copytree(first, tmp_path / "20260101-000000-00000001")
    runs = [read_run(folder) for folder in (first, second)]
    assert runs[0].store.version(first) == runs[1].store.version(second)
    one, other = (spoken(run)[0] for run in runs)
    assert one["rank"] == other["rank"]
    assert one["version"] != other["version"]


def test_the_caption_begins_with_what_is_shown_first() -> None:
    (folder,) = (one for one in TRAININGS if one.name == "20261205-144220-e2a46b83")
    run = replace(read_run(folder), signal="rank")
    panel = ModelReplay()
    assert panel.caption(panel.data(RunView(folder, run, run.store))).startswith("Highest rank: 7 in attn out 1.")
