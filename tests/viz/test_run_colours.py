"""A run's colour is that of its method: whatever its id, the order, the others shown, or what is hidden."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from dynlora.analysis.seed_groups import Group, grouped
from dynlora.store.summary import RunSummary
from dynlora.viz.compare.model import best_first
from dynlora.viz.compare.run_selection import eye_labels
from dynlora.viz.kit import run_colours, theme
from dynlora.viz.kit.run_colours import MOST_COLOURED, eye_styles, line_styles
from dynlora.viz.runs.table import runs_table
from tests.summaries import summary_with
from tests.viz.listed import listed
from tests.viz.test_playground import contrast

METHODS = st.sampled_from([*run_colours.PLACES, "a plugin", "", "another"])
RUNS = st.dictionaries(st.text("abcdef0123456789-", min_size=4, max_size=12), METHODS, min_size=1, max_size=20)


@given(runs=RUNS, data=st.data())
def test_configurations_seen_together_look_different_in_whatever_order(
    runs: dict[str, str], data: st.DataObject
) -> None:
    styles = run_colours.styles(runs)
    assert run_colours.styles(dict(data.draw(st.permutations(list(runs.items()))))) == styles
    assert len(set(styles.values())) == len(runs)


@given(runs=RUNS)
def test_a_method_has_one_colour_in_every_comparison(runs: dict[str, str]) -> None:
    styles = run_colours.styles(runs)
    for method in set(runs.values()):
        colours = {styles[run][0] for run, other in sorted(runs.items()) if other == method}
        own = theme.METHODS[run_colours.method_place(method)]
        assert own in colours
        assert colours <= set(run_colours.shades(own))
        first = min(run for run, other in runs.items() if other == method)
        assert styles[first][0] == own


@given(runs=RUNS)
def test_a_newer_configuration_changes_no_style_among_several_methods(runs: dict[str, str]) -> None:
    runs = {**runs, "0": "lora", "1": "dynamic"}
    before, after = run_colours.styles(runs), run_colours.styles({**runs, "zzz": "dynamic"})
    assert {run: after[run] for run in runs} == before


def test_the_methods_of_dynlora_look_different_and_grey_is_no_methods() -> None:
    styles = run_colours.styles({f"{i:02}": method for i, method in enumerate(run_colours.PLACES)})
    assert len({colour for colour, _, _ in styles.values()}) == len(run_colours.PLACES) == len(theme.METHODS)
    assert len({(marker, dash) for _, marker, dash in styles.values()}) == len(styles)
    for colour in theme.METHODS:
        parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert max(parts) - min(parts) > 60, f"{colour} is grey"


def test_the_colours_of_methods_are_apart_and_seen_on_both_panels() -> None:
    for one, other in itertools.combinations(theme.METHODS, 2):
        assert np.linalg.norm(perceived(one) - perceived(other)) > 0.1, (one, other)
    for colour in theme.METHODS:
        on_panels = [contrast(colour, palette.panel) for palette in (theme.LIGHT, theme.DARK)]
        assert min(on_panels) > 2.2, (colour, on_panels)
        assert max(on_panels) > 3.0, (colour, on_panels)


def perceived(colour: str) -> np.ndarray:
    """Return a colour in Oklab, in which equal distances look equally far apart (Ottosson, 2020)."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    cones = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
    lab = np.array([[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]])
    return lab @ np.cbrt(cones @ linear)


def test_the_list_of_runs_shows_a_method_in_one_colour_and_its_random_control_in_another() -> None:
    rows = [listed(1), listed(2, seed=1), listed(3, allocation="random"), listed(4, strategy="lora")]
    colours = runs_table(pd.DataFrame(rows).assign(created=0.0))["colour"].tolist()
    assert colours[0] == colours[1]
    assert len(set(colours)) == 3
    groups = {group.title: group for group in grouped(rows)}
    styles = line_styles(list(groups), theme.LIGHT, (), groups)
    assert [style.colour for style in styles.values()] == colours[1:]


def test_what_is_hidden_keeps_its_colour_and_the_others_theirs() -> None:
    groups = {f"{letter}": Group(letter, (f"2026-{letter}",), method="dynamic") for letter in "abcdef"}
    names = list(groups)
    every = line_styles(names, theme.LIGHT, (), groups)
    left = {name: groups[name] for name in names[:1] + names[3:]}
    assert line_styles(list(left), theme.LIGHT, (), left, [groups[name] for name in names[1:3]]) == {
        name: every[name] for name in left
    }
    sheet = eye_styles([every[names[0]], None], theme.LIGHT)
    assert f'nth-of-type(1) p::before {{ content: "● "; color: {every[names[0]].colour}' in sheet
    assert f'nth-of-type(2) p::before {{ content: "● "; color: {theme.LIGHT.muted}' in sheet


def test_eyes_of_equal_names_are_told_apart() -> None:
    groups = {f"2026-{letter}": Group("fine" if letter < "c" else "other", (f"2026-{letter}",)) for letter in "abc"}
    assert list(eye_labels(groups).values()) == ["fine (26-a)", "fine (26-b)", "other"]


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


def test_groups_come_best_first_and_those_without_a_result_last() -> None:
    def summary(value: float | None) -> RunSummary:
        return summary_with({"metrics": {} if value is None else {"accuracy": value, "loss": value}, "params": {}})

    summaries = {"a": summary(0.5), "b": summary(None), "c": summary(0.9)}
    groups = [Group(run, (run,)) for run in summaries]
    assert [group.label for group in best_first(summaries, groups, "accuracy")] == ["c", "a", "b"]
    assert [group.label for group in best_first(summaries, groups, "loss")] == ["a", "c", "b"]
