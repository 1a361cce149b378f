"""`Panel`: one figure of a run, declared once; pages, notebooks and reports draw what is declared."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Generic, TypeVar

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.frames import RunQueries
from dynlora.discovery import classes_in, plugged_in
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class Picture:
    """What a card of a page holds, and what a notebook is given.

    Attributes:
        figure: drawn in the colours of a mode.
        caption: what it shows, computed from its numbers; plain text of an untrusted run.
        table: its numbers.
    """

    figure: go.Figure
    caption: str
    table: pd.DataFrame


@dataclass(frozen=True)
class Picks:
    """What a click on a point of a chart chooses.

    Attributes:
        name: in the address.
        values: what can be chosen; the last of a point's `customdata` is a place among them, so that no text of a run
            is in the figure but what is escaped.
        others: further places, and the name and the value in the address that each stands for.
    """

    name: str
    values: Sequence[str]
    others: Mapping[int, tuple[str, str]] = field(default_factory=dict[int, tuple[str, str]])

    def at(self, place: int) -> tuple[str, str] | None:
        """Return the name and the value that a place stands for; None for none."""
        return (self.name, self.values[place]) if 0 <= place < len(self.values) else self.others.get(place)

    def chosen(self, address: Mapping[str, str]) -> str:
        """Return what an address has of these choices."""
        names = (self.name, *dict.fromkeys(name for name, _ in self.others.values()))
        return "-".join(filter(None, (address.get(name, "") for name in names)))


Data = TypeVar("Data")


@dataclass(frozen=True)
class RunView:
    """What panels are drawn of.

    Attributes:
        folder: of the run.
        result: what its kind reads from it, see `kinds.run_kind.RunKind.read`.
        store: answers questions about the run; pages keep the answers.
        chosen: what the reader chose, by the name of the choice.
    """

    folder: Path
    result: Any
    store: RunQueries = field(default_factory=RunQueries)
    chosen: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Choice:
    """What a reader can choose in a panel.

    Attributes:
        name: in the address.
        label: of the control.
        options: words by value; at least one.
        usual: the value without a choice.
        is_row: all options are side by side; else they are a list.
        help: explains the choice; empty for none.
    """

    name: str
    label: str
    options: Mapping[str, str]
    usual: str
    is_row: bool = False
    help: str = ""

    def of(self, view: RunView) -> str:
        """Return the chosen value, the usual one where the choice is none of the options."""
        chosen = view.chosen.get(self.name, self.usual)
        return chosen if chosen in self.options else self.usual


class Panel(ABC, Generic[Data]):
    """One figure with its caption, its numbers, and the sentence where nothing was recorded.

    Attributes:
        kind: of run that a plug-in's panel is of; one in the folder of a kind is of that.
        id: its name in addresses of cards and in `run.plot`.
        order: place among the panels of its page, rising.
        title: of the card.
        about: line under the title.
        missing: sentence where there is nothing to draw yet.
        part: heading of the report that it is under.
        card: key of its card; the id without one.
        is_wide: it takes the whole width of the page.
        width: eighths of a row beside its neighbour; a document gives what is wider than half the whole width.
        is_live: it changes with every step, so that pages draw it more often.
        element: of a page, which draws it where a figure cannot; a document leaves it out. Empty for none.
        is_optional: it has no card where there is nothing to draw.
        command: name and options of the command that measures what it draws; empty for none.
    """

    kind: ClassVar[str] = "train"
    id: ClassVar[str]
    order: ClassVar[int]
    title: ClassVar[str]
    about: ClassVar[str] = ""
    missing: ClassVar[str]
    part: ClassVar[str] = "Evidence"
    card: ClassVar[str] = ""
    is_wide: ClassVar[bool] = False
    width: ClassVar[int] = 4
    is_live: ClassVar[bool] = False
    element: ClassVar[str] = ""
    is_optional: ClassVar[bool] = False
    command: ClassVar[tuple[str, ...]] = ()

    def applies(self, view: RunView) -> bool:
        """Say whether the run records what this panel draws, now or later; one that never does has no card."""
        return not self.is_optional or self.data(view) is not None

    def views(self, view: RunView) -> Mapping[str, RunView]:
        """Return what a page draws of this panel, a card for each, by the end of the card's key."""
        return {"": view}

    def document_views(self, view: RunView) -> Mapping[str, RunView]:
        """Return what a document shows of this panel: it has no controls."""
        return self.views(view)

    def heading(self, view: RunView) -> str:
        """Return the title of the card."""
        return self.title

    def subtitle(self, view: RunView) -> str:
        """Return the line under the title."""
        return self.about

    def choice(self, view: RunView) -> Choice | None:
        """Return what a reader can choose; None for nothing."""
        return None

    def picks(self, view: RunView) -> Picks | None:
        """Return what a click on a point of the figure chooses; None for nothing."""
        return None

    @abstractmethod
    def data(self, view: RunView) -> Data | None:
        """Return what is drawn; None where nothing was recorded. Pure: it reads the view alone."""

    def reason_missing(self, view: RunView) -> str:
        """Return the sentence where `data` is None."""
        return self.missing

    @abstractmethod
    def caption(self, data: Data) -> str:
        """Return what the figure shows, computed from its numbers; also its text for screen readers."""

    def table(self, data: Data) -> pd.DataFrame:
        """Return the numbers of the figure, or the texts of a panel without one: the data, or its `numbers`."""
        whole: Any = data
        return whole if isinstance(whole, pd.DataFrame) else whole.numbers

    def short_table(self, data: Data) -> pd.DataFrame:
        """Return the numbers as a document or a list shows them, where the table is too long for that."""
        return self.table(data)

    def figure(self, data: Data, colours: Palette) -> go.Figure | None:
        """Draw the figure; None for a panel whose table is what it shows."""
        return None

    @property
    def has_figure(self) -> bool:
        """Whether it is a figure: else its HTML, its element or its table is what it shows."""
        return type(self).figure is not Panel.figure

    def html(self, data: Data, colours: Palette) -> str:
        """Return what a panel without a figure draws, as escaped HTML; empty for one that shows its table."""
        return ""

    def element_values(self, data: Data, colours: Palette) -> dict[str, Any]:
        """Return what the element draws, as plain values."""
        return {}

    def more(self, data: Data) -> Mapping[str, pd.DataFrame]:
        """Return further tables by their titles."""
        return {}

    def picture(self, view: RunView, colours: Palette) -> Picture | None:
        """Return the panel with its figure for a notebook; None where it has nothing to draw."""
        data = self.data(view)
        figure = None if data is None else self.figure(data, colours)
        if data is None or figure is None:
            return None
        return Picture(figure, self.caption(data), self.table(data))


@functools.cache
def panels_in(package: ModuleType) -> tuple[Panel[Any], ...]:
    """Return the panels that the modules of a package define, in their order: one appears by existing."""
    kinds: list[Callable[[], Panel[Any]]] = [kind for _, kind in classes_in(package, Panel, lambda item: item.name)]
    return tuple(sorted((make() for make in kinds), key=lambda panel: panel.order))


@functools.cache
def panels_of_plugins(kind: str) -> tuple[Panel[Any], ...]:
    """Return the panels that plug-ins bring for a kind of run."""
    plugins = plugged_in("panels", Panel).values()
    makers: list[Callable[[], Panel[Any]]] = [panel for panel in plugins if panel.kind == kind]
    return tuple(make() for make in makers)
