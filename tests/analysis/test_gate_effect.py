"""What groups explain of gates: found where it was put in, not found in noise."""

from __future__ import annotations

import numpy as np
import pytest

from dynlora.analysis.gate_effect import gate_effect

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
    assert effect.found.tolist() == [False, False, True, False, False, False]
    assert (effect.examples, effect.groups) == (256, 4)


def test_noise_is_found_in_about_one_run_of_twenty_whatever_the_number_of_gates() -> None:
    effects = [gate_effect(*drawn(n=64, seed=seed, width=36)) for seed in range(40)]
    hits = [effect is not None and bool(effect.found.any()) for effect in effects]
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
    assert not effect.found.any()


@pytest.mark.parametrize("group", [["a"] * 8, [None] * 8, ["a", "b", *[None] * 6]])
def test_nothing_to_tell_apart(group: list[str | None]) -> None:
    assert gate_effect(np.ones((8, 2)), group) is None
