"""Where components are in runs whose data says which modules need rank: one sentence, and none without the truth."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.analysis.planted_ranks import (
    compared_sentence,
    needed_modules,
    outlined,
    placement_sentence,
    placements,
)
from dynlora.store.summary import RunSummary

RANKS = {"a": 5, "b": 0, "c": 1, "d": 2}


def summary(
    ranks: dict[str, int] | None = None, sizes: Any = ("a", "b"), error: float | None = 0.25, **more: Any
) -> RunSummary:
    sizes = dict.fromkeys(sizes, 1.0) if isinstance(sizes, tuple) else sizes
    values = {
        "id": "",
        "name": "",
        "status": "finished",
        "ranks": RANKS if ranks is None else ranks,
        "task_facts": {"planted": {"seed": 0, "rank": 8, "sizes": sizes}},
        "config": {"adapter": {"rank": 2}, "data": {"planted_strength": 0.3}},
        "metric": "relative_error",
        "metrics": {} if error is None else {"relative_error": error},
        **more,
    }
    return RunSummary.model_validate(values)


def test_a_sentence_says_how_many_components_stand_where_they_are_needed() -> None:
    assert placement_sentence(summary()) == (
        "5 of 8 components are in the 2 modules that need them (uniform LoRA: 4 of 8)."
    )
    assert placement_sentence(summary(), {"a": 1, "b": 1, "c": 6}).startswith("2 of 8 components are")
    uniform = placement_sentence(summary(dict.fromkeys(RANKS, 2)))
    assert uniform == "4 of 8 components are in the 2 modules that need them, as with uniform LoRA."
    one = placement_sentence(summary({"a": 1}, ("a",), config={}))
    assert one == "1 of 1 component is in the 1 module that needs them."


def test_a_run_without_the_truth_or_before_its_first_rank_has_no_sentence() -> None:
    for run in (summary(task_facts={}), summary(ranks={}), summary(sizes=("other",)), summary(sizes={})):
        assert placement_sentence(run) == ""
        assert placements({"a": [run]}) == {}
        assert compared_sentence({"a": [run], "b": [summary()]}) == ""
    assert (outlined(summary()), outlined(summary(task_facts={}))) == ("Outlined: where rank is needed.", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@given(JSON, JSON, JSON)
def test_whatever_a_damaged_run_says_of_its_truth_is_text_or_nothing(facts: Any, planted: Any, sizes: Any) -> None:
    for one in (facts, {"planted": planted}, {"planted": {"sizes": sizes, "seed": planted}}):
        run = summary(task_facts=one)
        assert all(isinstance(name, str) for name in needed_modules(run))
        assert isinstance(placement_sentence(run), str)
        assert isinstance(compared_sentence({"a": [run], "b": [run]}), str)


def test_runs_of_one_teacher_are_set_beside_each_other_with_their_errors() -> None:
    groups = {"dynamic": [summary(), summary(dict.fromkeys(RANKS, 1), error=0.35)], "lora": [summary(error=0.5)]}
    assert placements(groups) == {"dynamic": "3.5 of 6", "lora": "5 of 8"}
    assert compared_sentence(groups) == (
        "Relative error (components in the 2 modules that need them): dynamic 0.300 (3.5 of 6); lora 0.500 (5 of 8)."
    )
    assert "lora – (5 of 8)" in compared_sentence({**groups, "lora": [summary(error=None)]})
    assert compared_sentence({"dynamic": [summary()]}) == ""
    assert compared_sentence({str(n): [summary()] for n in range(9)}).endswith("5 0.250 (5 of 8); 3 more.")


@pytest.mark.parametrize(
    "other",
    [
        summary(sizes=("a", "c")),
        summary(task_facts={"planted": {"seed": 1, "rank": 8, "sizes": {"a": 1.0, "b": 1.0}}}),
        summary(task_facts={"planted": {"seed": 0, "rank": 4, "sizes": {"a": 1.0, "b": 1.0}}}),
        summary(config={"data": {"planted_strength": 0.03}}),
    ],
    ids=["modules", "seed", "rank", "strength"],
)
def test_runs_of_two_teachers_are_not_set_beside_each_other(other: RunSummary) -> None:
    assert placements({"a": [summary()], "b": [other]}) == {}
    assert compared_sentence({"a": [summary()], "b": [other]}) == ""
