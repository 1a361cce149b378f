"""Agreement of a truncated adapter with the whole one: a curve that ends at one, kept with the decode."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynlora.errors import ConfigError
from dynlora.kinds.decode.work.run import nested_ranks
from dynlora.store.reader import RunReader
from tests.command_line import document, run
from tests.kinds.decode.conftest import STEP, Runs


def test_the_curve_rises_to_the_whole_adapter(runs: Runs) -> None:
    curve = nested_ranks(runs.folder / runs.draft, rows=12)
    assert [row["rank"] for row in curve] == [0, 1, 2, 4]
    shares = [row["share"] for row in curve]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert curve[-1]["agreement"] == 1
    assert curve[0]["agreement"] < 1, "the adapter does something"


def test_a_decode_keeps_it_where_asked(runs: Runs, runs_dir: Path) -> None:
    arguments = ("--draft", str(runs.folder / runs.draft), "--target", str(runs.folder / runs.target))
    short = ("--limit", "1", "--max-tokens", "4", "--step-string", STEP, "--reward", "oracle", "--json")
    report = document(run(runs_dir, "rsd", *arguments, *short, "--nested-ranks"))
    with RunReader(runs_dir / report["id"]) as reader:
        kept = reader.meta()["nested_ranks"]
    assert kept[-1]["agreement"] == pytest.approx(1)


def test_a_judge_has_none(runs: Runs) -> None:
    with pytest.raises(ConfigError, match="no completions to compare tokens on"):
        nested_ranks(runs.folder / runs.judge)
