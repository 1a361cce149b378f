"""What benchmarks keep while they work: nothing of other roles or settings, and nothing that a kill tore."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from benchmarks import rsd
from benchmarks.recycle.intents import Intents
from benchmarks.recycle.setting import Setting
from benchmarks.recycle.work import Work
from dynlora.kinds.decode.work.solve import Point

WAYS = [("target", Point("target"), None), ("constant 0.5", Point("constant", 0.5), None)]


def plan_of(draft: str = "a", data: str = "b") -> Any:
    """Return as much of a plan as the cache reads: two problems."""
    meta = {"roles_saved": {"draft": draft, "target": "t"}, "digest": data, "step_string": "\n"}
    return SimpleNamespace(meta=meta, problems=[SimpleNamespace(index=0), SimpleNamespace(index=1)])


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Problems and ways that were solved, in order."""
    calls: list[tuple[int, str]] = []

    def solutions(plan: Any, problem: Any, missing: Any) -> Iterator[dict[str, Any]]:
        for name, _, _ in missing:
            calls.append((problem.index, name))
            yield {"problem": problem.index, "point": name}

    monkeypatch.setattr(rsd, "ways_of", lambda plan: WAYS)
    monkeypatch.setattr(rsd, "solutions", solutions)
    return calls


def test_a_solution_is_kept_until_roles_or_data_change(solved: list[tuple[int, str]], tmp_path: Path) -> None:
    file = tmp_path / "rsd.jsonl"
    first = list(rsd.complete(plan_of(), file))
    assert len(solved) == 4
    assert list(rsd.complete(plan_of(), file)) == first
    assert len(solved) == 4, "nothing is solved again"
    list(rsd.complete(plan_of(draft="another"), file))
    list(rsd.complete(plan_of(data="another"), file))
    assert len(solved) == 12
    assert list(rsd.complete(plan_of(), file)) == first
    assert len(solved) == 12, "what others kept harms nothing"


def test_a_line_that_was_torn_is_dropped_and_solved_again(solved: list[tuple[int, str]], tmp_path: Path) -> None:
    file = tmp_path / "rsd.jsonl"
    first = list(rsd.complete(plan_of(), file))
    file.write_bytes(file.read_bytes()[:-9])
    assert list(rsd.complete(plan_of(), file)) == first
    assert solved[4:] == [(1, "constant 0.5")]
    assert len([json.loads(line) for line in file.read_text("utf-8").splitlines()]) == 4


def intents() -> Intents:
    rows = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]})
    return Intents(rows, rows, ["x"], ["y"])


def test_work_of_another_setting_or_other_texts_is_left_alone(tmp_path: Path) -> None:
    first = Work.below(tmp_path, Setting(), intents())
    first.figures["accuracy"]["base"] = {"1": [0.5]}
    first.keep()
    assert Work.below(tmp_path, Setting(seeds=5), intents()).figures == first.figures, "more seeds only add figures"
    other = intents()
    other.train = other.train.assign(text=["a", "c"])
    for setting, texts in ((Setting(episodes=3), intents()), (Setting(), other)):
        assert Work.below(tmp_path, setting, texts).figures == {"accuracy": {}, "seconds": {}}


def test_a_torn_object_is_dropped_and_none_is_written_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work.below(tmp_path, Setting(), intents())
    work.keep()
    file = work.folder / "found.json"
    before = file.read_text("utf-8")
    work.figures["accuracy"]["base"] = {"1": [0.5]}

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            work.keep()
    assert file.read_text("utf-8") == before
    file.write_text(before[:-3], "utf-8")
    assert Work.below(tmp_path, Setting(), intents()).figures == {"accuracy": {}, "seconds": {}}
