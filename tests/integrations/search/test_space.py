"""Ranges and lists of a search: what is written is what is drawn, and what cannot be is one sentence."""

from __future__ import annotations

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.errors import ConfigError, DynloraError
from dynlora.integrations.search.driver import Choice, Range, space_of
from dynlora.integrations.search.run import MOST_STUDIES, searches
from dynlora.jobs.sweep import Request

LR = {"train.lr": "1e-4..1e-2:log"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4..1e-2:log", Range(1e-4, 1e-2, False, True)),
        ("0.0..0.3", Range(0.0, 0.3, False, False)),
        ("1..16", Range(1, 16, True, False)),
        (" 1 .. 16 :log", Range(1, 16, True, True)),
        ("-3..-1", Range(-3, -1, True, False)),
        ("lora,dynamic", Choice(("lora", "dynamic"))),
        ("true,false", Choice((True, False))),
    ],
)
def test_a_text_is_a_range_or_a_list(text: str, expected: object) -> None:
    assert space_of({"a": text})["a"] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a..b", "the ends of a range must be numbers"),
        ("1..1", "give one value, train.lr=1, or widen it"),
        ("2..1", "write 1..2"),
        ("0..1:log", "must begin above 0"),
        (".inf..1", "must be numbers"),
        ("[1, 2]", "no setting varies"),
        ("3", "no setting varies"),
        (",".join(map(str, range(101))), "at most 100 values"),
    ],
)
def test_what_is_neither_is_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        space_of({"train.lr": text})
    assert "\n" not in str(error.value)


@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e3), st.booleans(), st.integers(0, 1000))
def test_what_is_drawn_lies_in_the_range(low: float, factor: float, logarithmic: bool, seed: int) -> None:
    one = Range(low, low * factor, False, logarithmic)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
    value = one.suggest(trial, "a")
    assert one.holds(value)
    assert space_of({"a": one.text()})["a"] == Range(
        float(f"{low:g}"),
        float(f"{low * factor:g}"),
        all(map(_is_whole, one.text().removesuffix(":log").split(".."))),
        logarithmic,
    )


def _is_whole(text: str) -> bool:
    return text.lstrip("-").isdigit()


def test_a_range_holds_numbers_alone() -> None:
    assert Range(1, 4, True, False).holds(4)
    assert not Range(1, 4, True, False).holds(2.5)
    assert not Range(0, 4, True, False).holds(True)
    assert not Range(0, 1, False, False).holds(math.nan)
    assert not Choice((1, 2)).holds(True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"study": "../up"}, r"--study ../up: must be 1 to 40 letters"),
        ({"study": "a" * 41}, "must be 1 to 40 letters"),
        ({"trials": 0}, "trials=0: must be at least 1"),
        ({"confirm": 51}, "confirm=51: must be at most 50"),
        ({"objective": "luck"}, "--objective luck: must be one of .*accuracy.*loss"),
        ({"each": "seed=" + ",".join(map(str, range(MOST_STUDIES + 1)))}, "at most 16 short values"),
    ],
)
def test_what_is_asked_for_is_checked(fields: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        searches(Request.parse({"study": "s", **fields}), {}, LR)


def test_the_configuration_is_checked_before_anything_is_made() -> None:
    with pytest.raises(ConfigError, match=r"train\.steps=-3"):
        searches(Request.of(study="s"), {"train": {"steps": -3}}, LR)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ({"train.lrr": "1..2"}, "train.lrr"),
        ({"train.lr": "-1..1e-2"}, "train.lr=-1"),
        ({"adapter.rank": "1..100000"}, "adapter.rank=100000"),
    ],
)
def test_both_ends_of_a_range_are_checked_before_anything_is_made(listed: dict[str, str], words: str) -> None:
    with pytest.raises(DynloraError, match=words):
        searches(Request.of(study="s"), {}, listed)


def test_each_value_gets_a_study_with_the_same_trials_and_preset_rates() -> None:
    studies = searches(
        Request.of(study="fair", trials=8, each="strategy.name=lora,dynamic", rates=True),
        {"train": {"steps": 80}},
        {"adapter.rank": "4"},
    )
    assert [one.name for one in studies] == ["fair-lora", "fair-dynamic"]
    assert [one.base["strategy"]["name"] for one in studies] == ["lora", "dynamic"]
    assert all(one.base["adapter"]["rank"] == 4 and one.request.trials == 8 for one in studies)
    assert all(one.space == {"train.lr": Range(5e-4, 3e-2, False, True)} for one in studies)
    assert all(one.base["log"]["eval_every"] == 10 for one in studies), "a pruner needs looks on the way"


def test_the_direction_follows_the_objective() -> None:
    requests = {name: Request.of(study="s", objective=name) for name in ("loss", "accuracy")}
    directions = {name: searches(request, {}, LR)[0].direction for name, request in requests.items()}
    assert directions == {"loss": "minimize", "accuracy": "maximize"}


def test_a_run_holds_the_values_of_its_trial() -> None:
    (search,) = searches(Request.of(study="s"), {"seed": 3}, {**LR, "adapter.rank": "1..8"})
    config = search.config({"train.lr": 0.002, "adapter.rank": 4}, "trial 7", seed=9)
    assert (config["train"]["lr"], config["adapter"]["rank"], config["seed"], config["name"]) == (
        0.002,
        4,
        9,
        "s trial 7",
    )
    assert search.base["seed"] == 3
