"""What the sizes of an adapter say, in words."""

from __future__ import annotations

from dynlora.store.compressions import Compressed, Half, Size
from dynlora.viz.kit.text import percent, plural, score, signed
from dynlora.viz.shrink.model import empty_modules, kept_share, score_of

WHAT = (
    "Takes the update of each module apart (singular values) and keeps the components with the largest effect per "
    "parameter, by one threshold over all modules. No training. Each size is measured on held-out examples."
)
"""What the page does, where nothing has been measured yet."""


def headline(found: Compressed, size: Size) -> str:
    """Say what a size keeps, and what that costs."""
    worth = size.reported_on
    return (
        f"Keep {percent(kept_share(found, size), 0)} of the parameters ({size.parameters:,} of {found.parameters:,}): "
        f"held-out loss {change(worth)}{_scores(found, worth)}"
    )


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
    seen = found.rows - judged
    told = f"Measured on {seen:,} held-out examples that no size was chosen on."
    if chosen is None:
        return f"{told} No size was shown to cost at most {tolerance:g} nats on the other {judged:,}."
    kept = percent(kept_share(found, chosen), 0)
    if chosen.parameters == size.parameters:
        return (
            f"{told} It is the smallest size not shown worse by more than {tolerance:g} nats on the other {judged:,}."
        )
    side = "Larger than needed" if size.parameters > chosen.parameters else "Smaller than what was shown good enough"
    return (
        f"{told} {side}: {kept} is the smallest not shown worse by more than {tolerance:g} nats on {judged:,} others."
    )


def picture(size: Size) -> str:
    """Say what the picture of the model shows."""
    gone = empty_modules(size)
    without = f"; {plural(gone, 'module')} of {len(size.ranks)} keep no adapter" if gone else ""
    return f"Kept rank of each module, {min(size.ranks)} to {max(size.ranks)}{without}."


def curve(found: Compressed) -> str:
    """Say what the curve shows."""
    n = found.rows - found.rows // 2
    return (
        f"Loss change against the whole adapter on {n:,} held-out examples, with 95 % CI for the threshold over all "
        "modules. Further left is smaller. The line is zero: as good as the whole."
    )
