"""A run's colour is its own: it follows from its id, not from the order, the others shown, or what is hidden."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynlora.viz.compare.eyes import eye_labels
from dynlora.viz.compare.line_styles import eye_styles, line_styles
from dynlora.viz.compare.seed_groups import Group
from dynlora.viz.kit import run_colours, theme

IDS = st.lists(st.text("abcdef0123456789-", min_size=4, max_size=12), min_size=1, max_size=20, unique=True)


@given(ids=IDS, data=st.data())
def test_runs_seen_together_look_different_in_whatever_order(ids: list[str], data: st.DataObject) -> None:
    found = run_colours.places(ids)
    assert run_colours.places(data.draw(st.permutations(ids))) == found
    assert len({run_colours.style_at(place) for place in found.values()}) == len(ids)
    first = [found[run] for run in sorted(ids)[: len(theme.CATEGORICAL)]]
    assert len({theme.CATEGORICAL[place % 8] for place in first}) == len(first)


@given(ids=IDS)
def test_a_newer_run_changes_no_colour_and_one_alone_has_its_own(ids: list[str]) -> None:
    before = run_colours.places(ids)
    after = run_colours.places([*ids, "zzz"])
    assert {run: after[run] for run in ids} == before
    assert run_colours.places(ids[:1]) == {ids[0]: run_colours.own_place(ids[0])}


def test_what_is_hidden_keeps_its_colour_and_the_others_theirs() -> None:
    runs = {f"method {letter}": f"2026-{letter}" for letter in "abcdef"}
    names = list(runs)
    every = line_styles(names, theme.LIGHT, (), runs)
    left = names[:1] + names[3:]
    assert line_styles(left, theme.LIGHT, (), runs, [runs[name] for name in names[1:3]]) == {
        name: every[name] for name in left
    }
    sheet = eye_styles([every[names[0]], None], theme.LIGHT)
    assert f'nth-of-type(1) p::before {{ content: "● "; color: {every[names[0]].colour}' in sheet
    assert f'nth-of-type(2) p::before {{ content: "● "; color: {theme.LIGHT.muted}' in sheet


def test_eyes_of_equal_names_are_told_apart() -> None:
    groups = {f"2026-{letter}": Group("fine" if letter < "c" else "other", (f"2026-{letter}",)) for letter in "abc"}
    assert list(eye_labels(groups).values()) == ["fine (26-a)", "fine (26-b)", "other"]
