"""Which way the small form of each benchmark must point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as every
from benchmarks import directions


def test_a_figure_that_points_the_wrong_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "RESULTS", tmp_path)
    figures = {"ratios": {"lora": {"run_glue": 0.9}}}
    (tmp_path / "throughput-quick.json").write_text(json.dumps({"figures": figures}), "utf-8")
    assert directions.wrong_ways("throughput") == ["not so: lora trains more samples a second than run_glue"]
    figures["ratios"]["lora"]["run_glue"] = 1.1
    (tmp_path / "throughput-quick.json").write_text(json.dumps({"figures": figures}), "utf-8")
    assert directions.wrong_ways("throughput") == []


def test_a_check_that_is_no_quicker_warm_points_the_wrong_way() -> None:
    figures = {"start until queued": 1.0, "start until the first step": 2.0, "check, warm": 2.0, "check, cold": 8.0}
    assert all(holds for _, holds in directions.waits({"waits": figures}))
    slow = {**figures, "check, warm": 8.5}
    assert [holds for _, holds in directions.waits({"waits": slow})] == [True, False]


def test_each_benchmark_has_a_direction_and_is_run(tmp_path: Path) -> None:
    quick = [command[0] for command in every.commands(None, quick=True)]
    assert sorted(quick) == sorted(directions.CHECKS)
    whole = list(every.commands(tmp_path, quick=False))
    assert {command[0] for command in whole} == set(directions.CHECKS)
    assert ["quality", "tune", "--data", str(tmp_path)] in whole
    assert not {"quality", "methods"} & {command[0] for command in every.commands(None, quick=False)}
