"""`comparison.plot`: the figures of several runs, each drawn by the function that draws it on Compare."""

from __future__ import annotations

from collections.abc import Callable

from dynlora.analysis import seed_groups, verdict_text
from dynlora.analysis.verdict import Verdict
from dynlora.errors import NotRecordedError
from dynlora.notebook import figure as figures
from dynlora.notebook.figure import PageFigure, one_of
from dynlora.text import listed
from dynlora.viz.compare import pictures as compare_pictures
from dynlora.viz.compare.pictures import Compared, read_ranks
from dynlora.viz.kit.panel import Picture
from dynlora.viz.kit.theme import Palette
from dynlora.viz.verdict import figures as verdict_figures


class ComparisonPlots:
    """The figures of runs side by side; each call draws what the runs have recorded until now.

    Every figure is a plotly figure with a `caption` and a `table`, drawn by the code of its page.
    `comparison.plot(theme="dark")` returns the same figures for a dark notebook.

    Examples:
        >>> runs = ["20261130-014133-886d825e", "20261130-014133-c29ab26e"]
        >>> plot = dynlora.compare(runs, "sample_runs").plot(theme="dark")
        >>> plot.training("loss").table.columns[0]
        'group'
        >>> figures = [plot.results(), plot.differences(), plot.capacity()]
        >>> all(figure.caption for figure in figures)
        True
    """

    def __init__(
        self, compared: Callable[[Palette], Compared], judged: Callable[[], Verdict | None], theme: str = "light"
    ) -> None:
        """Keep what reads the runs; use `Comparison.plot`."""
        self._compared, self._judged, self._theme = compared, judged, theme
        self._colours = figures.palette(theme)

    def __repr__(self) -> str:
        """Return the theme and the figures there are."""
        names = ", ".join(name for name in dir(self) if not name.startswith("_"))
        return f"ComparisonPlots(theme={self._theme!r}): {names}"

    def __call__(self, theme: str = "light") -> ComparisonPlots:
        """Return the figures in another theme.

        Args:
            theme: `light` or `dark`.

        Raises:
            ConfigError: when there is no such theme.
        """
        return ComparisonPlots(self._compared, self._judged, theme)

    def training(self, metric: str | None = None, split: str | None = None, *, x: str = "step") -> PageFigure:
        """Draw a metric of each configuration over training, with the band of its seeds.

        Args:
            metric: its name; the held-out metric that decides by default.
            split: train or validation; by default train for the loss and validation for all else.
            x: what runs along the x axis: step, seconds, tokens or parameter-steps.

        Raises:
            NotRecordedError: when no run has recorded it.
            ConfigError: when the split or the axis is none of those.
        """
        one_of("x", x, seed_groups.CLOCKS)
        compared = self._compared(self._colours)
        name = metric or compared.metric
        side = split or ("train" if metric == "loss" else "validation")
        one_of("split", side, ("train", "validation"))
        picture = compare_pictures.curves(compared, name, side, self._colours, kind=x)
        if picture.table.empty:
            known = sorted({key for one in compared.summaries.values() for key in one["metrics"]})
            remedy = f"held-out metrics of these runs are {listed(known, 12)}" if known else "wait for an evaluation"
            raise NotRecordedError(f"no run has recorded {name!r} of the split {side!r} over {x}; {remedy}")
        return figures.page_figure(picture, self._colours)

    def results(self) -> PageFigure:
        """Draw the last metric of each configuration, with the range of its seeds, against the parameters in use.

        Raises:
            NotRecordedError: when no run has a result yet.
        """
        picture = compare_pictures.frontier(self._compared(self._colours), self._colours)
        if picture.table.dropna(subset=["active", "mean"]).empty:
            raise NotRecordedError("no run of these has a result yet; wait for the first evaluation")
        return figures.page_figure(picture, self._colours)

    def retention(self) -> PageFigure:
        """Draw the last metric of each configuration against what it forgot on public text.

        Raises:
            NotRecordedError: when no run measured it.

        Examples:
            >>> data = {"path": "reviews", "max_length": 16}
            >>> short = {"model": {"name": "my-bert"}, "data": data, "train": {"steps": 4}, "log": {"retention": 1}}
            >>> runs = [dynlora.train({**short, "seed": seed}, progress=False) for seed in (0, 1)]
            >>> dynlora.compare(runs).plot.retention().caption[-1]
            '.'
        """
        picture = compare_pictures.retention(self._compared(self._colours), self._colours)
        if picture is None:
            raise NotRecordedError("no run of these measured what it forgot; train with log.retention=1")
        return figures.page_figure(picture, self._colours)

    def differences(self) -> PageFigure:
        """Draw the difference of each configuration from the baseline, with its 95 % interval: the verdict's figure.

        Raises:
            NotRecordedError: when no two configurations share a seed and held-out examples.
        """
        judged = self._judged()
        drawn = [] if judged is None else verdict_figures.drawable(judged)
        if judged is None or not drawn:
            remedy = "compare finished runs of two configurations with the same seeds on the same data"
            raise NotRecordedError(f"there is no difference to draw; {remedy}")
        words = verdict_text.drawn(judged, len(drawn))
        picture = Picture(verdict_figures.differences(judged, self._colours), words, verdict_text.table(judged))
        return figures.page_figure(picture, self._colours)

    def capacity(self, *, spread: bool = False) -> PageFigure:
        """Draw the final rank of each module in each configuration.

        Args:
            spread: the standard deviation over the seeds of a configuration in place of the mean.

        Raises:
            NotRecordedError: when no run has recorded ranks, or no configuration has two seeds for a spread.
        """
        ranks = read_ranks(self._compared(self._colours))
        if ranks.rows.empty:
            raise NotRecordedError("no run of these has recorded ranks; wait for the first step of one of them")
        if ranks.drawn(spread=spread).empty:
            raise NotRecordedError("no configuration has two runs; train another seed, or draw without spread=True")
        return figures.page_figure(compare_pictures.final_ranks(ranks, self._colours, is_spread=spread), self._colours)
