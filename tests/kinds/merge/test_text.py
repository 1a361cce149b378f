"""What the page says of a merge, against one that is easy to check by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora.kinds.merge import result
from dynlora.kinds.merge.panels.merged import HeldOutLoss, Losses, Ranks, RanksByModule
from dynlora.kinds.merge.result import Merge
from dynlora.viz.kit import theme
from tests.kinds.merge.written import PLAN, RESULTS, SOURCES, interval, written_merge
from tests.viz.drawn import traces_of


def with_results(**changed: Any) -> dict[str, Any]:
    return {"merge_results": {**RESULTS, **changed}}


def test_the_conclusion_names_each_difference_with_its_interval_and_n(tmp_path: Path) -> None:
    merge = Merge.read(written_merge(tmp_path))
    higher, alike = merge.headline().split(";")
    assert "is significantly higher" in higher
    assert "tales (+0.300, 95 % CI +0.290 to +0.310, n = 80)" in higher
    assert "not significantly different" in alike
    assert "sums (+0.005, 95 % CI −0.005 to +0.015, n = 80)" in alike
    assert "sums (−0.995, 95 % CI −1.005 to −0.985, n = 80) and tales (−0.500" in merge.basis()
    assert "50 parameters, 50 % of the 100" in merge.basis()


def test_many_sources_are_named_without_their_numbers(tmp_path: Path) -> None:
    sources = [{**SOURCES[0], "run": f"s{number}", "name": f"task {number}"} for number in range(5)]
    losses = {f"s{number}": {"merge": interval(0.0)} for number in range(5)}
    plan = {**PLAN, "sources": sources}
    merge = Merge.read(written_merge(tmp_path, merge=plan, **with_results(against_own=losses)))
    assert merge.headline().endswith("on the data of task 0, task 1, task 2 and 2 more.")


def test_a_merge_of_which_no_data_could_be_read_says_so(tmp_path: Path) -> None:
    nothing: dict[str, Any] = with_results(
        loss={}, against_own={}, against_base={}, notes=["the data of source s1 cannot be read"]
    )
    merge = Merge.read(written_merge(tmp_path, **nothing))
    assert "was not tested" in merge.headline()


def test_the_loss_is_drawn_by_source_and_the_ranks_by_module(tmp_path: Path) -> None:
    merge = Merge.read(written_merge(tmp_path))
    rows = result.loss_frame(merge)
    assert rows["model"].tolist() == ["Merge", "Its own adapter", "Base model"] * 2
    drawn = traces_of(HeldOutLoss().figure(Losses(merge, rows), theme.LIGHT))
    assert [list(trace.x) for trace in drawn] == [[2.005, 2.5], [2.0, 2.2], [3.0, 3.0]]
    ranks = result.ranks_frame(merge)
    assert ranks.columns.tolist() == ["module", "Merge", "sums", "tales"]
    drawn = traces_of(RanksByModule().figure(Ranks(merge, ranks), theme.DARK))
    assert [list(trace.y) for trace in drawn] == [[3, 2, 0], [4, 2, 0], [2, 0, 2]]
    assert result.difference_frame(merge)["difference"].tolist() == [0.005, -0.995, 0.3, -0.5]
    assert result.sources_frame(merge)["weight"].tolist() == [0.5, 0.5]
