"""What benchmarks make of their runs: domains joined row by row, and which way a small form must point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as every
from benchmarks import directions, domains
from benchmarks.domains import DomainJob, by_domain, overall, table_of


def made(left_out: str, gates: str, seed: int, losses: dict[str, list[int]]) -> dict[str, Any]:
    read = [(name, loss) for name, values in losses.items() for loss in values]
    return {
        "job": vars(DomainJob(gates, left_out, seed)),
        "domain": [name for name, _ in read],
        "loss": [loss for _, loss in read],
        "right": "1" * len(read),
    }


def test_what_gates_gain_on_new_domains_is_told_from_what_they_gain_on_known_ones() -> None:
    runs = []
    for seed in (100, 101, 102):
        runs.append(made("all", "off", seed, {"a": [400, 500], "b": [300]}))
        runs.append(made("all", "module", seed, {"a": [390, 490], "b": [290]}))
        for name, count in (("a", 2), ("b", 1)):
            runs.append(made(name, "off", seed, {name: [600] * count}))
            runs.append(made(name, "module", seed, {name: [570] * count}))
    table = table_of(runs)
    (row,) = overall(table)
    assert (row["gates"], row["seeds"], row["domains"]) == ("module", [100, 101, 102], ["a", "b"])
    assert [row[kind]["mean"] for kind in ("seen", "unseen", "between")] == pytest.approx([-0.01, -0.03, -0.02])
    rows = {(row["trained_without"], row["domain"], row["gates"]): row for row in by_domain(table)}
    assert rows["a", "a", "module"]["loss_difference"]["mean"] == pytest.approx(-0.03)
    assert rows["all", "b", "off"]["loss"] == pytest.approx(0.3)
    assert "loss_difference" not in rows["all", "b", "off"]


def test_a_seed_that_lacks_a_domain_is_left_out() -> None:
    runs = [made("all", gates, seed, {"a": [400]}) for gates in ("off", "module") for seed in (100, 101)]
    runs += [made("a", gates, 100, {"a": [500]}) for gates in ("off", "module")]
    (row,) = overall(table_of(runs))
    assert row["seeds"] == [100]


def test_every_run_of_a_benchmark_has_a_name_of_its_own() -> None:
    jobs = [
        DomainJob(gates, "all", 100, steps, rank) for gates in domains.GATES for steps in (0, 12) for rank in (1, 4)
    ]
    assert len({job.file_name for job in jobs}) == len(jobs)


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
