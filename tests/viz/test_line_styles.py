"""A configuration looks the same in every chart of Compare; of many a few are in colour, with names that stay apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.analysis.seed_groups import Group
from dynlora.viz.compare.model import best_first
from dynlora.viz.kit import theme
from dynlora.viz.kit.run_colours import MOST_COLOURED, apart, line_styles, short_label

NAMES = [f"method {i} (from its code), n = 3" for i in range(15)]


def test_of_many_the_first_or_the_chosen_are_in_colour_and_the_rest_grey() -> None:
    styles = line_styles(NAMES, theme.LIGHT)
    assert [name for name in NAMES if not styles[name].is_muted] == NAMES[:MOST_COLOURED]
    chosen = line_styles(NAMES, theme.LIGHT, {NAMES[9], NAMES[2]})
    assert [name for name in NAMES if not chosen[name].is_muted] == [NAMES[2], NAMES[9]]
    assert len({style.colour for style in chosen.values()}) == 3
    few = line_styles(NAMES[:4], theme.LIGHT)
    assert not any(style.is_muted for style in few.values())
    assert len({(style.colour, style.symbol) for style in few.values()}) == 4


def test_a_choice_that_is_not_there_any_more_counts_for_nothing() -> None:
    assert line_styles(NAMES, theme.DARK, {"gone"}) == line_styles(NAMES, theme.DARK)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("dynamic (reconstruction), allocation random, n = 3", "dynamic, allocation…"),
        ("lora (from its code), n = 12", "lora"),
        ("lora", "lora"),
    ],
)
def test_the_name_at_a_line_leaves_fidelity_and_runs_out(name: str, short: str) -> None:
    assert short_label(name) == short


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-5, 5), max_size=12), st.floats(0.01, 1))
def test_names_are_moved_apart_in_their_order_and_no_further_than_needed(places: dict[str, float], gap: float) -> None:
    places_apart = apart(places, gap)
    order = sorted(places, key=places.__getitem__)
    moved = [places_apart[name] for name in order]
    assert all(b - a >= gap - 1e-9 for a, b in zip(moved, moved[1:], strict=False))
    far = all(places[b] - places[a] >= gap for a, b in zip(order, order[1:], strict=False))
    if far:
        assert moved == pytest.approx([places[name] for name in order])
    if places:
        assert sum(moved) == pytest.approx(sum(places.values()), abs=1e-6)


def test_groups_come_best_first_and_those_without_a_result_last() -> None:
    def summary(value: float | None) -> dict:
        return {"metrics": {} if value is None else {"accuracy": value, "loss": value}, "params": {}}

    summaries = {"a": summary(0.5), "b": summary(None), "c": summary(0.9)}
    groups = [Group(run, (run,)) for run in summaries]
    assert [group.label for group in best_first(summaries, groups, "accuracy")] == ["c", "a", "b"]
    assert [group.label for group in best_first(summaries, groups, "loss")] == ["a", "c", "b"]
