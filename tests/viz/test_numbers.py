"""Numbers as tables and axes show them: one format a column, and no axis beyond what can be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.analysis.frames import number_format
from dynlora.viz.kit.charts import axis_within, limits


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1, 2000], "localized"),
        ([1.0, np.nan, 3.0], "localized"),
        ([], "localized"),
        ([np.nan], "localized"),
        ([0.8549, 0.852], "%.4f"),
        ([0.5, 1.25], "%.2f"),
        ([0.123456, 12.0], "%.4f"),
        ([1e-4, 3e-5], "%.3g"),
    ],
)
def test_a_column_has_one_format(values: list[float], text: str) -> None:
    assert number_format(pd.Series(values, dtype=float)) == text
    assert number_format(pd.Series(values, dtype=float).astype("Float64")) == text


@given(values=st.lists(st.floats(0.02, 1e6), min_size=1))
def test_a_format_shows_every_value_to_four_places_or_exactly(values: list[float]) -> None:
    column_format = number_format(pd.Series(values))
    written = [f"{value:,.0f}" if column_format == "localized" else column_format % value for value in values]
    back = [float(text.replace(",", "")) for text in written]
    assert np.allclose(back, values, rtol=0, atol=0.6e-4)


def test_an_axis_stays_within_what_its_metric_can_be() -> None:
    assert axis_within("accuracy") == {"autorangeoptions": {"clipmin": 0.0, "clipmax": 1.0}}
    assert axis_within("Accuracy (held-out)") == axis_within("f1")
    assert axis_within("accuracy", "matthews")["autorangeoptions"] == {"clipmin": -1.0, "clipmax": 1.0}
    assert axis_within("loss (nats)") == {"autorangeoptions": {"clipmin": 0.0}}
    assert axis_within("a number of a method") == axis_within() == axis_within("accuracy", "own") == {}
    assert limits("mse") == (0.0, None)
