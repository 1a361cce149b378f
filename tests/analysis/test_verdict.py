"""The verdict: which configuration to use, how sure that is, and which runs would make it surer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.analysis import seed_groups, verdict_text
from dynlora.analysis.pairing import FEWEST_SEEDS, Side
from dynlora.analysis.verdict import MOST_SEEDS, Contest, Verdict, run_verdict, verdict
from dynlora.analysis.verdict_text import next_runs
from dynlora.config_files import read_run_config
from dynlora.server.serve import sample_runs_dir
from dynlora.store.summary import RunSummary, run_summary
from tests.summaries import summaries_of

ROWS = 400


def run(name: str, seed: int, strategy: str = "lora", *, steps: int = 60, **settings: Any) -> dict[str, Any]:
    """Return the summary of a finished run; the id tells them apart, and the seed."""
    moves = strategy != "lora"
    return {
        "id": f"{name}{seed}",
        "name": name,
        "seed": seed,
        "strategy": strategy,
        "fidelity": "code",
        "status": "finished",
        "model": "minilm",
        "data": "/home/me/tickets",
        "max_steps": steps,
        "labels": ["a", "b"],
        "metric": "accuracy",
        "data_size": {"train": 10, "held_out": ROWS},
        "planned_events": 9 if moves else 0,
        "own_signals": {},
        "params": {"budget": 1000, "gate": 0},
        "ranks": {"q": 3, "k": 5} if moves else {"q": 4, "k": 4},
        "time": {"train_s": 90.0},
        "metrics": {"accuracy": 0.8 + 0.01 * moves},
        "config": {"seed": seed, "strategy": {"name": strategy, **settings}, "data": {"name": "/home/me/tickets"}},
    }


def of(*runs: dict[str, Any]) -> dict[str, RunSummary]:
    return summaries_of(runs)


def gains(points: float, spread: float = 5.0) -> Any:
    """Return what pairs differ by: so many points of accuracy in the mean, an example by so many."""

    def differences(pairs: Sequence[tuple[int, str, str]]) -> list[Side]:
        rows = {seed: points + spread * np.random.default_rng(seed).standard_normal(ROWS) for seed, _, _ in pairs}
        return [Side("accuracy", rows, "points of accuracy", "", False, 1)]

    return differences


def verdict_and_text(runs: dict[str, RunSummary], differences: Any) -> tuple[Verdict, str]:
    decision = verdict(runs, differences)
    assert decision is not None
    return decision, verdict_text.headline(decision)


def seeds(n: int, strategy: str) -> list[dict[str, Any]]:
    return [run(strategy[0], seed, strategy) for seed in range(n)]


THREE = of(*seeds(3, "lora"), *seeds(3, "dynamic"))


@pytest.mark.parametrize(
    ("points", "spread", "outcome", "beginning"),
    [
        (2.0, 2.0, "better", "use dynamic: "),
        (-2.0, 2.0, "worse", "use lora: "),
        (0.1, 5.0, "equal", "use lora, the simpler one: "),
        (0.1, 30.0, "unclear", "use lora, the simpler one: "),
        (0.0, 0.0, "tie", "use lora, the simpler one: "),
    ],
)
def test_the_verdict_begins_with_the_configuration_to_use(
    points: float, spread: float, outcome: str, beginning: str
) -> None:
    decision, words = verdict_and_text(THREE, gains(points, spread))
    assert decision.decisive is not None
    assert decision.decisive.outcome == outcome
    assert words.startswith(f"On tickets, {beginning}dynamic ")
    if outcome != "tie":
        assert "95 % CI" in words
        assert "3 seeds" in words
    assert decision.use is not None
    assert decision.use.label in beginning


def set_head_rate(runs: Sequence[dict[str, Any]], rate: float | None) -> list[dict[str, Any]]:
    return [one | {"config": {**one["config"], "train": {"lr": 0.001, "head_lr": rate}}} for one in runs]


def test_methods_with_other_settings_than_each_other_get_no_verdict() -> None:
    plain, dynamic = set_head_rate(seeds(3, "lora"), None), set_head_rate(seeds(3, "dynamic"), 0.04)
    decision, words = verdict_and_text(of(*plain, *dynamic), gains(2.0))
    (contest,) = decision.contests
    assert (contest.outcome, contest.difference, decision.use) == ("confounded", None, None)
    assert "train.head_lr (0.04 against automatic)" in words
    assert next_runs(decision, of(*plain, *dynamic)) is None, "more seeds would not make it fair"


def test_the_baseline_is_the_one_with_equal_settings() -> None:
    more_seeds = set_head_rate(seeds(5, "lora"), None)
    equal = [one | {"id": f"e{one['seed']}"} for one in set_head_rate(seeds(3, "lora"), 0.04)]
    dynamic = set_head_rate(seeds(3, "dynamic"), 0.04)
    for focus in (None, "d0"):
        decision = verdict(of(*more_seeds, *equal, *dynamic), gains(2.0), focus=focus)
        assert decision is not None
        assert decision.decisive is not None
        assert decision.baseline.runs == ("e0", "e1", "e2")
        assert decision.decisive.group.method == "dynamic"


def test_settings_of_one_method_are_what_is_compared() -> None:
    slow, fast = set_head_rate(seeds(3, "lora"), None), set_head_rate(seeds(3, "lora"), 0.04)
    fast = [one | {"id": f"f{one['seed']}"} for one in fast]
    decision, words = verdict_and_text(of(*slow, *fast), gains(2.0))
    assert decision.decisive is not None
    assert decision.decisive.difference is not None
    assert "They differ in train.head_lr (" in words


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.torture)])
def test_no_sample_is_judged_against_a_run_with_other_settings(every: int) -> None:
    judged = 0
    for folder in sorted(path.parent for path in sample_runs_dir().glob("*/run.db"))[::every]:
        summary = run_summary(folder)
        decision = run_verdict(folder, summary)
        for contest in () if decision is None else decision.contests:
            if contest.difference is not None and contest.group.method != "lora":
                judged += 1
                assert set(contest.other) <= {"train.lr"}, (folder.name, contest.other)
    assert judged > 20 / every, "the samples are judged"


def test_a_run_of_a_gallery_is_judged_with_the_runs_of_the_gallery() -> None:
    """Its card said two seeds below a comparison of one."""
    folders = {folder.name: folder for folder in sample_runs_dir().iterdir() if (folder / "run.db").is_file()}
    summaries = {run: run_summary(folder) for run, folder in folders.items()}
    pair = {s.strategy: run for run, s in summaries.items() if "clinc150, rank 1, seed 1" in s.name}
    verdicts = [run_verdict(folders[pair["dynamic"]], summaries[pair["dynamic"]], one) for one in (None, pair.values())]
    all_of_them, of_two = (one.decisive for one in verdicts if one is not None)
    assert all_of_them is not None
    assert all_of_them.difference is not None
    assert all_of_them.difference.seeds == 3
    assert of_two is not None
    assert of_two.difference is not None
    assert of_two.difference.seeds == 1


def test_equal_is_a_result_within_a_margin_that_is_a_setting() -> None:
    decision, words = verdict_and_text(THREE, gains(0.1))
    assert "dynamic equals lora within 1 point (accuracy " in words
    narrow = verdict(THREE, gains(0.1), margin=0.2)
    assert narrow is not None
    assert narrow.decisive is not None
    assert narrow.decisive.outcome == "unclear"
    assert narrow.decisive.is_equal is False


def test_what_is_undecided_says_how_many_more_seeds_would_decide() -> None:
    def differences(pairs: Sequence[tuple[int, str, str]]) -> list[Side]:
        rows = {seed: np.linspace(-1, 1, ROWS) + 0.2 + 1.2 * seed for seed, _, _ in pairs}
        return [Side("accuracy", rows, "points of accuracy", "", False, 1)]

    decision, words = verdict_and_text(THREE, differences)
    assert decision.decisive is not None
    assert "is not significantly different from lora" in words
    assert "about 3 more seeds would decide" in verdict_text.outlook(decision)


def noisy_contests(points: float, of_seeds: float) -> list[Contest]:
    """Return the contests of 60 draws whose seeds differ by chance."""

    def differences(draw: int) -> Any:
        noise = np.random.default_rng(draw)

        def noisy(pairs: Sequence[tuple[int, str, str]]) -> list[Side]:
            means = {seed: points + of_seeds * noise.normal() for seed, _, _ in pairs}
            rows = {seed: mean + 2 * noise.standard_normal(ROWS) for seed, mean in means.items()}
            return [Side("accuracy", rows, "points of accuracy", "", False, 1)]

        return noisy

    decisions = [verdict(THREE, differences(draw)) for draw in range(60)]
    return [one.decisive for one in decisions if one is not None and one.decisive is not None]


def test_a_difference_as_large_as_the_margin_is_seldom_called_equal() -> None:
    assert sum(contest.is_equal for contest in noisy_contests(1.0, 0.3)) <= 4


def test_one_seed_decides_nothing_and_the_missing_ones_are_one_button() -> None:
    runs = of(run("l", 0), run("l", 4), run("d", 0, "dynamic"))
    decision, words = verdict_and_text(runs, gains(2.0))
    assert "have 1 common seed, too few to decide" in words
    assert decision.use is None
    more = next_runs(decision, runs)
    assert more is not None
    assert dict(more.seeds) == {"l4": (1,), "d0": (4, 1)}


def test_repeats_of_a_seed_are_no_further_seeds() -> None:
    runs = of(*(run(name, 0) for name in ("x", "y", "z")), run("d", 0, "dynamic"))
    decision, words = verdict_and_text(runs, gains(2.0))
    assert "1 common seed" in words
    assert decision.baseline.runs == ("z0",)
    assert decision.baseline.repeats == ("x0", "y0")
    assert verdict_text.table(decision)["seeds"].tolist() == [1, 1]


def test_runs_without_a_common_seed_are_no_pairs() -> None:
    runs = of(run("l", 0), run("d", 1, "dynamic"))
    decision, words = verdict_and_text(runs, gains(2.0))
    assert words.endswith("share no seed.")
    more = next_runs(decision, runs)
    assert more is not None
    assert dict(more.seeds) == {"l0": (1, 2), "d1": (0, 2)}


def test_one_configuration_asks_for_a_second() -> None:
    decision, words = verdict_and_text(of(*seeds(2, "lora")), gains(0.0))
    assert words.startswith("On tickets, lora reaches accuracy 0.800 (2 seeds). There is no other")
    assert decision.is_plain
    assert next_runs(decision, THREE) is None


def test_without_plain_lora_the_best_two_are_set_against_each_other() -> None:
    every = [run(f"v{budget}-", seed, "dynamic", budget=budget) for budget in range(4) for seed in range(3)]
    runs = of(*(one | {"metrics": {"accuracy": 0.7 + place // 3 / 100}} for place, one in enumerate(every)))
    decision, words = verdict_and_text(runs, gains(0.1, 30.0))
    assert [group.runs[0] for group in (decision.baseline, decision.contests[0].group)] == ["v2-0", "v3-0"]
    assert "budget 3 (the best of 4 configurations) is not significantly different from" in words
    assert "use either, such as the one with fewer parameters" in words
    alone = verdict(runs, gains(0.1), focus="v1-0")
    assert alone is not None
    assert "no plain LoRA run" in verdict_text.headline(alone)


def test_other_data_models_and_lengths_are_left_out_and_counted() -> None:
    runs = THREE | of(run("long", 0, steps=120), run("long", 1, steps=120))
    decision, _ = verdict_and_text(runs, gains(2.0))
    assert decision.left_out == 2
    focused = verdict(runs, gains(2.0), focus="long0")
    assert focused is not None
    assert (focused.baseline.runs, focused.left_out) == (("long0", "long1"), 6)
    assert verdict(runs, gains(2.0), focus="d9") is None
    assert verdict(of(run("a", 0) | {"status": "running"}), gains(2.0)) is None


def test_the_best_of_many_is_clear_only_after_adjusting_for_their_number() -> None:
    others = [run(f"v{budget}-", seed, "dynamic", budget=budget) for budget in range(5) for seed in range(3)]
    few, _ = verdict_and_text(THREE, gains(1.5, 9.0))
    many, words = verdict_and_text(of(*seeds(3, "lora"), *others), gains(1.5, 9.0))
    assert few.decisive is not None
    assert many.decisive is not None
    assert few.decisive.difference == many.decisive.difference, "the interval that is shown is the one of the pair"
    assert (few.decisive.outcome, many.decisive.outcome) == ("better", "unclear")
    assert "(the best of 5 configurations)" in words
    assert "the seeds differ too much to be sure, adjusted for 5 comparisons" in verdict_text.outlook(many)


def test_without_an_effect_it_is_seldom_called_better_or_worse() -> None:
    """Noise of the seeds alone, of which three say little: the bootstrap excludes 0 in a quarter of such cases."""
    contests = noisy_contests(0.0, 1.0)
    assert sum(contest.excludes_0 for contest in contests) >= 8
    assert sum(contest.is_clear for contest in contests) <= 6


def test_seeds_under_way_are_not_asked_for_again() -> None:
    runs = of(run("l", 0), run("d", 0, "dynamic"))
    waiting = [
        run(name, seed, strategy) | {"status": "queued", "metrics": {}}
        for name, strategy in (("l", "lora"), ("d", "dynamic"))
        for seed in (1, 2)
    ]
    decision, _ = verdict_and_text(runs | of(*waiting), gains(2.0))
    more = next_runs(decision, runs | of(*waiting))
    assert more is not None
    assert (dict(more.seeds), more.under_way) == ({}, 4)


def test_a_crashed_repeat_does_not_take_the_place_of_a_finished_run() -> None:
    again = run("z", 0) | {"status": "failed"}
    (group,) = seed_groups.grouped([run("a", 0), again])
    assert (group.runs, group.repeats) == (("a0",), ("z0",))


def test_the_baseline_has_the_budget_of_what_is_looked_at_and_no_gates() -> None:
    large = [run("m", seed) | {"params": {"budget": 2000}} for seed in range(4)]
    for one in large:
        one["config"] = {**one["config"], "adapter": {"rank": 8}}
    gated = [run("g", seed) | {"params": {"budget": 1000, "gate": 9}, "strategy": "gated"} for seed in range(5)]
    decision = verdict(THREE | of(*large, *gated), gains(2.0), focus="d0")
    assert decision is not None
    assert decision.baseline.runs == ("l0", "l1", "l2")


@pytest.mark.parametrize("folder", sorted(sample_runs_dir().glob("20261125*")), ids=lambda folder: folder.name)
def test_a_new_seed_joins_the_runs_made_before_a_setting_was_there(folder: Path) -> None:
    """A run that was made before a setting existed, and its repetition, which writes the setting out."""
    made = run_summary(folder).model_dump()
    config = read_run_config(folder).model_dump(mode="json") | {"seed": made["seed"] + 1}
    assert "eval_rows" not in made["config"]["log"]
    assert "eval_rows" in config["log"]
    again = made | {"id": made["id"] + "-again", "seed": config["seed"], "config": config}
    decision = verdict(of(made, again), gains(0.0))
    assert decision is not None
    assert [group.runs for group in seed_groups.grouped([made, again])] == [(made["id"], again["id"])]
    assert decision.baseline.runs == (made["id"], again["id"])


@pytest.mark.parametrize(
    ("metric", "right", "key", "words"),
    [
        ("perplexity", 30.0, "loss", "loss −0.2000 nats"),
        ("exact_match", 30.0, "exact_match", "exact match +30.0 points"),
        ("exact_match", 0.0, "loss", "loss −0.2000 nats"),
    ],
)
def test_runs_that_write_are_judged_by_the_metric_that_decides(metric: str, right: float, key: str, words: str) -> None:
    """By loss where no text is right in one run alone."""

    def differences(pairs: Sequence[tuple[int, str, str]]) -> list[Side]:
        by_seed = {seed: np.full(ROWS, -0.2) for seed, _, _ in pairs}
        matches = {seed: np.full(6, right) for seed in by_seed}
        return [
            Side("loss", by_seed, "nats", "", True, 4),
            Side("accuracy", {}, "points", "", False, 1),
            Side("exact_match", matches, "points", "", False, 1),
        ]

    own = {"labels": [], "metric": metric, "metrics": {metric: 0.5}, "task_facts": {"loss_unit": "nats"}}
    runs = of(*(one | own for one in (*seeds(3, "lora"), *seeds(3, "dynamic"))))
    decision, sentence = verdict_and_text(runs, differences)
    assert decision.decisive is not None
    assert decision.decisive.side is not None
    assert decision.decisive.side.key == key
    assert words in sentence
    assert decision.decisive.outcome == "better"


@settings(max_examples=30)
@given(points=st.floats(-3, 3), n=st.integers(1, 6), spread=st.floats(0.1, 20))
def test_whatever_comes_out_it_is_one_sentence_with_a_next_step_within_reason(
    points: float, n: int, spread: float
) -> None:
    runs = of(*seeds(n, "lora"), *seeds(n, "dynamic"))
    decision, words = verdict_and_text(runs, gains(points, spread))
    assert words.endswith(".")
    assert "nan" not in words
    assert decision.decisive is not None
    decided = decision.decisive.outcome
    assert (decided == "few") == (n < FEWEST_SEEDS)
    more = next_runs(decision, runs)
    if more is not None:
        assert decided in ("few", "unclear")
        assert 0 < more.n <= 2 * MOST_SEEDS
        assert all(seed not in range(n) for todo in more.seeds.values() for seed in todo)


def test_groups_are_in_the_order_of_the_verdict_whatever_their_own_means() -> None:
    runs = [run("plain", seed) for seed in range(4)]
    runs += [run("mover", seed, "dynamic") | {"metrics": {"accuracy": 0.99}} for seed in range(4)]
    result = verdict(of(*runs), gains(-2.0))
    assert result is not None
    groups = seed_groups.grouped(runs)
    assert [group.method for group in result.in_order(groups[::-1])] == ["lora", "dynamic"]
    alone = seed_groups.alone({one["id"]: one["id"] for one in runs}, of(*runs))
    assert [group.runs[0][:5] for group in result.in_order(alone[::-1])] == ["plain"] * 4 + ["mover"] * 4
    assert result.sides is not None
    assert {side[:5] for side in result.sides} == {"plain", "mover"}
