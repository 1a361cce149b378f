"""`Run`: one run for a notebook or a script: its frames, its figures, its card and its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynlora.store.run import StoredRun

if TYPE_CHECKING:
    from dynlora.notebook.plots import Plots


class Run(StoredRun):
    """A run folder; each call reads what is there now, so a run can be watched while it trains.

    Examples:
        >>> run = dynlora.open_run("sample_runs/20261125-133850-b965a50f")
        >>> run.id, run.status, run.address == str(run.folder)
        ('20261125-133850-b965a50f', 'finished', True)
        >>> run.config["strategy"]["name"], run.summary["step"]
        ('dynamic', 300)
        >>> run.command("report").split()[:3]
        ['dynlora', 'report', '20261125-133850-b965a50f']
        >>> "rank" in run.signals(), "rank" in run.recorded()
        (True, True)
        >>> run.signal("rank", start=100, stop=102).columns[0], len(run.modules)
        ('step', 36)
        >>> frames = [run.scalars("loss", "train"), run.events("reallocate"), run.groups(), run.examples()]
        >>> all(len(frame) for frame in frames)
        True
        >>> run.plot.flow().caption[-1]
        '.'
    """

    def _repr_html_(self) -> str:
        """Return the run as a card, as it is now; notebooks call this."""
        from dynlora.notebook.run_card import run_card

        return run_card(self.folder)

    @property
    def plot(self) -> Plots:
        """The figures of the dashboard's pages, for a notebook: see `dynlora.notebook.plots.Plots`."""
        from dynlora.notebook.plots import Plots

        return Plots(self)

    def load(self) -> Any:
        """Return the adapted model; needs torch.

        Of a recycle it is the meta-LoRA, whose `fewshot` takes examples, and of a distillation the student.

        Examples:
            >>> model = dynlora.open_run("trained").load()
            >>> len(model.answers(["a good film", "a bad film"]))
            2
        """
        from dynlora.kinds.run_kind import kind_of_run

        return kind_of_run(self.folder).load(self.folder)
