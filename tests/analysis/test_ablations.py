"""Scores against ablations: agreement by hand, the modules a score misjudges, and pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis import retention
from dynlora.store.measurements import KnockedOut, Knockouts

EFFECT = KnockedOut(modules=(1,), loss=0.5, delta=0.1, low=0.05, high=0.2, changed=0.25, by_group=(0.1, None))


def table(deltas: list[float]) -> pd.DataFrame:
    """Return effects of as many modules, all sure."""
    n = len(deltas)
    names = [f"query {i}" for i in range(n)]
    return pd.DataFrame(
        {
            "position": range(n),
            "name": names,
            "short": names,
            "label": "query",
            "layer": range(n),
            "delta": deltas,
            "low": deltas,
            "high": deltas,
            "changed": 0.0,
            "sure": True,
            "half": np.nan,
            "other_half": np.nan,
        }
    )


def test_agreement_by_hand() -> None:
    effect = table([0.1, 0.2, 0.3, 0.4, 0.5])
    assert retention.agreement(np.array([1.0, 2, 3, 4, 5]), effect).rho == pytest.approx(1)
    assert retention.agreement(np.array([5.0, 4, 3, 2, 1]), effect).rho == pytest.approx(-1)
    agreement = retention.agreement(np.array([2.0, 1, 3, 5, 4]), effect)  # 1 - 6 · 4 / (5 · 24)
    assert agreement.rho == pytest.approx(0.8)
    assert agreement.low <= agreement.rho <= agreement.high
    assert np.isnan(retention.agreement(np.ones(5), effect).rho)


def test_the_ablation_is_beside_the_scores_where_both_halves_were_measured() -> None:
    effect = table([0.1, 0.2, 0.3, 0.4, 0.5])
    scores = {"importance": np.array([2.0, 1, 3, 5, 4])}
    assert retention.agreements(scores, effect)["score"].tolist() == ["importance"]
    both = effect.assign(half=[0.1, 0.2, 0.3, 0.4, 0.5], other_half=[0.2, 0.1, 0.3, 0.4, 0.5])  # 1 - 6 · 2 / (5 · 24)
    agreed = retention.agreements(scores, both).set_index("score")["spearman"]
    assert agreed[retention.ITSELF] == pytest.approx(0.9)
    assert agreed["importance"] == pytest.approx(0.8)


def test_the_misjudged_come_first() -> None:
    misjudged = retention.misjudged(np.array([9.0, 1.0, 5.0, 4.0]), table([0.0, 0.3, 0.2, 0.1]))
    assert misjudged["module"].tolist()[:2] == ["query 0", "query 1"]
    assert misjudged["verdict"].tolist()[:2] == ["overrated", "underrated"]
    assert misjudged["rank by score"].tolist()[:2] == [1, 4]


def test_two_that_stand_in_for_each_other() -> None:
    alone = [EFFECT.model_copy(update={"modules": (i,), "delta": 0.1, "by_group": ()}) for i in range(2)]
    both = EFFECT.model_copy(update={"modules": (0, 1), "delta": 0.7, "by_group": ()})
    modules = pd.DataFrame({"position": [0, 1], "name": ["a", "b"], "short": ["a 0", "b 0"]})
    knocked = Knockouts(which="last", step=1, rows=9, loss=0.1, groups=(), n_modules=2, effects=(*alone, both))
    pairs = retention.pairs(knocked, modules)
    assert pairs["beyond"].tolist() == pytest.approx([0.5])
