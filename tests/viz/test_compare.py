"""Comparisons as figures and captions: bands, the Pareto set, paired differences, how reproducible an allocation is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis import pairing, run_summary, seed_groups
from dynlora.analysis.retention import Retention
from dynlora.analysis.seed_groups import Group
from dynlora.store import queries
from dynlora.viz.compare import cards, scatter_model
from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import text as compare_text
from dynlora.viz.kit import theme
from dynlora.viz.runs import table as runs_table
from tests.analysis.test_pairing import series, summary
from tests.summaries import summaries_of, summary_with
from tests.viz.drawn import traces_of
from tests.viz.runs import make_run


def test_a_band_runs_from_the_lowest_to_the_highest_run_and_says_n() -> None:
    both = pd.concat([series("a", [0, 10, 20], [1.0, 2.0, 3.0]), series("b", [0, 10], [3.0, 4.0])])
    bands = seed_groups.bands(both, [Group("g", ("a", "b"))], between=False)
    assert bands[["step", "mean", "low", "high", "n"]].to_numpy().tolist() == [
        [0, 2, 1, 3, 2],
        [10, 3, 2, 4, 2],
        [20, 3, 3, 3, 1],
    ]
    figure = compare_figures.curves(bands, "step", "loss, nats", theme.LIGHT)
    assert [trace.name for trace in traces_of(figure)] == ["g, n = 2, band", "g, n = 2"]
    assert list(traces_of(figure)[0].y) == [3, 4, 3, 3, 2, 1]
    assert "The band covers" in compare_text.curves(bands)


def test_a_run_without_a_clock_is_left_out_and_named() -> None:
    empty = pd.DataFrame({"step": [], "value": [], "parameters": []})
    assert seed_groups.clock("seconds", summary_with(summary("a")), empty, empty) is None
    assert seed_groups.clock("rows", summary_with({"step": 5, "config": {}}), empty, empty) is None
    both = pd.concat([series("a", [1], [1.0]), series("b", [1], [1.0])]).drop(columns="x")
    clocks = {"a": None, "b": pd.DataFrame({"step": [0, 1], "x": [0.0, 7.0]})}
    assert seed_groups.placed(both, clocks)["run"].tolist() == ["b"]
    assert "Not shown" in compare_text.left_out(["a"], "rows read")


def test_pareto_set() -> None:
    cost, value = pd.Series([1, 2, 3, 2, np.nan]), pd.Series([0.5, 0.7, 0.7, 0.6, 0.9])
    assert compare_model.pareto(cost, value) == [True, True, False, False, False]
    assert compare_model.pareto(cost, value, low_is_good=True) == [True, False, False, False, False]


def test_gain_against_forgetting_marks_the_pareto_set_and_leaves_out_other_units() -> None:
    summaries = {
        run["id"]: run for run in (summary("a"), summary("b", 1), summary("c", 0, "lora"), summary("d", 0, "eva"))
    }
    groups = seed_groups.grouped(list(summaries.values()))
    points = compare_model.by_group(summaries_of(summaries.values()), groups, "accuracy")
    last = {
        "a": Retention(9, 3, cosine=0.9),
        "b": Retention(9, 3, cosine=0.7),
        "c": Retention(9, 3, cosine=0.99),
        "d": Retention(9, 3, 1.0, 1.5, 0.2),
    }
    table = compare_model.by_retention(points, groups, last, "accuracy")
    assert table["forgotten"].tolist() == pytest.approx([0.2, 0.01])
    assert table["unit"].tolist() == ["1 − cosine"] * 2
    assert f"{table['group'].iloc[1]} forgets least (+0.010" in compare_text.retention(table, "accuracy")
    figure = compare_figures.retention(table, "accuracy", theme.LIGHT)
    assert sorted(x for trace in traces_of(figure)[1:] for x in trace.x) == pytest.approx([0.01, 0.2])
    nothing = compare_model.by_retention(points, groups, {}, "accuracy")
    assert nothing.empty


def test_frontier_marks_the_pareto_set_and_counts_runs() -> None:
    summaries = {run["id"]: run for run in (summary("a"), summary("b", 1), summary("c", 0, "lora"))}
    summaries["c"]["params"] = {"active": 90}
    table = compare_model.by_group(
        summaries_of(summaries.values()), seed_groups.grouped(list(summaries.values())), "accuracy"
    )
    assert table[["n", "mean", "low", "high", "active", "pareto"]].to_numpy().tolist() == [
        [2, pytest.approx(0.805), 0.8, 0.81, 104, True],
        [1, 0.8, 0.8, 0.8, 90, True],
    ]
    figure = compare_figures.frontier(table, "accuracy", theme.LIGHT)
    assert list(traces_of(figure)[0].x) == [90, 104]
    assert "2 points of 3 runs" in compare_text.frontier(table, "accuracy")
    assert "the order may be chance" in compare_text.groups(table, "accuracy", is_judged=False)


def test_forest_has_a_row_per_seed_and_one_for_all() -> None:
    rows = pairing.forest({0: np.full(20, -0.5) + np.arange(20) / 100, 3: np.full(20, -0.4) + np.arange(20) / 100})
    assert rows["row"].tolist() == ["seed 0", "seed 3", "all, n = 2"]
    figure = compare_figures.forest(rows, "difference of loss, nats", theme.LIGHT)
    assert [len(trace.x) for trace in traces_of(figure)] == [2, 1]
    words = compare_text.paired(rows, "lora", "dynamic", "nats", low_is_good=True, digits=3)
    assert "dynamic minus lora: −0.355 nats" in words


def test_is_an_allocation_reproducible() -> None:
    table = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [1.0, 2, 3, 4], "c": [4.0, 3, 2, 1]}, index=list("wxyz"))
    names = {"1": "a", "2": "b", "3": "c"}
    groups = [Group("alike", ("1", "2")), Group("all", ("1", "2", "3")), Group("one", ("3",))]
    reproducibility = compare_model.reproducibility(table, names, groups)
    assert reproducibility["spearman"].tolist() == pytest.approx([1, -1 / 3])
    assert reproducibility["deviation"].tolist()[0] == 0
    spread = compare_model.group_ranks(table, names, groups, spread=True)
    assert list(spread) == ["alike, n = 2", "all, n = 3"]
    assert compare_model.group_ranks(table, names, groups)["all, n = 3"].tolist() == pytest.approx([2, 7 / 3, 8 / 3, 3])


def test_methods_are_named_with_their_fidelity_where_runs_lie_side_by_side() -> None:
    runs = [summary("lora on x", 0, "lora"), summary("dynamic, again", 1), summary("mine", 2)]
    names = compare_model.distinct_names(runs)
    assert list(names.values()) == ["lora on x", "dynamic, again", "mine"]
    summaries = list(summaries_of(runs).values())
    table = compare_model.config_difference(summaries, names)
    assert table.to_numpy().tolist() == [
        ["seed", "0", "1", "2"],
        ["strategy.name", "lora", "dynamic", "dynamic"],
    ]
    assert compare_model.config_difference(summaries[1:], names)["setting"].tolist() == ["seed"]


def test_what_a_row_does_not_say_is_not_said() -> None:
    assert run_summary.format_strategy({"strategy": "lora", "fidelity": float("nan")}) == "lora"
    assert run_summary.format_strategy({"strategy": float("nan"), "fidelity": None}) == "no strategy"


def test_groups_of_one_planted_teacher_have_their_components_where_needed_in_the_table() -> None:
    facts = {"task_facts": {"planted": {"seed": 0, "rank": 8, "sizes": {"a": 1.0}}}}
    runs = [{**summary("a"), **facts}, {**summary("c", 0, "lora"), **facts}]
    for run, ranks in zip(runs, ({"a": 3, "b": 1}, {"a": 2, "b": 2}), strict=True):
        run["ranks"] = ranks
    summaries = {run["id"]: run for run in runs}
    groups = seed_groups.grouped(runs)
    table = compare_model.group_table(
        compare_model.by_group(summaries_of(summaries.values()), groups, "accuracy"), "accuracy"
    )
    assert table["components where needed"].tolist() == ["3 of 4", "2 of 4"]
    del summaries["c"]["task_facts"]
    table = compare_model.group_table(
        compare_model.by_group(summaries_of(summaries.values()), groups, "accuracy"), "accuracy"
    )
    assert "components where needed" not in table


def test_runs_of_any_version_say_in_which_settings_they_differ_and_how_many_are_equal() -> None:
    new = {"train": {"lr": 0.002, "head_lr": None, "warmup": 0.06}, "data": {"name": "d", "packing": False}}
    old = summary("a", strategy="lora")["config"] | {"train": {"lr": 0.001}, "data": {"name": "d"}}
    sentence = compare_text.they_differ([old, summary("b", seed=1)["config"] | new])
    assert sentence.startswith("They differ in strategy (lora → dynamic) and learning rate (0.001 → 0.002); the other ")
    assert sentence.endswith(" settings are equal.")
    assert int(sentence.split("the other ")[1].split()[0]) > 40, "defaults are filled in"
    placed = old | {"strategy": {"name": "lora", "ranks_from": "/a/folder/ranks.json"}}
    assert compare_text.they_differ([old, placed]).startswith("They differ in ranks from (not set → ranks.json); ")
    sentence = compare_text.they_differ([placed, summary("b")["config"]])
    assert sentence.startswith("They differ in strategy (lora → dynamic), ranks from (ranks.json → not set)")


RUN = "20260101-000000-00000001"
TIMES = pd.DataFrame({"step": [1], "step_ms": [100.0], "strategy_ms": [1.0]})


def test_the_parameters_in_use_are_one_number_on_every_page(tmp_path: Path) -> None:
    summary = queries.run_summary(make_run(tmp_path))
    used = run_summary.parameters_in_use(summary.params)
    assert used == 1056 + 24
    listed = queries.list_runs(tmp_path)
    assert run_summary.headline(summary, 1, TIMES)["Adapter parameters in use"] == f"{used:,}"
    assert runs_table.runs_table(listed)["adapter parameters"].tolist() == [used]
    final = compare_model.final_table([summary], {RUN: "a"}, "accuracy")
    assert final["adapter parameters in use"].tolist() == [used]
    groups = compare_model.by_group({RUN: summary}, seed_groups.alone({RUN: "a"}, {RUN: summary}), "accuracy")
    assert groups["active"].tolist() == [used]
    assert scatter_model.numbers(runs_table.plain_rows(listed)[0])[scatter_model.USED] == used
    assert run_summary.budget_share(summary.params) == 100 * used / 1152
    assert run_summary.parameters_in_use({}) is None


SUMMARIES = {run: summary_with({"seed": i, "labels": ["bad", "good"]}) for i, run in enumerate("abc")}
GROUPS = [Group("dynamic", ("b",)), Group("lora", ("a", "c"))]


def frame(losses: list[float], predictions: list[float], texts: tuple[str, ...] = ("x", "y")) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": texts,
            "text_pair": None,
            "label": ["good", "bad"][: len(losses)],
            "loss": losses,
            "prediction": predictions,
            "probability": [0.75, np.nan][: len(losses)],
        }
    )


def test_only_runs_with_the_same_probe_set_are_set_side_by_side() -> None:
    frames = {"a": frame([1, 2], [1, 0]), "b": frame([1, 2], [1, 0], ("x", "z")), "c": frame([3, 2], [0, 0])}
    assert list(cards.shared_examples(frames)) == ["a", "c"]
    assert cards.shared_examples({"a": frame([], [], ()).iloc[:0]}) == {}


def test_an_example_is_told_by_configuration_and_seed() -> None:
    frames = {"a": frame([0.1, 2], [1, 0]), "b": frame([0.5, 2], [0, np.nan]), "c": frame([0.3, 2], [1, 0])}
    assert cards.most_disputed(frames) == 0
    rows = cards.in_every_run(frames, 0, GROUPS, SUMMARIES)
    assert rows.to_numpy().tolist() == [
        ["dynamic", 1, "bad", "no", 0.75, 0.5],
        ["lora", 0, "good", "yes", 0.75, 0.1],
        ["lora", 2, "good", "yes", 0.75, 0.3],
    ]
    caption = cards.sentence(rows)
    assert caption == "2 of 3 runs predict its label. Its loss runs from 0.1 (lora) to 0.5 (dynamic)."
    alike = cards.in_every_run(frames, 1, GROUPS, SUMMARIES)
    assert alike["right"].fillna("–").tolist() == ["–", "yes", "yes"]
    assert " in every run." in cards.sentence(alike)
