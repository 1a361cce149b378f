"""One run as it is, and what a reader chose to see of it: what pages, reports, notebooks and checks look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis import capacity_frames, run_summary
from dynlora.analysis.frames import COLUMNS, RunQueries, SnapshotQueries
from dynlora.analysis.health import Evidence
from dynlora.analysis.learning import LEARNING, symptoms_of
from dynlora.analysis.module_effects import REACTION, Reaction, reactions
from dynlora.analysis.retention import RETENTION, Retention, retentions
from dynlora.store import queries
from dynlora.store.meta import section
from dynlora.store.reader import RunReader
from dynlora.store.run import open_run
from dynlora.store.summary import RunSummary
from dynlora.text import number, one_line, sentence_case

WORDS = {
    "rank": "rank",
    "importance": "importance",
    "gate": "gate",
    "scale": "learned scale",
    "grad_norm": "gradient norm",
    "delta_norm": "update norm",
    "effective_rank": "effective rank",
}
"""Recorded name of each signal, and what people call it."""

_CENTRES = {"gate": 1.0, "scale": 1.0}
_MOST_CHOICES = 64


@dataclass(frozen=True)
class About:
    """What is said of a signal.

    Attributes:
        word: what people call it.
        question: what its map answers, the subtitle; empty for none.
        centre: the neutral value; None when its scale starts at zero.
        choices: names of the values 0, 1, 2, ... where they are choices; empty for amounts.
        grouping: whether equal values mean that modules belong together, and the values nothing else.
        unit: what its method counts it in; empty where that is not said.
    """

    word: str
    question: str = ""
    centre: float | None = None
    choices: tuple[str, ...] = ()
    grouping: bool = False
    unit: str = ""

    @property
    def title(self) -> str:
        """Title of its map over modules."""
        return f"{one_line(sentence_case(self.word), 60)} by module over time"


def known(summary: RunSummary, recorded: Sequence[str]) -> dict[str, About]:
    """Return the signals over modules that a run recorded, by name: those that every run has, then its method's own.

    What a run says of its method's own signals is not trusted: what is no text is left out.
    """
    signals = {name: About(word, centre=_CENTRES.get(name)) for name, word in WORDS.items()}
    signals |= {name: about for name, about in own(summary).items() if name not in signals}
    return {name: about for name, about in signals.items() if name in recorded}


def own(summary: RunSummary) -> dict[str, About]:
    """Return what a run says of its method's own signals, by name; what is no text is left out."""
    signals = {}
    for name, about in summary.own_signals.items():
        if isinstance(about, Mapping) and isinstance(about.get("title"), str):
            choices = about.get("choices")
            names = [str(choice) for choice in choices[:_MOST_CHOICES]] if isinstance(choices, list) else []
            question = about.get("question")
            words = question if isinstance(question, str) else ""
            unit, grouping = about.get("unit"), about.get("grouping") is True
            signals[name] = About(
                about["title"], words, None, tuple(names), grouping, unit if isinstance(unit, str) else ""
            )
    return signals


def uniform_rank(summary: RunSummary) -> int | None:
    """Return the rank every row would have under uniform LoRA; None when it is not known, or a row is many modules."""
    if summary.ranks_are_sums:
        return None
    rank = section(summary.config, "adapter").get("rank")
    return rank if isinstance(rank, int) and 0 < rank <= 1024 else None


POINTS = 600
"""Most points of a number's series: least, greatest and last of each bin."""

CHECKED_COLUMNS = 64
"""Steps of a signal that the health checks look at."""


@dataclass(frozen=True)
class RunReading:
    """A run and a choice of its steps, a signal and a module; `read_run` makes one of the whole run.

    Attributes:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        modules: as `analysis.frames.described` returns them.
        signals: what is said of each recorded signal over modules, by name.
        events: all reallocations, as `queries.events_frame` returns them.
        store: answers the questions to the store.
        first, last: ends of the steps that are chosen.
        step: the chosen step.
        signal: over modules, that a map shows.
        order: of a map's rows, a key of `capacity_frames.ORDERS`.
        module: name of the module that is followed, or None.
        kind: label of the only kind of modules that is drawn; None for all.
        depth: the only band of layers that is drawn, as `capacity_frames.depth_bands` names it; None for all.
        opened: number of the layer whose modules a map by layers shows; None for none.
        columns: most columns of a heat map.
    """

    folder: Path
    summary: RunSummary
    modules: pd.DataFrame
    signals: Mapping[str, About]
    events: pd.DataFrame
    store: RunQueries
    first: int
    last: int
    step: int
    signal: str = "rank"
    order: str = "kind"
    module: str | None = None
    kind: str | None = None
    depth: str | None = None
    opened: int | None = None
    columns: int = COLUMNS

    # --- the whole run

    @property
    def has_ranks(self) -> bool:
        """Whether the ranks of modules were recorded."""
        return "rank" in self.signals and len(self.modules) > 0

    @property
    def opening_signal(self) -> str:
        """The signal that a map opens on: importance where no rank moves, which has nothing to say."""
        if self.event_steps or self.summary.planned_events or "importance" not in self.signals:
            return "rank"
        first, last = self.ranks(0), self.ranks(self.summary.step)
        return "importance" if np.array_equal(first, last) else "rank"

    @property
    def recorded(self) -> list[str]:
        """Names of the signals that hold anything."""
        return open_run(self.folder).recorded()

    @property
    def short(self) -> dict[str, str]:
        """Short name of each module."""
        return dict(zip(self.modules["name"], self.modules["short"], strict=True))

    @property
    def scalars(self) -> pd.DataFrame:
        """All numbers over the steps, as `queries.scalars_frame` returns them."""
        return self.store.ask(queries.scalars_frame, self.folder, None, None, POINTS)

    def series(self, name: str, split: str = "train") -> pd.DataFrame:
        """Return one number over the steps: columns step and value."""
        return run_summary.series(self.scalars, name, split)

    @property
    def evaluations(self) -> pd.DataFrame:
        """Events of the evaluations."""
        return self.store.ask_events(queries.events_frame, self.folder, ("evaluate",))

    @cached_property
    def reactions(self) -> list[Reaction]:
        """What reacting to the input gains, of all examples and of each group; empty where it was not recorded."""
        return reactions(self.store.ask_events(queries.events_frame, self.folder, (REACTION,)))

    @cached_property
    def retention(self) -> list[Retention]:
        """What was forgotten, by evaluation; empty where it was not measured."""
        return retentions(self.store.ask_events(queries.events_frame, self.folder, (RETENTION,)))

    @cached_property
    def learning(self) -> tuple[int, Any] | None:
        """Step and payload of the last look at whether the adapters learn; None where nobody looked."""
        events = self.store.ask_events(queries.events_frame, self.folder, (LEARNING,))
        return None if events.empty else (int(events["step"].iloc[-1]), events["payload"].iloc[-1])

    @cached_property
    def event_steps(self) -> list[int]:
        """Steps of all reallocations that moved something."""
        return capacity_frames.event_steps(self.events)

    def whole(self, signal: str, columns: int = COLUMNS) -> pd.DataFrame:
        """Return a signal of the whole run in bins, without columns when it was never recorded."""
        try:
            return self.store.ask(queries.heatmap, self.folder, signal, columns).frame
        except KeyError:
            return pd.DataFrame()

    def ranks_at(self, steps: list[int]) -> pd.DataFrame:
        """Return the ranks at some steps: one row per module as recorded, one column per step."""
        return self.store.ask(queries.signal_at, self.folder, "rank", tuple(steps))

    def values(self, signal: str, step: int | None) -> np.ndarray | None:
        """Return a signal's last values up to a step, as `RunQueries.at_step` does."""
        return self.store.at_step(self.folder, signal, step)

    def ranks(self, step: int) -> np.ndarray:
        """Return the ranks at a step, by module as recorded."""
        return self.store.ranks(self.folder, step)

    def final(self, signal: str) -> np.ndarray | None:
        """Return the last vector of a signal over examples, None when it was never recorded."""
        frame = self.whole(signal, 1)
        return None if frame.empty else frame.to_numpy(float)[:, -1]

    @cached_property
    def evidence(self) -> Evidence:
        """What the health checks ask for."""
        summary = self.summary
        evaluated = run_summary.evaluation(self.evaluations)
        counts = run_summary.confusion(evaluated[1]) if evaluated else None
        first, look = summary.first_reallocation, self.learning
        return Evidence(
            step=summary.step,
            max_steps=summary.max_steps,
            first_reallocation=summary.max_steps if first is None else first,
            planned_events=summary.planned_events,
            budget=summary.params.get("budget"),
            modules=self.modules,
            line=self.store.budget(self.folder, summary),
            ranks=self.whole("rank", CHECKED_COLUMNS),
            importance=self.whole("importance", CHECKED_COLUMNS),
            gates=self.whole("gate", CHECKED_COLUMNS),
            group_gates=queries.gates_by_group(self.folder),
            reallocations=self.events,
            loss=run_summary.series(queries.scalars_frame(self.folder, "loss", "train", 1000), "loss", "train"),
            confusion=counts[0] if counts else None,
            evaluated_at=evaluated[0] if evaluated else 0,
            has_classes=bool(summary.labels) or not summary.task,
            learning=None if look is None else symptoms_of(look[1]),
            learning_step=0 if look is None else look[0],
            data_warnings=summary.data_warnings,
        )

    # --- what is chosen

    @property
    def about(self) -> About:
        """What is said of the chosen signal."""
        return self.signals[self.signal]

    @property
    def events_shown(self) -> list[int]:
        """Steps of the reallocations within the chosen steps; what was moved after `first` is in them."""
        return [event for event in self.event_steps if self.first < event <= self.last]

    @property
    def reallocations(self) -> pd.DataFrame:
        """The reallocations in the chosen steps."""
        return self._within(self.events)

    @property
    def moves(self) -> pd.DataFrame:
        """What was moved within the chosen steps, as `queries.rank_moves` returns it."""
        return self._within(self.store.ask(queries.rank_moves, self.folder))

    def _within(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows["step"] > self.first) & (rows["step"] <= self.last)]

    @property
    def selected(self) -> pd.DataFrame:
        """The modules of the chosen kind and depth; all where there are none of both, as a link may ask for."""
        modules = capacity_frames.selected(self.modules, self.kind, self.depth)
        return modules if len(modules) else self.modules

    @property
    def rows(self) -> pd.DataFrame:
        """The selected modules in the order of a map's rows."""
        return capacity_frames.ordered(self.selected, self.order, self.ranks(self.last))

    @property
    def is_folded(self) -> bool:
        """Whether a map has one row per layer; what is no amount has no mean."""
        is_amount = not self.about.choices and not self.about.grouping
        return self.order == "layer" and is_amount and bool(self.selected["layer"].notna().any())

    @property
    def opened_layers(self) -> set[int]:
        """The layers whose modules a map by layers has: the opened one, and that of the module that is followed."""
        layers = self.modules.loc[self.modules["name"] == self.module, "layer"].dropna()
        return {*layers.astype(int), *([] if self.opened is None else [self.opened])}

    @property
    def state(self) -> pd.DataFrame:
        """The selected modules at the chosen step, as `module_state` returns them; shares are of all modules."""
        ranks, importance = self.ranks(self.step), self.values("importance", self.step)
        state = capacity_frames.module_state(self.modules, ranks, importance)
        return state[state["position"].isin(self.selected["position"])].reset_index(drop=True)

    @property
    def budget(self) -> pd.DataFrame:
        """Use of the budget over the chosen steps, as `analysis.frames.budget_line` returns it."""
        return self.store.budget(self.folder, self.summary, self.first, self.last)

    def heat(self, signal: str, columns: int | None = None) -> queries.HeatMap:
        """Return a signal of the chosen steps in bins, as `queries.heatmap` does.

        Raises:
            KeyError: when it was never recorded.
        """
        ends = self.first, self.last + 1
        return self.store.ask(queries.heatmap, self.folder, signal, columns or self.columns, *ends)

    def traced(self) -> tuple[pd.DataFrame, capacity_frames.Balance]:
        """Return what moved in the chosen steps, as `capacity_frames.trace` does, and the check of both sides."""
        return self.store.made("traced", self.folder, self._trace, self.first, self.last)

    def _trace(self) -> tuple[pd.DataFrame, capacity_frames.Balance]:
        ranks = self.ranks_at(sorted({self.first, *self.events_shown, self.last}))
        traced = capacity_frames.trace(self.modules, self.moves, ranks)
        return traced, capacity_frames.balance(traced, self.modules, ranks)


def read_run(folder: Path, store: RunQueries | None = None, summary: RunSummary | None = None) -> RunReading:
    """Return a run with all its steps chosen.

    Args:
        folder: of the run.
        store: answers the questions to the store; each once, without one.
        summary: as `queries.run_summary` returns it, where that was asked already.

    Raises:
        DynloraError: when the run cannot be read.
    """
    store = store or SnapshotQueries()
    summary = summary or queries.run_summary(folder)
    return RunReading(
        folder,
        summary,
        store.modules(folder),
        known(summary, list(recorded_over(folder, "module"))),
        store.ask(queries.events_frame, folder, ("reallocate",)),
        store,
        first=0,
        last=summary.step,
        step=summary.step,
    )


def recorded_over(folder: Path, axis: str) -> dict[str, str]:
    """Return the signals that hold anything and run over modules, components or another axis: name to unit.

    Raises:
        DynloraError: when the run cannot be read.
    """
    with RunReader(folder) as reader:
        rows = reader.signals()
        return {name: rows[name].unit for name in reader.recorded() if rows[name].axis == axis}


def setup_frame(summary: RunSummary) -> pd.DataFrame:
    """Return how a run was made: method, its fidelity, size, versions and machine; columns what and value."""
    created = summary.created
    facts = {"id": summary.id, "strategy": run_summary.method_with_fidelity(summary)}
    if created is not None and created < 4e9:
        facts["created"] = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts |= {f"parameters, {name}": number(value) for name, value in summary.params.items()}
    facts |= machine(summary)
    return pd.DataFrame({"what": list(facts), "value": list(facts.values())}, dtype=object)


def machine(summary: RunSummary) -> dict[str, str]:
    """Return the versions and the machine that a run was made with, in words."""
    return {key.replace("_", " "): str(value) for key, value in summary.machine.items()}
