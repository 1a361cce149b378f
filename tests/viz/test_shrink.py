"""What the Shrink page says of a size: what it rests on, and no more than was shown."""

from __future__ import annotations

import pytest

from dynlora.kinds.train.panels import measured as viz_measured
from dynlora.store.measurements import Compressed, Half, Size


def half(low: float, high: float) -> Half:
    """Return what a size is worth that costs nothing, within an interval."""
    return Half(loss=1.0, difference=0.0, low=low, high=high, metrics={})


def measured(rows: int, *, high: float) -> Compressed:
    """Return one size of half the parameters, chosen within 0.005 nats; `high` is where its reported interval ends."""
    size = Size(
        method="global",
        share=0.5,
        parameters=50,
        ranks=(1,),
        chosen_on=half(-0.004, 0.004),
        reported_on=half(-0.01, high),
    )
    return Compressed(
        which="last",
        step=3,
        weighting="loss",
        rows=rows,
        parameters=100,
        modules=("a",),
        whole=half(0.0, 0.0),
        planned=1,
        sizes=(size,),
    )


@pytest.mark.parametrize(("rows", "few"), [(20, 10), (99, 50), (98, 49), (512, 256)])
def test_a_headline_from_few_examples_says_so(rows: int, few: int) -> None:
    compressed = measured(rows, high=0.004)
    headline = viz_measured.headline(compressed, compressed.sizes[0])
    assert headline.startswith("Keep 50 % of the parameters")
    assert headline.endswith(f". It rests on {few} held-out examples: too few to rely on.") is (few < 50)
    assert ("too few" in headline) is (few < 50)


def test_an_interval_that_ends_above_the_tolerance_is_no_guarantee() -> None:
    unsure, sure = measured(512, high=0.012), measured(512, high=0.004)
    caption = viz_measured.basis(unsure, unsure.sizes[0], 0.005)
    assert caption.startswith("The interval ends above 0.005 nats, so it may cost more.")
    assert "It was chosen on 256 others, as the smallest size shown to cost at most 0.005 nats." in caption
    assert "ends above" not in viz_measured.basis(sure, sure.sizes[0], 0.005)
