"""The ranks to use stand on Run and Capacity once a run has ended, with the code that trains them again."""

from __future__ import annotations

from pathlib import Path

from dynlora.store.lifecycle import annotate
from tests.pages.app import open_page, open_whole, plain
from tests.viz.runs import HOSTILE, make_run

RUN, OTHER = "20260101-000000-00000001", "20260101-000000-00000002"


def test_a_finished_run_hands_over_its_ranks(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN, seed=0, gates=False)
    make_run(runs_dir, run_id=OTHER, seed=1, gates=False)
    app = open_whole("capacity", run=RUN)
    text = plain(app)
    assert "##### Ranks to use" in text
    assert "2 seeds" in text
    (code,) = [code.value for code in app.code if code.language == "python"]
    compile(code, "config", "exec")
    assert "target_modules=" in code
    table = next(frame.value for frame in app.dataframe if "mean rank" in frame.value)
    assert (table["update norm"] > 0).all(), "of the last step, not of the first"


def test_a_run_that_has_not_ended_hands_over_nothing(runs_dir: Path) -> None:
    annotate(make_run(runs_dir, run_id=RUN), state="running")
    assert "LoraConfig" not in str([code.value for code in open_page("run", run=RUN).code])


def test_a_hostile_run_shows_text(runs_dir: Path) -> None:
    annotate(
        make_run(runs_dir, run_id=RUN), meta={"peft_task_type": HOSTILE[0], "scaling": {"a": "b", "c": -(10**400)}}
    )
    app = open_page("run", run=RUN)
    (code,) = [code.value for code in app.code if code.language == "python"]
    compile(code, "config", "exec")
