"""What the page says of a merge, against one that is easy to check by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
    assert merge.headline() == (
        "The merge's held-out loss is significantly higher than that of the run's own adapter on the data of tales "
        "(+0.300, 95 % CI +0.290 to +0.310, n = 80); it is not significantly different from that of the run's own "
        "adapter on the data of sums (+0.005, 95 % CI −0.005 to +0.015, n = 80)."
    )
    assert merge.basis() == (
        "The merge's held-out loss is significantly lower than that of the base model on the data of sums (−0.995, "
        "95 % CI −1.005 to −0.985, n = 80) and tales (−0.500, 95 % CI −0.510 to −0.490, n = 80). The merge has 50 "
        "parameters, 50 % of the 100 of 2 adapters together, which are combined by weighted sum. The gates of source "
        "s2 count as their means in the merge."
    )


def test_many_sources_are_named_without_their_numbers(tmp_path: Path) -> None:
    sources = [{**SOURCES[0], "run": f"s{number}", "name": f"task {number}"} for number in range(5)]
    losses = {f"s{number}": {"merge": interval(0.0)} for number in range(5)}
    plan = {**PLAN, "sources": sources}
    merge = Merge.read(written_merge(tmp_path, merge=plan, **with_results(against_own=losses)))
    assert merge.headline() == (
        "The merge's held-out loss is not significantly different from that of the run's own adapter on the data of "
        "task 0, task 1, task 2 and 2 more."
    )


@pytest.mark.parametrize(("step", "phrase"), [(1, "the updates of each module are merged"), (4, "is measured on")])
def test_a_merge_at_work_says_what_it_does(step: int, phrase: str, tmp_path: Path) -> None:
    merge = Merge.read(written_merge(tmp_path, state=None, until=step))
    assert phrase in merge.progress(step)
    assert merge.headline() == "Not tested yet."
    assert (merge.basis() == result.WHAT) is (step < 3)


def test_a_merge_of_which_no_data_could_be_read_says_so(tmp_path: Path) -> None:
    nothing: dict[str, Any] = with_results(
        loss={}, against_own={}, against_base={}, notes=["the data of source s1 cannot be read"]
    )
    merge = Merge.read(written_merge(tmp_path, **nothing))
    assert merge.headline() == "No held-out data could be read, so the merge was not tested."


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


def test_values_of_another_kind_count_as_never_written(tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "merge": {"sources": 3, "weights": ["x"], "stages": None},
        "merge_results": {"loss": [1], "notes": 7},
    }
    merge = Merge.read(written_merge(tmp_path, **odd))
    assert (merge.sources, merge.weights, merge.stages, merge.loss, merge.notes) == ((), (), (), (), ())
    assert merge.headline() == "Not tested yet."
    assert result.loss_frame(merge).empty
    assert result.ranks_frame(merge).empty
