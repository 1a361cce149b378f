"""Flows of capacity: every parameter is followed from its first holder to its last, and both sides add up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.analysis import capacity_frames, frames
from dynlora.analysis.capacity_frames import OUTSIDE
from dynlora.kinds.train.panels.transfers import flow

COLUMNS = ["seq", "step", "edit", "donor", "receiver", "count", "donor_score", "receiver_score"]
Q0, K0, Q1, K1 = ("layer.0.query", "layer.0.key", "layer.1.query", "layer.1.key")


def modules(layers: int = 2, wide: int = 8) -> pd.DataFrame:
    rows = [
        (f"layer.{layer}.{kind}", layer, kind, 8, 8 if kind == "query" else wide, 8)
        for layer in range(layers)
        for kind in ("query", "key")
    ]
    return frames.described(pd.DataFrame(rows, columns=["name", "layer", "kind", "d_in", "d_out", "max_rank"]))


def moves(*rows: tuple[int, str | None, str | None]) -> pd.DataFrame:
    values = [(i, step, "move", donor, receiver, 1, 0.1, 0.2) for i, (step, donor, receiver) in enumerate(rows)]
    return pd.DataFrame(values, columns=COLUMNS).astype({"count": "Int64"})


def ranks(**by_step: list[float]) -> pd.DataFrame:
    return pd.DataFrame({int(step.removeprefix("s")): values for step, values in by_step.items()}, dtype=float)


def amounts(traced: pd.DataFrame) -> dict[tuple[int, int], float]:
    return {(origin, holder): value for origin, holder, value in traced.itertuples(index=False)}


def test_a_move_is_followed_from_giver_to_receiver() -> None:
    held = ranks(s0=[4, 4, 4, 4], s10=[3, 5, 4, 4], s20=[3, 5, 4, 4])
    traced = capacity_frames.trace(modules(), moves((10, Q0, K0)), held)
    assert amounts(traced) == {(0, 0): 48, (0, 1): 16, (1, 1): 64, (2, 2): 64, (3, 3): 64}
    assert capacity_frames.balance(traced, modules(), held).adds_up


def test_what_came_back_is_not_drawn() -> None:
    held = ranks(s0=[4, 4, 4, 4], s10=[3, 5, 4, 4], s20=[4, 4, 4, 4])
    traced = capacity_frames.trace(modules(), moves((10, Q0, K0), (20, K0, Q0)), held)
    assert amounts(traced) == {(m, m): 64 for m in range(4)}
    assert "No rank moved between" in flow(traced, capacity_frames.balance(traced, modules(), held), 2, 0, 20)


def test_what_is_given_beyond_the_price_is_released() -> None:
    held = ranks(s0=[4, 4, 4, 4], s10=[2, 5, 4, 4])
    traced = capacity_frames.trace(modules(), moves((10, Q0, K0), (10, Q0, K0)), held)  # two components pay for one
    assert amounts(traced)[0, OUTSIDE] == 16
    sides = capacity_frames.balance(traced, modules(), held)
    assert (sides.released, sides.free, sides.adds_up) == (16, 0, True)


def test_growth_without_a_donor_is_paid_by_what_was_free() -> None:
    held = ranks(s0=[4, 4, 4, 4], s10=[4, 5, 4, 4])
    traced = capacity_frames.trace(modules(), moves((10, None, K0)), held)
    assert amounts(traced)[OUTSIDE, 1] == 16
    assert capacity_frames.balance(traced, modules(), held).adds_up


def test_masked_components_that_are_dropped_later_count_once() -> None:
    held = ranks(s0=[4, 4, 4, 4], s10=[2, 4, 4, 4], s20=[2, 4, 4, 4])
    drops = moves((20, Q0, None), (20, Q0, None))  # masked at step 10, dropped at 20
    traced = capacity_frames.trace(modules(), drops, held)
    assert amounts(traced)[0, OUTSIDE] == 32
    assert capacity_frames.balance(traced, modules(), held).adds_up


@settings(max_examples=40)
@given(st.data())
def test_both_sides_add_up_whatever_moves(data: st.DataObject) -> None:
    table = modules(layers=3, wide=24)
    names = table.sort_values("position")["name"].tolist()
    cost = table.sort_values("position")["cost"].to_numpy(float)
    held, rows = [data.draw(st.lists(st.integers(0, 6), min_size=6, max_size=6))], []
    for step in range(1, data.draw(st.integers(1, 8)) + 1):
        now = list(held[-1])
        for _ in range(data.draw(st.integers(0, 3))):
            donor, receiver = data.draw(st.tuples(st.integers(-1, 5), st.integers(0, 5)))
            if donor == receiver or (donor >= 0 and not now[donor]):
                continue
            if donor >= 0:
                now[donor] -= 1
            now[receiver] += int(donor < 0 or cost[donor] >= cost[receiver])
            rows.append((step, None if donor < 0 else names[donor], names[receiver]))
        held.append(now)
    frame = pd.DataFrame(np.array(held, dtype=float).T, columns=range(len(held)))
    traced = capacity_frames.trace(table, moves(*rows), frame)
    assert capacity_frames.balance(traced, table, frame).adds_up
    for by in capacity_frames.BY:
        flows = capacity_frames.flows(table, traced, capacity_frames.bands(table, by, moves(*rows)))
        assert flows["parameters"].sum() == pytest.approx(traced["parameters"].sum())


def test_ends_by_kind_depth_and_module() -> None:
    table, log = modules(layers=30), moves((10, Q0, K0))
    assert set(capacity_frames.bands(table, "kind", log)) == {"query", "key"}
    depth = capacity_frames.bands(table, "depth", log)
    assert capacity_frames.band_order(table, depth, "depth")[0] == "layers 0-2"
    assert depth.nunique() <= capacity_frames.MOST_BANDS
    named = capacity_frames.bands(table, "module", log)
    assert set(named) == {"query 0", "key 0", capacity_frames.OTHERS}
    assert capacity_frames.band_order(table, named, "module")[-1] == capacity_frames.OTHERS
