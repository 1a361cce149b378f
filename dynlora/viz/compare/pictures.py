"""The pictures of several runs, as the page Compare and notebooks show them."""

from __future__ import annotations

from dynlora.analysis import seed_groups
from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import text as compare_text
from dynlora.viz.compare.compared import Compared
from dynlora.viz.compare.final_ranks import FinalRanks
from dynlora.viz.kit.picture import Picture
from dynlora.viz.kit.theme import Palette


def curves(
    found: Compared,
    name: str,
    split: str,
    colours: Palette,
    *,
    kind: str = "step",
    smoothing: str = "usual",
    is_log: bool = False,
) -> Picture:
    """Return the training loss, or a held-out metric, of each group with the band of its runs.

    Args:
        found: the runs.
        name: of the number.
        split: train or validation.
        colours: of the mode.
        kind: of the x axis, a key of `seed_groups.CLOCKS`.
        smoothing: of the training loss, a key of `frames.SMOOTHING`.
        is_log: whether the y axis is logarithmic.

    Raises:
        DynloraError: when a run cannot be read.
    """
    is_train = split == "train"
    clocks = {run: found.clock(kind, run) for run in found.folders}
    each = {run: found.series(run, name, split) for run in clocks}
    series = compare_model.together(each, smoothing=smoothing if is_train else "none")
    bands = seed_groups.bands(seed_groups.placed(series, clocks), found.groups, between=is_train)
    axis = _axis(name, smoothing, is_train=is_train)
    figure = compare_figures.curves(
        bands, seed_groups.CLOCKS[kind], axis, colours, marks=not is_train, styles=found.styles, is_log=is_log
    )
    words = compare_text.curves(bands, low_is_good=is_train or name in compare_model.LOW_IS_GOOD)
    sampled = "" if is_train else compare_model.sample_words(list(found.summaries.values()))
    missing = [found.names[run] for run, one in clocks.items() if one is None]
    more = compare_text.left_out(missing, seed_groups.CLOCKS[kind])
    return Picture(figure, " ".join(filter(None, (words, sampled, more))), bands)


def _axis(name: str, smoothing: str, *, is_train: bool) -> str:
    """Return the title of the y axis of `curves`."""
    if not is_train:
        return f"{name} (held-out)"
    return "Training loss (nats)" if smoothing == "none" else "Smoothed training loss (nats)"


def frontier(found: Compared, colours: Palette) -> Picture:
    """Return the last metric of each group against the adapter parameters in use."""
    points = compare_model.by_group(found.summaries, found.groups, found.metric)
    figure = compare_figures.frontier(points, found.metric, colours, found.styles)
    return Picture(figure, compare_text.frontier(points, found.metric), points)


def final_ranks(capacity: FinalRanks, colours: Palette, *, is_spread: bool = False) -> Picture:
    """Return the last rank of each module in each group.

    Args:
        capacity: last ranks of the runs; `drawn` must hold something.
        colours: of the mode.
        is_spread: the standard deviation over the seeds of a configuration in place of the mean.
    """
    drawn = capacity.drawn(spread=is_spread)
    title = "Standard deviation of rank (components)" if is_spread else "Rank (components)"
    words = compare_text.allocation(capacity.read(drawn), is_spread)
    figure = compare_figures.final_ranks(drawn, capacity.rows, colours, title)
    return Picture(figure, words, compare_model.named_rows(drawn))
