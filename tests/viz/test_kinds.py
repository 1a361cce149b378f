"""A kind of module has one colour and one marker on every page."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dynlora.kinds.train.panels import cost, transfers
from dynlora.viz import measured
from dynlora.viz.kit import theme
from tests.viz.drawn import traces_of

KINDS = ["value", "attn out", "query", "own kind"]


def test_a_kind_looks_the_same_whoever_is_beside_it() -> None:
    whole = theme.kind_styles(KINDS)
    for kind in KINDS[:3]:
        assert theme.kind_styles([kind, "ff in"])[kind] == whole[kind]
    assert len({style[:2] for style in whole.values()}) == len(KINDS)


def test_scatter_knock_out_and_ranks_by_kind_agree() -> None:
    state = pd.DataFrame(
        {
            "label": KINDS,
            "short": KINDS,
            "name": KINDS,
            "rank": 4,
            "importance": 1.0,
            "importance_share": 0.25,
            "rank_share": 0.25,
            "position": range(4),
        }
    )
    effect = pd.DataFrame(
        {"label": KINDS[::-1], "short": KINDS[::-1], "position": range(4), "delta": 0.1, "low": 0.0, "high": 0.2}
    )
    totals = pd.DataFrame({"step": [0, 1], **{kind: [4, 4] for kind in KINDS[1:]}})
    scatter = transfers.importance_scatter(state, None, theme.LIGHT)
    knocked = measured.score_against_effect(effect, np.arange(4), "importance", theme.LIGHT)
    ranks = cost.ranks_by_kind(totals, theme.LIGHT)
    looks = [
        {trace.name: trace.marker.color for trace in traces_of(figure) if trace.name in KINDS}
        for figure in (scatter, knocked)
    ]
    assert looks[0] == looks[1]
    for trace in traces_of(ranks)[:2]:
        assert trace.line.color == looks[0][trace.name]
