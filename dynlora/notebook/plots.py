"""`run.plot`: the figures of one run, each drawn by the function that draws it on its page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, overload

from dynlora.analysis import capacity_frames
from dynlora.analysis.frames import RunQueries
from dynlora.analysis.planted_ranks import needed_modules, outlined
from dynlora.analysis.run_reading import RunReading, read_run
from dynlora.errors import ConfigError, NotRecordedError
from dynlora.kinds.run_kind import kind_of_run, registry
from dynlora.kinds.train.panels import measured
from dynlora.notebook import figure
from dynlora.notebook.figure import Figures, PageFigure, Replay, one_of, within
from dynlora.store import queries
from dynlora.store.run import StoredRun, module_scores
from dynlora.viz.kit import rank_picture
from dynlora.viz.kit.panel import Panel, Picture, RunView

TRAINING = registry()["train"]
READ = ("start", "stop", "step", "signal", "order", "module")
"""What can be chosen of every panel of a training."""

LEARNED = ("loss", "metric", "lr")
"""What `training` draws unless one figure is asked for."""


class Plots:
    """The figures of one run; each call draws what the run has recorded until now.

    Every figure is a plotly figure with a `caption` and a `table`, drawn by the code of its page.
    `run.plot(theme="dark")` returns the same figures for a dark notebook.

    Examples:
        >>> plot = dynlora.open_run("sample_runs/20261205-153533-21b95200").plot
        >>> figures = [plot.capacity("importance", order="rank"), plot.flow(by="depth"), plot.ranks(), plot.gates()]
        >>> figures += [plot.importance_vs_rank(step=100), plot.training("loss"), plot.knockouts()]
        >>> all(figure.caption for figure in figures)
        True
        >>> plot.replay(plays=True).data["steps"][-1]
        300
        >>> dynlora.open_run("sample_runs/20261205-144905-03e6ddf3").plot.shrink(tolerance=0.01).caption[-1]
        '.'
    """

    def __init__(self, run: StoredRun, theme: str = "light") -> None:
        """Point at a run; use `Run.plot`."""
        self._run, self._theme = run, theme
        self._colours, self._store = figure.palette(theme), RunQueries()

    def __repr__(self) -> str:
        """Return the run, the theme and the figures there are."""
        names = ", ".join(name for name in dir(self) if not name.startswith("_"))
        return f"Plots({self._run.id!r}, theme={self._theme!r}): {names}"

    def __dir__(self) -> list[str]:
        """Return the figures of a training, or the panels that the kind of the run declares."""
        kind = kind_of_run(self._run.folder)
        names = [name for name in super().__dir__() if kind.allocates or name.startswith("_")]
        return [*names, *(panel.id for panel in kind.panels)]

    def __getattr__(self, name: str) -> Callable[..., PageFigure]:
        """Return the function that draws a panel of the run's kind; it takes choices by name, such as `teacher="1"`.

        Raises:
            AttributeError: when the kind has no such panel.
        """
        panels = {} if name.startswith("_") else {one.id: one for one in kind_of_run(self._run.folder).panels}
        if name not in panels:
            raise AttributeError(f"Plots has no figure {name!r}; it has {', '.join(panels) or 'those of dir()'}")
        return partial(self._panel, panels[name])

    def _panel(self, panel: Panel[Any], **chosen: Any) -> PageFigure:
        """Draw a panel; of a training the choices are also start, stop, step, signal, order and module.

        Raises:
            NotRecordedError: when the run has recorded nothing of it, or it is no figure.
            ConfigError: when a choice is none of the run's.
        """
        folder, kind = self._run.folder, kind_of_run(self._run.folder)
        result = (
            self._reading(**{name: chosen.pop(name) for name in READ if name in chosen}) if kind.allocates else None
        )
        view = RunView(folder, result or kind.read(folder), self._store, chosen)
        if panel.part == "Capacity" and not view.result.has_ranks:
            raise self._no_ranks()
        picture = panel.picture(view, self._colours)
        if picture is None:
            remedy = f" Measure it with `{self._run.command(*panel.command)}`." if panel.command else ""
            reason = f"{panel.reason_missing(view)}{remedy}"
            raise NotRecordedError(f"run {self._run.id}: no figure {panel.id}. {reason}")
        return self._shown(picture)

    def _reading(
        self,
        start: int | None = None,
        stop: int | None = None,
        step: int | None = None,
        signal: str = "rank",
        order: str = "kind",
        module: str | None = None,
    ) -> RunReading:
        """Return the run with what is chosen of it.

        Raises:
            ConfigError: when a choice is none of the run's.
        """
        run = read_run(self._run.folder, self._store)
        first = within("start", start, 0, run.last, 0)
        last = within("stop", stop, first, run.last, run.last)
        step = within("step", step, first, last, last)
        one_of("signal", signal, run.signals or ["rank"])
        one_of("order", order, capacity_frames.ORDERS)
        if module is not None:
            one_of("module", module, run.short)
        return replace(run, first=first, last=last, step=step, signal=signal, order=order, module=module)

    def __call__(self, theme: str = "light") -> Plots:
        """Return the figures in another theme.

        Args:
            theme: `light` or `dark`.

        Raises:
            ConfigError: when there is no such theme.
        """
        return Plots(self._run, theme)

    def capacity(
        self,
        signal: str = "rank",
        start: int | None = None,
        stop: int | None = None,
        *,
        step: int | None = None,
        order: str = "kind",
        module: str | None = None,
    ) -> PageFigure:
        """Draw a signal over modules and steps, with the use of the budget above it.

        Args:
            signal: rank, importance, gate or another signal that the run recorded for each module.
            start: first step shown; the first of the run by default.
            stop: last step shown; the last of the run by default.
            step: that a line marks; `stop` by default.
            order: of the rows: kind, depth or rank.
            module: name of a module to frame.

        Raises:
            NotRecordedError: when the run has recorded no ranks.
            ConfigError: when an argument is none of the run's.
        """
        chosen = {"start": start, "stop": stop, "step": step, "signal": signal, "order": order, "module": module}
        return self._panel(TRAINING.panel("capacity"), **chosen)

    def flow(self, start: int | None = None, stop: int | None = None, *, by: str = "kind") -> PageFigure:
        """Draw which modules gave rank to which, in parameters.

        Args:
            start: step before the first transfer shown; the first of the run by default.
            stop: last step shown; the last of the run by default.
            by: what the ends stand for: kind, depth or module.

        Raises:
            NotRecordedError: when the run has recorded no ranks.
            ConfigError: when an argument is none of the run's.
        """
        one_of("by", by, capacity_frames.BY)
        return self._panel(TRAINING.panel("flow"), start=start, stop=stop, flow=by)

    def replay(self, start: int | None = None, stop: int | None = None, *, plays: bool = False) -> Replay:
        """Return the model as a picture that plays: a bar for each module, its length the rank, its shade importance.

        Args:
            start: first step shown; the first of the run by default.
            stop: last step shown; the last of the run by default.
            plays: start by itself and begin again at the end.

        Raises:
            NotRecordedError: when the run has recorded no ranks.
            ConfigError: when a step is none of the run's.
        """
        run, panel = self._reading(start, stop), TRAINING.panel("replay")
        if not run.has_ranks:
            raise self._no_ranks()
        data = panel.data(RunView(run.folder, run, self._store))
        return Replay(run.summary.id, panel.element_values(data, self._colours), self._colours, plays)

    def importance_vs_rank(self, step: int | None = None) -> PageFigure:
        """Draw the fraction of rank against the fraction of importance, a point for each module.

        Args:
            step: the last one by default.

        Raises:
            NotRecordedError: when the run has recorded no ranks or no importance.
            ConfigError: when the step is none of the run's.
        """
        return self._panel(TRAINING.panel("importance_vs_rank"), step=step)

    def ranks(self, step: int | None = None) -> PageFigure:
        """Draw the rank of each module as a picture of the model: layers by kinds of modules.

        Args:
            step: the last one by default.

        Raises:
            NotRecordedError: when the run has recorded no ranks, or no module of it belongs to a layer.
            ConfigError: when the step is none of the run's.
        """
        view = self._reading(step=step)
        if not view.has_ranks:
            raise self._no_ranks()
        state = view.state
        ranks = {name: int(rank) for name, rank in zip(state["name"], state["rank"].fillna(0), strict=True)}
        pattern = rank_picture.pattern(ranks, view.modules)
        if pattern.empty:
            raise self._missing("no adapted module inside a layer", "use capacity(), which shows every module")
        words = f"Rank of each module at step {view.step}, {min(ranks.values())} to {max(ranks.values())}."
        table = capacity_frames.state_table(state)
        needed = rank_picture.pattern(dict.fromkeys(needed_modules(view.summary), 1), view.modules)
        figure = rank_picture.model_picture(pattern, self._colours, needed)
        return self._shown(Picture(figure, f"{words} {outlined(view.summary)}".strip(), table))

    @overload
    def training(self, name: None = None) -> Figures: ...

    @overload
    def training(self, name: str) -> PageFigure: ...

    def training(self, name: str | None = None) -> PageFigure | Figures:
        """Draw what the run learned: training and held-out loss, held-out metrics, learning rate.

        Args:
            name: one figure alone: loss, metric, budget, kinds (rank by module kind), lr or time (of a step).

        Returns:
            The figure of that name; without a name loss, metric and lr one below the other, those that there are.

        Raises:
            NotRecordedError: when the run has recorded nothing of it.
            ConfigError: when there is no such figure.
        """
        names = [panel.id for panel in TRAINING.panels if panel.part in ("Training", "Cost")]
        if name is not None:
            one_of("name", name, names)
        run = read_run(self._run.folder, self._store)
        view = RunView(run.folder, run, self._store)
        pictures = [TRAINING.panel(one).picture(view, self._colours) for one in (LEARNED if name is None else (name,))]
        drawn = [self._shown(picture) for picture in pictures if picture is not None]
        if not drawn:
            what = "any step" if name is None else f"anything for the figure {name!r}"
            raise self._missing(f"not recorded {what} yet", "call this again after its first steps and evaluation")
        return drawn[0] if name is not None else Figures(drawn)

    def gates(self, step: int | None = None, *, hide: bool = True) -> PageFigure:
        """Draw the mean gate of each input group and module; 1 is neutral.

        Args:
            step: the last evaluation up to it is shown; the last one by default.
            hide: leave out what is not beyond chance, as the page does at first.

        Raises:
            NotRecordedError: when the run has no gates, or was not evaluated yet.
            ConfigError: when the step is none of the run's.
        """
        return self._panel(TRAINING.panel("gates"), step=step, gates="beyond" if hide else "all")

    def knockouts(self, score: str | None = None, *, module: str | None = None) -> PageFigure:
        """Draw what held-out examples lose without each module, with its interval.

        Args:
            score: name of a recorded score to set against it, such as "importance at the end".
            module: name of a module to frame, where no score is given.

        Raises:
            NotRecordedError: when nobody has measured it.
            ConfigError: when the score or the module is none of the run's.
        """
        if score is None:
            return self._panel(TRAINING.panel("knockouts"), module=module)
        one_of("score", score, module_scores(self._run.folder))
        return self._panel(TRAINING.panel("scores"), score=score)

    def shrink(self, tolerance: float = measured.TOLERANCES[1]) -> PageFigure:
        """Draw what every smaller size of the adapter costs; a line marks the smallest that is good enough.

        Args:
            tolerance: increase of the held-out loss that counts as none, nats.

        Raises:
            NotRecordedError: when nobody has measured the sizes of the adapter as it is now.
            ConfigError: when the tolerance is below zero.
        """
        if not tolerance >= 0:
            raise ConfigError(f"tolerance={tolerance!r}: must be 0 or more, in nats of held-out loss")
        folder = self._run.folder
        result = measured.measured(folder, queries.run_summary(folder))
        if result is None:
            remedy = f"measure them with `{self._run.command('compress', '--curve')}`"
            raise self._missing("no measured sizes of its adapter", remedy)
        size = measured.best(result, tolerance)
        return self._shown(measured.curve_picture(result, size, tolerance, self._colours))

    def _shown(self, picture: Picture) -> PageFigure:
        return figure.page_figure(picture, self._colours)

    def _no_ranks(self) -> NotRecordedError:
        return self._missing("recorded no ranks yet", "call this again after its first step")

    def _missing(self, what: str, remedy: str) -> NotRecordedError:
        return NotRecordedError(f"run {self._run.id} has {what}; {remedy}")
