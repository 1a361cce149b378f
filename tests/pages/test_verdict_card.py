"""The verdict is the first card of Compare and Run, agrees with the paired difference, and queues what is missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dynlora.errors import CorruptRunError
from dynlora.viz import verdict
from dynlora.viz.ui import run_actions
from tests.pages.app import open_page, open_whole, plain
from tests.viz.runs import make_run


def run_id(number: int) -> str:
    return f"20260101-000000-{number:08x}"


def make_both(runs_dir: Path, n: int) -> str:
    """Make n seeds of `dynamic` and of plain LoRA and return the address of them all."""
    for number in range(2 * n):
        strategy = "dynamic" if number < n else "lora"
        make_run(
            runs_dir,
            run_id=run_id(number),
            seed=number % n,
            strategy=strategy,
            gates=False,
            extras=True,
            moves=number < n,
        )
    return ",".join(map(run_id, range(2 * n)))


def test_compare_begins_with_a_verdict_that_agrees_with_the_paired_difference(runs_dir: Path) -> None:
    app = open_whole("compare", runs=make_both(runs_dir, 3))
    text = plain(app)
    begin, paired = text.index("##### Verdict"), text.index("##### Final results")
    assert begin < paired
    headline = text[text.index("**On sentiment4") :].partition("\n")[0]
    assert "is worse than" in headline or "is better than" in headline
    mean = headline.partition("loss ")[2].partition(" nats")[0]
    assert mean[0] in "+−"
    (pair, *_) = [line for line in text.splitlines() if "lora:" in line and "minus" in line]
    assert f"dynamic minus lora: {mean} nats" in pair, "one number, one sign"
    assert not [button for button in app.button if button.key == "verdict-run"], "it is clear already"


def test_too_few_seeds_are_one_press_from_enough(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps: list[tuple[dict[str, Any], dict[str, str], str]] = []

    def enqueue(config: dict[str, Any], lists: dict[str, str], _: Path, *, key: str) -> list[str]:
        sweeps.append((config, lists, key))
        return [run_id(90 + len(sweeps))]

    monkeypatch.setattr(run_actions, "enqueue_sweep", enqueue)
    address = make_both(runs_dir, 1)
    app = open_page("compare", runs=address)
    assert "have 1 common seed, too few to decide" in plain(app)
    button = app.button(key="verdict-run")
    assert button.label == "Add seeds: 4 runs, 15 s"
    button.click().run()
    assert [lists for _, lists, _ in sweeps] == [{"seed": "1,2"}, {"seed": "1,2"}]
    assert {config["strategy"]["name"] for config, _, _ in sweeps} == {"dynamic", "lora"}
    assert all(config["name"] is None for config, _, _ in sweeps)
    assert len({key for _, _, key in sweeps}) == 2
    assert app.query_params["runs"] in (
        f"{address},{run_id(91)},{run_id(92)}",
        [f"{address},{run_id(91)},{run_id(92)}"],
    )


def test_a_run_alone_leads_to_its_baseline(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=run_id(0), extras=True)
    app = open_page("run", run=run_id(0))
    assert "**No plain LoRA run to compare with**" in plain(app)
    assert [one.label for one in app.button if one.key == "start-twin"] == ["Train its plain LoRA baseline"]
    make_run(runs_dir, run_id=run_id(1), state="running", steps=7, seed=1)
    make_run(runs_dir, run_id=run_id(2), state="queued", strategy="lora", seed=1)
    app = open_page("run", run=run_id(1))
    assert not [one for one in app.button if one.key == "start-twin"], "its baseline waits already"


def test_a_run_alone_in_the_address_of_compare_brings_its_like(runs_dir: Path) -> None:
    make_both(runs_dir, 2)
    make_run(runs_dir, run_id=run_id(70), steps=50)
    app = open_page("compare", runs=run_id(0))
    assert "Select two or more runs" not in plain(app)
    chosen = app.multiselect(key="address-runs").value
    assert (chosen[0], sorted(chosen)) == (run_id(0), [run_id(number) for number in range(4)])


def test_a_neighbour_that_cannot_be_read_breaks_nothing(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    make_both(runs_dir, 3)
    with sqlite3.connect(runs_dir / run_id(2) / "run.db") as broken:
        broken.execute("UPDATE modules SET layer = -9223372036854775808")
    app = open_page("run", run=run_id(0))
    assert not app.error
    assert "2 seeds." in plain(app), "the third seed is the one that cannot be read"

    def unreadable(*_: object) -> list[object]:
        raise CorruptRunError("run x: run.db cannot be read")

    monkeypatch.setattr(verdict.RunPairs, "differences", unreadable)
    app = open_page("run", run=run_id(0))
    assert not app.error
    assert "There is no verdict, because a run on the same data cannot be read: run x" in plain(app)


def test_a_run_with_a_verdict_but_no_baseline_of_its_seed_gets_one(runs_dir: Path) -> None:
    make_both(runs_dir, 3)
    make_run(runs_dir, run_id=run_id(60), seed=7, extras=True)
    app = open_page("run", run=run_id(60))
    assert re.search(r"\*\*Yes: .* over lora\*\*", plain(app))
    assert [one.label for one in app.button if one.key == "start-twin"] == ["Train its plain LoRA baseline"]
