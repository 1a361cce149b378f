"""What a merge costs on the data of each run, and the ranks that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.merge import result
from dynlora.kinds.merge.result import MERGE, Merge
from dynlora.text import plotly_text, plural, short_path
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import model_intervals
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class Losses:
    """The losses by source and model, as `frames.loss_frame` returns them, with what belongs to them."""

    merge: Merge
    numbers: pd.DataFrame

    @property
    def unit(self) -> str:
        """Of the loss."""
        return self.merge.unit or "as recorded"


class HeldOutLoss(Panel[Losses]):
    """Held-out loss with its interval, a line for each source; models by colour and shape."""

    id = "loss"
    order = 1
    title = "Held-out loss"
    about = "Held-out examples of each run's own data"
    missing = "The test comes after the last module."

    def data(self, view: RunView) -> Losses | None:
        """Return the losses; None before the test, and where no data could be read."""
        rows = result.loss_frame(view.result)
        return None if rows.empty else Losses(view.result, rows)

    def reason_missing(self, view: RunView) -> str:
        """Return why there is no loss: the test is still to come, or had no data."""
        if view.result.notes:
            return "The data of no run could be read, so no held-out loss was measured."
        return self.missing

    def caption(self, data: Losses) -> str:
        """Return what is measured, and over what."""
        head = "; each run's own head is used on its data" if data.merge.head in ("own", "equal") else ""
        return (
            f"Mean loss of the merge, of each run's own adapter and of the base model on held-out examples of that "
            f"run's data, {data.unit}{head}. Bars: 95 % CI over examples."
        )

    def more(self, data: Losses) -> Mapping[str, pd.DataFrame]:
        """Return the paired differences."""
        return {"Difference of the merge, paired": result.difference_frame(data.merge)}

    def figure(self, data: Losses, colours: Palette) -> go.Figure:
        """Draw the means with their intervals."""
        return model_intervals(data.numbers, "data of", data.unit, f"Loss, {data.unit}", colours)


MOST_SOURCES = 6
"""Sources that are drawn; the others are in the table."""


@dataclass(frozen=True)
class Ranks:
    """The ranks by module, as `frames.ranks_frame` returns them, with the merge that they are of."""

    merge: Merge
    numbers: pd.DataFrame


class RanksByModule(Panel[Ranks]):
    """Ranks by module: the merge as a line, the runs as points."""

    id = "module_ranks"
    order = 2
    title = "Ranks by module"
    about = "What one threshold over all modules keeps of each"
    missing = "The ranks are known once all modules are merged."

    def data(self, view: RunView) -> Ranks | None:
        """Return the ranks; None until all modules are merged."""
        rows = result.ranks_frame(view.result)
        return None if rows.empty else Ranks(view.result, rows)

    def caption(self, data: Ranks) -> str:
        """Return the smallest and the largest rank, and what they cost."""
        ranks, merge = data.numbers[result.MODELS[MERGE]], data.merge
        empty = int((ranks == 0).sum())
        none = f", and 0 in {plural(empty, 'module')}" if empty else ""
        return (
            f"Rank of each module in the merge, {ranks.min()} to {ranks.max()}{none}, beside those of the runs. The "
            f"merge has {merge.parameters:,} parameters of a budget of {merge.budget:,}."
        )

    def figure(self, data: Ranks, colours: Palette) -> go.Figure:
        """Draw the ranks in the model's order."""
        drawn = theme.figure(colours, 320)
        names = [str(name) for name in data.numbers.columns[1 : 2 + MOST_SOURCES]]
        modules = [plotly_text(short_path(name), 80) for name in data.numbers["module"]]
        for name, (colour, symbol, _) in theme.styles(names).items():
            is_merge = name == names[0]
            drawn.add_scatter(
                x=list(range(len(modules))),
                y=data.numbers[name],
                mode="lines+markers" if is_merge else "markers",
                name=plotly_text(name, 40),
                line={"color": colour, "width": 2, "shape": "hvh"},
                marker={"color": colour, "symbol": symbol, "size": 7 if is_merge else 6},
                customdata=modules,
                hovertemplate="%{customdata}: rank %{y}<extra>%{fullData.name}</extra>",
            )
        drawn.update_xaxes(title_text="Module, in the model's order")
        drawn.update_yaxes(title_text="Rank", rangemode="tozero")
        drawn.update_layout(showlegend=True)
        return drawn
