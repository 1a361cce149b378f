"""What the sizes of an adapter say, in words."""

from __future__ import annotations

from dynlora.store.compressions import FEWEST, Compressed, Half, Size
from dynlora.store.recorded import CALLBACK
from dynlora.text import percent, plural, score, signed
from dynlora.viz.shrink.model import empty_modules, kept_share, score_of

WHAT = (
    "Takes the update of each module apart (singular values) and keeps the components with the largest effect per "
    "parameter, by one threshold over all modules. No training. Each size is measured on held-out examples."
)
"""What the page does, where nothing has been measured yet."""


def without_adapter(recorded_by: str | None) -> str:
    """Say how to get sizes where a run has no adapter.

    Args:
        recorded_by: as `queries.recorded_by` returns it.
    """
    none = "This run has no saved adapter, so no new measurement is possible. Select a run that has one, or"
    if recorded_by is None:
        return f"{none} train this one again: a run that is trained here keeps its adapter."
    if recorded_by == CALLBACK:
        return f"{none} record it again: RecordCallback keeps the adapter unless keep_adapter=False."
    return f"{none} train it here."


def headline(found: Compressed, size: Size) -> str:
    """Say what a size keeps, what that costs, and whether too few examples say so."""
    worth, seen = size.reported_on, _seen(found)
    few = f". It rests on {plural(seen, 'held-out example')}: too few to rely on." if seen < FEWEST else ""
    return (
        f"Keep {percent(kept_share(found, size), 0)} of the parameters ({size.parameters:,} of {found.parameters:,}): "
        f"held-out loss {change(worth)}{_scores(found, worth)}{few}"
    )


def _seen(found: Compressed) -> int:
    """Return how many held-out examples a size is reported on."""
    return found.rows - found.rows // 2


def change(worth: Half) -> str:
    """Say how far the loss differs from that of the whole adapter."""
    return f"{signed(worth.difference, 4)} nats (95 % CI {signed(worth.low, 4)} to {signed(worth.high, 4)})"


def _scores(found: Compressed, worth: Half) -> str:
    name = score_of(found)
    if name is None or name not in worth.metrics:
        return ""
    return f"; {name.replace('_', ' ')} {score(worth.metrics[name])} against {score(found.whole.metrics[name])}"


def basis(found: Compressed, size: Size, tolerance: float) -> str:
    """Say what a size rests on: which rows it was chosen and reported on, and whether it is the one to take."""
    chosen, judged = found.smallest(tolerance), found.rows // 2
    told = f"Measured on {_seen(found):,} held-out examples that no size was chosen on.{_unsure(size, tolerance)}"
    if chosen is None:
        return f"{told} No size was shown to cost at most {tolerance:g} nats on the other {judged:,}."
    within = f"the smallest size shown to cost at most {tolerance:g} nats"
    if chosen.parameters == size.parameters:
        return f"{told} On the other {judged:,}, it is {within}."
    kept = percent(kept_share(found, chosen), 0)
    side = "Larger than needed" if size.parameters > chosen.parameters else "Smaller than what was shown good enough"
    return f"{told} {side}: {kept} is {within} on {judged:,} others."


def _unsure(size: Size, tolerance: float) -> str:
    """Say that the interval of what is reported ends above a tolerance; nothing where it does not."""
    if size.reported_on.high <= tolerance:
        return ""
    return f" On these it is not shown to be within {tolerance:g} nats: its interval ends above."


def picture(size: Size) -> str:
    """Say what the picture of the model shows."""
    gone = empty_modules(size)
    keep = "keeps" if gone == 1 else "keep"
    without = f"; {gone} of {plural(len(size.ranks), 'module')} {keep} no adapter" if gone else ""
    return f"Kept rank of each module, {min(size.ranks)} to {max(size.ranks)}{without}."


def curve(found: Compressed) -> str:
    """Say what the curve shows."""
    return (
        f"Loss change against the whole adapter on {_seen(found):,} held-out examples, with 95 % CI for the threshold "
        "over all modules. Further left is smaller. The line is zero: as good as the whole."
    )
