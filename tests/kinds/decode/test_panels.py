"""What the Decode page says, against decodes that are easy to count by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynlora.analysis.frames import SnapshotQueries
from dynlora.kinds.decode import frames
from dynlora.kinds.decode.panels.accuracy import AccuracyAgainstCost, Frontier
from dynlora.kinds.decode.panels.solution import SolutionSteps
from dynlora.kinds.decode.result import Decode, read_decode
from dynlora.kinds.run_kind import kind_of_run
from dynlora.server.serve import sample_runs_dir
from dynlora.store.writer import RunWriter
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import RunView
from tests.kinds.decode.written import FLOPS, POINTS, RIGHT, solution, written_decode
from tests.viz.drawn import traces_of


@pytest.fixture
def decode(tmp_path: Path) -> Decode:
    return read_decode(written_decode(tmp_path))


def test_each_point_has_its_accuracy_and_its_cost(decode: Decode) -> None:
    table = frames.by_point(decode).set_index("key")
    assert table["accuracy"].to_dict() == {key: sum(right) / 4 for key, right in RIGHT.items()}
    assert table["flops"].to_dict() == FLOPS
    assert (table.at["threshold=0.5", "accepted"], table.at["target", "problems"]) == (0.75, 4)
    assert (table["low"] < table["accuracy"]).all()
    assert (table["accuracy"] < table["high"]).all()


def test_the_conclusion_is_the_best_and_cheapest_threshold_against_the_target(decode: Decode) -> None:
    point = frames.best(decode)
    assert point is not None
    assert point.key == "threshold=0.5"
    assert "Too few problems" in frames.headline(decode, point), "4 of them"
    assert "60 % of the target's" in frames.headline(decode, point)
    basis = frames.basis(decode, point)
    for part in ("3 of 4 right (difference +0.0 points", "1 of 4 right", "Of 2 thresholds", "cost (+50.0"):
        assert part in basis


def test_without_a_threshold_as_good_as_the_target_the_most_accurate_is_shown(tmp_path: Path) -> None:
    points = [POINTS[2] | {"accept": "clip"}, {"key": "draft", "accept": "clip", "value": 0.1}, POINTS[4]]
    written = read_decode(written_decode(tmp_path, points=points))
    point = frames.best(written)
    assert point is not None
    assert point.key == "draft", "as accurate as the other and cheaper"


def test_a_paired_difference_counts_only_problems_that_both_solved(tmp_path: Path) -> None:
    folder = written_decode(tmp_path, state=None)
    with RunWriter.open(folder, resume_from=18) as writer:  # the target had solved two of four
        writer.finish("stopped")
    gap = frames.difference(read_decode(folder), "draft", "target")
    assert gap is not None
    assert (gap.n, gap.mean) == (2, -0.5)


def test_rejected_steps_are_counted_with_the_text_that_was_rejected(decode: Decode) -> None:
    frame = frames.steps_frame(decode, "threshold=0.5")
    rejected = frame[~frame["accepted"]]
    assert len(frame) == 8
    assert rejected["text"].tolist() == ["#### 99", "#### 99"]


def test_tokens_add_up_and_the_target_comes_first(decode: Decode) -> None:
    frame = frames.tokens_frame(decode, "threshold=0.5")
    assert frame["problem"].tolist() == [2, 4, 1, 3]
    assert frame[["draft kept", "draft discarded", "target"]].sum().tolist() == [12, 6, 4]


def test_reliability_counts_each_solution_of_a_point_once_per_bin(decode: Decode) -> None:
    frame = frames.reliability(decode, "threshold=0.5")
    assert (frame["steps"].tolist(), frame["solutions"].tolist(), frame["right"].tolist()) == ([6], [4], [0.75])
    assert frames.reliability(decode, "target").empty


def test_a_solution_is_drawn_step_by_step_and_nothing_of_it_is_markup(decode: Decode) -> None:
    one = frames.solutions_of(decode, "threshold=0.5")[1]
    drawn = frames.solution_html(one, decode.points[0], theme.DARK)
    assert drawn.count("class='dl-step'") == 3
    assert "<s>#### 99</s>" in drawn


def test_texts_of_a_hostile_run_are_escaped(tmp_path: Path) -> None:
    folder = written_decode(tmp_path, problems=1, points=POINTS[:1], state=None)
    bad = solution("threshold=0.5", 0)
    bad["steps"][0] |= {"text": "<script>alert(1)</script>", "by": "<b>"}
    with RunWriter.open(folder, resume_from=0) as writer:
        writer.event(1, "problem", [], bad)
        writer.finish("finished")
    written = read_decode(folder)
    drawn = frames.solution_html(written.solutions[0], written.points[0], theme.LIGHT)
    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn


@pytest.mark.parametrize(
    "payload",
    [{}, {"problem": -1, "point": "target"}, {"problem": True}, {"problem": 1, "point": "unknown"}, {"problem": "1"}],
)
def test_a_solution_that_fits_nothing_is_left_out(payload: dict[str, object], tmp_path: Path) -> None:
    folder = written_decode(tmp_path, problems=1, state=None)
    with RunWriter.open(folder, resume_from=0) as writer:
        writer.event(1, "problem", [], payload)
        writer.finish("finished")
    written = read_decode(folder)
    assert written.solutions == ()
    assert frames.best(written) is None
    assert frames.headline(written, None) == "No problem has been solved yet."


def test_a_value_of_another_kind_counts_as_none(tmp_path: Path) -> None:
    folder = written_decode(tmp_path, problems=1, points=POINTS[:1], state=None, nested_ranks=[{"rank": "x"}, 3])
    odd = {
        **solution("threshold=0.5", 0),
        "right": "yes",
        "flops": "many",
        "tokens": [1],
        "steps": [3, {"reward": "x"}],
    }
    with RunWriter.open(folder, resume_from=0) as writer:
        writer.event(1, "problem", [], odd)
        writer.finish("finished")
    one = read_decode(folder).solutions[0]
    assert (one.right, one.flops, one.draft_kept, [step.reward for step in one.steps]) == (None, 0.0, 0, [None, None])


def test_nested_ranks_are_in_their_order(tmp_path: Path) -> None:
    ranks = [{"rank": 4, "share": 0.5, "agreement": 0.9}, {"rank": 1, "share": 0.1, "agreement": 0.6}]
    frame = frames.nested_frame(read_decode(written_decode(tmp_path, nested_ranks=ranks)))
    assert frame["rank"].tolist() == [1, 4]


def test_the_frontier_rings_the_chosen_point(decode: Decode) -> None:
    table = frames.by_point(decode)
    drawn = AccuracyAgainstCost().figure(Frontier(table, table, "flops", "threshold=0.9"), theme.LIGHT)
    assert list(traces_of(drawn)[-1].x) == [80]


def test_a_sample_decode_opens_where_draft_and_target_share_the_work_and_the_answer_is_right() -> None:
    """At the recommended threshold of the sample no such problem ended right: the first one shown was wrong."""
    (folder,) = (one for one in sample_runs_dir().iterdir() if one.is_dir() and kind_of_run(one).name == "decode")
    written = read_decode(folder)
    view = RunView(folder, written, SnapshotQueries(), {})
    solved = SolutionSteps().data(view)
    assert solved is not None
    assert solved.solution.right is True
    assert {step.by for step in solved.solution.steps} == {"draft", "target"}
    target, opened = (frames.solutions_of(written, key) for key in ("target", solved.point.key))
    assert sum(one.right is True for one in opened) >= sum(one.right is True for one in target)
