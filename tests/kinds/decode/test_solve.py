"""What holds for every decode: alone at both ends, one text for equal roles, caches, counters, limits, order."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynlora.engine.evaluation.generate import Limits as Whole
from dynlora.engine.evaluation.generate import write
from dynlora.errors import ConfigError
from dynlora.kinds.decode.work.results import values_of
from dynlora.kinds.decode.work.rewards import OracleReward, OwnReward, Problem
from dynlora.kinds.decode.work.run import cast_of
from dynlora.kinds.decode.work.solve import PROBABILITIES, Acceptance, Cast, Limits, Point, Solution, solve
from dynlora.kinds.decode.work.writer import Writer
from tests.kinds.decode.conftest import STEP, Runs

LIMITS = Limits(tokens=24, step_tokens=5, steps=20)
ALONE = {name: Point(name) for name in ("draft", "target")}


def texts(cast: Cast, problems: list[Problem], point: Point, limits: Limits = LIMITS) -> list[str]:
    """Return the solutions of problems."""
    return [solve(cast, problem, point, limits).text for problem in problems]


def test_minus_infinity_is_the_draft_alone_and_infinity_the_target_alone(cast: Cast, problems: list[Problem]) -> None:
    draft, target = (texts(cast, problems, ALONE[name]) for name in ("draft", "target"))
    assert draft != target, "the two would not be distinguished"
    for kind in ("threshold", "clip", "sigmoid"):
        assert texts(cast, problems, Point(kind, -math.inf)) == draft
        assert texts(cast, problems, Point(kind, math.inf)) == target
    assert texts(cast, problems, Point("constant", 1.0)) == draft
    assert texts(cast, problems, Point("constant", 0.0)) == target


def test_a_role_alone_writes_what_the_model_generates(cast: Cast, problems: list[Problem]) -> None:
    for role in cast.roles:
        model = role.model
        for problem in problems[:3]:
            limits = Whole(LIMITS.tokens, role.total)
            ids = [problem.prompts[role.name]]
            (whole,) = write(model.base.model, model.base.tokenizer, ids, limits, model.adapters.gates)
            solution = solve(cast, problem, ALONE[role.name], LIMITS)
            assert [token for step in solution.steps for token in step.ids][: len(whole.ids)] == whole.ids
            assert (solution.ended == "end") == whole.ended


@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_a_draft_equal_to_the_target_gives_one_text_for_every_threshold(
    threshold: float, runs: Runs, cast: Cast, problems: list[Problem]
) -> None:
    same = replace(cast, draft=replace(cast.target, name="draft", memory={}))
    again = [
        replace(one, prompts={name: one.prompts["target"] for name in ("draft", "target")}) for one in problems[:3]
    ]
    assert texts(same, again, Point("threshold", threshold)) == texts(same, again, ALONE["target"])


def test_a_reward_that_prefers_nothing_is_mixed_and_its_counters_add_up(cast: Cast, problems: list[Problem]) -> None:
    flip = replace(cast, reward=OwnReward(lambda question, before, step: float((len(before) + len(step)) % 2)))
    kept = discarded = 0
    for problem in problems:
        solution = solve(flip, problem, Point("threshold", 0.5), LIMITS)
        by = {name: sum(len(step.ids) for step in solution.steps if step.by == name) for name in ("draft", "target")}
        thrown = sum(len(step.discarded["ids"]) for step in solution.steps if step.discarded)
        assert solution.tokens == {"draft_kept": by["draft"], "draft_discarded": thrown, "target": by["target"]}
        assert by["draft"] + by["target"] <= LIMITS.tokens
        assert solution.text == "".join(step.text for step in solution.steps)
        assert all((step.by == "draft") == step.accepted == (step.reward == 1.0) for step in solution.steps)
        assert all((step.discarded is None) == step.accepted for step in solution.steps)
        assert 0 < solution.flops < solution.flops_with_prefill
        kept, discarded = kept + by["draft"], discarded + thrown
    assert kept > 0
    assert discarded > 0


def _answer(cast: Cast, problem: Problem, point: Point) -> Solution:
    """Return what is the same in every process."""
    return replace(solve(cast, problem, point, LIMITS), seconds=0.0)


def test_an_answer_does_not_depend_on_what_is_decoded_before(cast: Cast, problems: list[Problem]) -> None:
    point = Point("sigmoid", 0.3)
    forward = [_answer(cast, problem, point) for problem in problems]
    backward = [_answer(cast, problem, point) for problem in reversed(problems)]
    assert forward == backward[::-1]


@pytest.mark.parametrize("kind", list(PROBABILITIES))
@given(reward=st.floats(-2, 2), values=st.tuples(st.floats(0, 1), st.floats(0, 1)), step=st.integers(0, 9))
def test_on_a_fixed_candidate_a_higher_threshold_never_keeps_more(
    kind: str, reward: float, values: tuple[float, float], step: int
) -> None:
    low, high = sorted(values, reverse=kind == "constant")  # p falls where a threshold rises
    assert Acceptance(kind, low).keeps(reward, 3, step) >= Acceptance(kind, high).keeps(reward, 3, step)


def test_chance_is_of_the_problem_and_the_step_and_has_its_share() -> None:
    rule = Acceptance("constant", 0.3)
    drawn = [rule.keeps(0.0, problem, step) for problem in range(60) for step in range(20)]
    assert drawn == [rule.keeps(0.9, problem, step) for problem in range(60) for step in range(20)]
    assert 0.25 < sum(drawn) / len(drawn) < 0.35


ACTIONS = st.lists(st.tuples(st.sampled_from(["accept", "reject", "judge"]), st.integers(1, 4)), max_size=8)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, role=st.sampled_from(["draft", "target"]))
def test_after_any_accepts_and_rejects_a_cache_is_that_of_a_fresh_prefill(
    actions: list[tuple[str, int]], role: str, cast: Cast, problems: list[Problem]
) -> None:
    one = next(cached_role for cached_role in cast.roles if cached_role.name == role)
    writer = Writer(one, list(problems[0].prompts[role]))
    for action, count in actions:
        writer.take([7 + count] * count)
        if action == "judge":
            writer.log_probabilities(count)
        if action == "reject":
            writer.take_back(count)
            writer.write(count)
    assert writer.read <= len(writer.ids)
    fresh = Writer(one, list(writer.ids))
    torch.testing.assert_close(writer.next_probabilities(), fresh.next_probabilities(), atol=1e-4, rtol=1e-4)
    for mine, its in zip(keys_of(writer), keys_of(fresh), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-4, rtol=1e-4)


def keys_of(writer: Writer) -> list[Any]:
    """Return the keys of every block that a cache holds."""
    return [layer.keys for layer in writer._cache.layers]


def test_the_oracle_keeps_right_steps_only(cast: Cast, problems: list[Problem]) -> None:
    solutions = [solve(replace(cast, reward=OracleReward()), one, Point("threshold", 0.5), LIMITS) for one in problems]
    steps = [(step, one) for one, solution in zip(problems, solutions, strict=True) for step in solution.steps]
    for step, problem in steps:
        judged = step.text if step.discarded is None else step.discarded["text"]
        assert step.reward == float(problem.reference.is_right(judged))


def test_roles_with_one_backbone_have_its_weights_once(runs: Runs) -> None:
    cast = cast_of(runs.folder / runs.draft, runs.folder / runs.target, None, STEP)
    draft, target = (dict(role.model.base.model.named_parameters()) for role in cast.roles)
    frozen = {name for name, tensor in draft.items() if not tensor.requires_grad}
    assert frozen
    for name in frozen:
        assert draft[name].data_ptr() == target[name].data_ptr()
    own = [name for name, tensor in draft.items() if tensor.requires_grad and name in target]
    assert own
    assert all(draft[name].data_ptr() != target[name].data_ptr() for name in own)


def test_what_comes_from_memory_is_counted_as_if_it_were_done_again(cast: Cast, problems: list[Problem]) -> None:
    point = Point("threshold", 0.3)
    for role in cast.roles:
        role.memory.clear()
    first = [_answer(cast, problem, point) for problem in problems]
    for threshold in (0.2, 0.6):
        texts(cast, problems, Point("threshold", threshold))
    assert [_answer(cast, problem, point) for problem in problems] == first
    for role in cast.roles:
        assert role.memory
        role.memory.clear()
    assert [_answer(cast, problem, point) for problem in reversed(problems)] == first[::-1]


def test_a_model_that_never_stops_is_cut_and_says_so(cast: Cast, problems: list[Problem]) -> None:
    solution = solve(cast, problems[0], ALONE["draft"], Limits(tokens=3, step_tokens=2))
    assert solution.ended == "tokens"
    assert solution.tokens["draft_kept"] == 3
    assert solve(cast, problems[0], ALONE["draft"], Limits(tokens=9, step_tokens=2, steps=1)).ended == "steps"


def test_roles_with_other_tokenizers_hand_over_text(runs: Runs, cast: Cast, problems: list[Problem]) -> None:
    apart = replace(cast, same_tokens=False)
    point = Point("threshold", 0.5)
    assert texts(apart, problems[:3], point) == texts(cast, problems[:3], point), "bytes are bytes"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.7", [0.7]),
        ("0.3,0.5,0.3", [0.3, 0.5]),
        ("0.2:0.8:3", [0.2, 0.5, 0.8]),
        ("0.0..1.0:11", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ("-1", [-1.0]),
    ],
)
def test_thresholds_are_a_number_some_or_a_range(text: str, values: list[float]) -> None:
    assert values_of(text) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nan", "not a number"),
        ("-inf", "is the draft alone"),
        ("0:inf:3", "target alone"),
        ("1:0:3", "must be A:B:N"),
        ("0:1:9999", "must be A:B:N"),
        ("0.1,,0.2", "is not a number"),
    ],
)
def test_thresholds_that_are_none_are_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        values_of(text)
