"""What is shown of one run's capacity: which steps, signal and module, and the answers of the store for just that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis import capacity_frames, flows, signals
from dynlora.analysis.run_reading import recorded_over
from dynlora.store import queries
from dynlora.viz.capacity import components, decision_log, searches
from dynlora.viz.capacity import text as capacity_text
from dynlora.viz.capacity.replay_frames import MOST_FRAMES, Look, frames
from dynlora.viz.kit.module_map import MapView
from dynlora.viz.kit.run_queries import COLUMNS, RunQueries
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class CapacityView:
    """A view of one run's capacity: which steps, which signal, which module.

    Attributes:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        modules: as `capacity.described` returns them.
        signals: what is said of each recorded signal that a map can show, by name.
        events: steps of all reallocations that moved something.
        store: answers the questions to the store.
        first, last: ends of the steps shown.
        step: the step that picture and scatter show.
        signal: what the map shows.
        order: of the map's rows.
        module: name of the module that is followed, or None.
    """

    folder: Path
    summary: Mapping[str, Any]
    modules: pd.DataFrame
    signals: Mapping[str, signals.About]
    events: list[int]
    store: RunQueries
    first: int = 0
    last: int = 0
    step: int = 0
    signal: str = "rank"
    order: str = "kind"
    module: str | None = None

    @property
    def short(self) -> dict[str, str]:
        """Short name of each module."""
        return dict(zip(self.modules["name"], self.modules["short"], strict=True))

    @property
    def events_shown(self) -> list[int]:
        """Steps of the reallocations within the steps shown; what was moved after `first` is in them."""
        return [event for event in self.events if self.first < event <= self.last]

    @property
    def moves_shown(self) -> pd.DataFrame:
        """What was moved within the steps shown, as `queries.rank_moves` returns it."""
        moves = self.store.ask(queries.rank_moves, self.folder)
        return moves[(moves["step"] > self.first) & (moves["step"] <= self.last)]

    def ranks_over_events(self) -> pd.DataFrame:
        """Return the ranks at the first step shown, at every reallocation after it and at the last step."""
        steps = sorted({self.first, *self.events_shown, self.last})
        return self.store.ask(queries.signal_at, self.folder, "rank", tuple(steps))

    def traced(self) -> tuple[pd.DataFrame, flows.Balance]:
        """Return what moved in the steps shown, as `flows.trace` does, and the check of both sides."""
        return self.store.made("traced", self.folder, self._trace, self.first, self.last)

    def _trace(self) -> tuple[pd.DataFrame, flows.Balance]:
        ranks = self.ranks_over_events()
        found = flows.trace(self.modules, self.moves_shown, ranks)
        return found, flows.balance(found, self.modules, ranks)

    def flow(self, traced: pd.DataFrame, by: str) -> tuple[pd.DataFrame, list[str]]:
        """Return what moved by `kind`, `depth` or `module`, as `flows.flows` does, and the ends in their order."""
        band = flows.bands(self.modules, by, self.moves_shown)
        return flows.flows(self.modules, traced, band), flows.band_order(self.modules, band, by)

    def rows(self) -> pd.DataFrame:
        """Return the modules in the order of the map's rows."""
        return capacity_frames.ordered(self.modules, self.order, self.ranks(self.last))

    def heat(self, signal: str, columns: int) -> Any:
        """Return a signal of the steps shown in at most `columns` bins, as `queries.heatmap` does."""
        return self.store.ask(queries.heatmap, self.folder, signal, columns, self.first, self.last + 1)

    def heat_of(self, signal: str) -> pd.DataFrame:
        """Return a signal of the whole run in bins, without columns when it was never recorded."""
        try:
            return self.store.ask(queries.heatmap, self.folder, signal, COLUMNS).frame
        except KeyError:
            return pd.DataFrame()

    def frames_of(self, signal: str, most: int) -> pd.DataFrame:
        """Return a signal at no more than `most` of the steps shown, the chosen step among them."""
        if signal not in self.signals:
            return pd.DataFrame()
        frame = self.heat(signal, most - 1).frame
        values = self.values(signal, self.step)
        if values is None or self.step in frame.columns:
            return frame
        return frame.assign(**{"chosen": values}).rename(columns={"chosen": self.step}).sort_index(axis=1)

    def ranks(self, step: int) -> np.ndarray:
        """Return the ranks at a step, by module as recorded."""
        return self.store.ranks(self.folder, step)

    def values(self, signal: str, step: int) -> np.ndarray | None:
        """Return a signal's last values up to a step, by module as recorded; None when it was never recorded."""
        return self.store.at_step(self.folder, signal, step)

    def state(self) -> pd.DataFrame:
        """Return the modules at the chosen step, as `capacity.module_state` does."""
        return capacity_frames.module_state(self.modules, self.ranks(self.step), self.values("importance", self.step))

    def about_map(self, unit: str) -> MapView:
        """Return what the map shows beside its values."""
        shown = self.shown
        return MapView(
            shown.word, unit, self.step, self.module, self.events_shown, shown.centre, shown.choices, shown.grouping
        )

    def about_components(self, about: signals.About, centre: float | None) -> MapView:
        """Return what the maps of a signal over components show beside its values."""
        unit = f"{about.word} ({about.unit})" if about.unit else about.word
        return MapView(about.word, unit, self.step, self.module, centre=centre, choices=about.choices)

    @property
    def shown(self) -> signals.About:
        """What is said of the signal that the map shows."""
        return self.signals[self.signal]

    def sentence(self) -> str:
        """Return the sentence under the map."""
        at_step = self.values(self.signal, self.step)
        if self.signal == "rank":
            return capacity_text.rank_caption(self.modules, self.ranks(self.first), at_step, self.step, self.events)
        return capacity_text.sentence(self.shown, self.modules, at_step, self.step)

    def pictures(self, about: str, colours: Palette) -> dict[str, Any]:
        """Return the model at up to `MOST_FRAMES` of the steps shown, as the replay element takes them."""
        ranks, importance = (self.frames_of(name, MOST_FRAMES) for name in ("rank", "importance"))
        version = repr((self.store.version(self.folder), self.first, self.last, self.step, self.module, colours.mode))
        look = Look(self.step, signals.uniform_rank(self.summary), self.module, about, version)
        return frames(self.modules, ranks, importance, look, colours)

    def reallocations(self) -> pd.DataFrame:
        """Return the reallocations in the steps shown, as `queries.events_frame` does."""
        events = self.store.ask(queries.events_frame, self.folder, ("reallocate",))
        return events[(events["step"] > self.first) & (events["step"] <= self.last)]

    def decisions(self) -> pd.DataFrame:
        """Return what was decided in the steps shown but moves of rank, as `decision_log.decisions` does."""
        return decision_log.decisions(self.reallocations(), self.modules)

    def search(self) -> searches.Search | None:
        """Return the last search in the steps shown, as `searches.last_search` does."""
        return searches.last_search(self.reallocations(), self.summary["config"])

    def component_signals(self) -> dict[str, signals.About]:
        """Return what is said of the recorded signals over components, as `components.known` does."""
        return components.known(self.summary, recorded_over(self.folder, "component"))

    def components_at(self, name: str) -> pd.DataFrame:
        """Return a signal over components at the chosen step, as `components.by_module` does."""
        values = self.values(name, self.step)
        return pd.DataFrame() if values is None else components.by_module(values, self.modules)

    def copies(self) -> pd.DataFrame:
        """Return the copies of components in the steps shown, as `components.copies` does."""
        return components.copies(self.reallocations(), self.modules)

    def budget(self) -> pd.DataFrame:
        """Return the use of the budget over the steps shown, as `capacity.budget_line` does."""
        return self.store.budget(self.folder, self.summary, self.first, self.last)


def whole_run(folder: Path, summary: Mapping[str, Any], store: RunQueries) -> CapacityView | None:
    """Return a view of the whole run; None before the first rank is recorded.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        store: answers the questions to the store.

    Raises:
        DynloraError: when the run cannot be read.
    """
    names = list(recorded_over(folder, "module"))
    modules = store.modules(folder)
    if modules.empty or "rank" not in names:
        return None
    events = capacity_frames.event_steps(store.ask(queries.events_frame, folder, ("reallocate",)))
    shown = signals.known(summary, names)
    return CapacityView(folder, summary, modules, shown, events, store, last=summary["step"], step=summary["step"])
