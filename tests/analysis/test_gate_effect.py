"""What groups explain of gates: found where it was put in, not found in noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis.module_effects import REACTION, Reaction, gate_effect, reaction_conclusion, reactions

GROUPS = ["a", "b", "c", "d"]


def drawn(n: int = 256, seed: int = 0, shift: float = 0.0, width: int = 6) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    group = [GROUPS[i % 4] for i in range(n)]
    gates = 1 + 0.01 * rng.standard_normal((n, width))
    gates[np.array(group) == "d", 2] += shift
    return gates, group


def test_an_effect_that_was_put_in_is_found_and_only_that() -> None:
    effect = gate_effect(*drawn(shift=0.02))
    assert effect is not None
    assert effect is not None
    assert effect.is_significant.tolist() == [False, False, True, False, False, False]
    assert (effect.examples, effect.groups) == (256, 4)


def test_noise_is_found_in_about_one_run_of_twenty_whatever_the_number_of_gates() -> None:
    effects = [gate_effect(*drawn(n=64, seed=seed, width=36)) for seed in range(40)]
    hits = [effect is not None and bool(effect.is_significant.any()) for effect in effects]
    assert sum(hits) <= 6  # 2 are expected; 7 or more come by chance in one of two hundred such tests


def test_the_share_is_the_variance_between_groups() -> None:
    gates, group = np.array([[0.0], [0.0], [2.0], [4.0]]), ["a", "a", "b", "b"]
    effect = gate_effect(gates, group)
    assert effect is not None
    between = 2 * (0 - 1.5) ** 2 + 2 * (3 - 1.5) ** 2
    assert effect.share[0] == pytest.approx(between / (2 * 1.5**2 + 0.5**2 + 2.5**2))


def test_equal_gates_and_rounding_are_no_finding() -> None:
    gates = 1 + 1e-7 * np.arange(40.0)[:, None] * np.ones((1, 3))
    effect = gate_effect(gates, ["a"] * 20 + ["b"] * 20)
    assert effect is not None
    assert not effect.is_significant.any()


@pytest.mark.parametrize("group", [["a"] * 8, [None] * 8, ["a", "b", *[None] * 6]])
def test_nothing_to_tell_apart(group: list[str | None]) -> None:
    assert gate_effect(np.ones((8, 2)), group) is None


@pytest.mark.parametrize(
    ("mean", "low", "high", "conclusion"),
    [
        (
            0.0002,
            -0.0008,
            0.0012,
            "lowers the held-out loss by 0.000 nats (95 % CI −0.001 to 0.001, n = 1,500): gates act",
        ),
        (
            0.02,
            -0.01,
            0.05,
            "lowers the held-out loss by 0.020 nats (95 % CI −0.010 to 0.050, n = 1,500): no effect of",
        ),
        (0.05, 0.03, 0.07, "(95 % CI 0.030 to 0.070, n = 1,500): the gates pay for themselves."),
        (0.014, 0.0002, 0.029, "(95 % CI 0.0002 to 0.0290, n = 1,500): the gates pay for themselves."),
        (-0.05, -0.07, -0.03, "raises the held-out loss by 0.050 nats (95 % CI 0.030 to 0.070, n = 1,500): constants"),
        (-1e-7, None, None, "raises the held-out loss by 0.000 nats (n = 1,500; too few examples for an interval)."),
    ],
)
def test_a_reaction_is_concluded_with_its_interval(
    mean: float, low: float | None, high: float | None, conclusion: str
) -> None:
    assert conclusion in reaction_conclusion(Reaction(1500, mean, low, high))


def test_of_a_damaged_reaction_what_can_be_read_is_left() -> None:
    def read(payload: object) -> list[Reaction]:
        return reactions(pd.DataFrame({"kind": [REACTION], "payload": [payload]}))

    good = {"n": 9, "lowers_by": 0.1, "low": None, "high": "x", "groups": [{"group": "a", "n": 4, "lowers_by": 0.2}, 7]}
    assert read(good) == [Reaction(9, 0.1, None, None), Reaction(4, 0.2, None, None, "a")]
    for payload in ("text", {}, {"n": 0, "lowers_by": 0.1}, {"n": 3, "lowers_by": float("nan")}, {"n": 3, "groups": 5}):
        assert read(payload) == []
    assert reactions(pd.DataFrame({"kind": ["evaluate"], "payload": [{}]})) == []
