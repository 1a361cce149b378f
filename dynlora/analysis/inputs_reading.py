"""What is shown of a run's inputs: groups, gates and the probe set at one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis import input_frames, run_summary
from dynlora.analysis.gate_effect import GateEffect, Reaction, gate_effect
from dynlora.analysis.run_queries import RunQueries
from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.run_summary import sample_words
from dynlora.store import queries


@dataclass(frozen=True)
class InputsReading:
    """A run's inputs at the last evaluation up to a step.

    Attributes:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        modules: those of the chosen kind and depth, as `capacity.described` returns them.
        step: the step.
        store: answers the questions to the store.
        reactions: what reacting to the input gains, as `gate_effect.reactions` returns it.
    """

    folder: Path
    summary: Mapping[str, Any]
    modules: pd.DataFrame
    step: int
    store: RunQueries
    reactions: list[Reaction]

    @property
    def writes(self) -> bool:
        """Whether the texts are to be written: there are tokens in the place of labels."""
        return run_summary.writes(self.summary)

    @cached_property
    def gates(self) -> pd.DataFrame:
        """Mean gate by group and module, as `queries.gates_by_group` returns it; groups not trained on are marked."""
        gates = self.store.ask(queries.gates_by_group, self.folder, self.step)
        return gates.set_axis(input_frames.told_apart(gates.index.tolist(), self.summary), axis=0)

    @cached_property
    def names(self) -> list[str]:
        """Names of the groups as recorded."""
        return self.store.ask(queries.groups_frame, self.folder, self.step)["group"].tolist()

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Groups with loss and metric, as `queries.groups_frame` returns them; groups not trained on are marked."""
        frame = self.store.ask(queries.groups_frame, self.folder, self.step)
        return frame.assign(group=input_frames.told_apart(frame["group"].tolist(), self.summary))

    @cached_property
    def examples(self) -> pd.DataFrame:
        """The probe set with names for groups, labels and predictions; groups not trained on are marked."""
        frame = self.store.ask(queries.examples_frame, self.folder, self.step)
        examples = input_frames.named(frame, self.names, list(self.summary["labels"]))
        marked = dict(zip(self.names, self.groups["group"], strict=True))
        return examples.assign(group=[marked.get(name, name) for name in examples["group"]])

    @cached_property
    def probe_gates(self) -> pd.DataFrame:
        """Gate of each module on each probe example, as `queries.probe_gates` returns it."""
        return self.store.ask(queries.probe_gates, self.folder, self.step)

    @cached_property
    def effect(self) -> GateEffect | None:
        """What the groups explain of the gates, against chance; None where there are no gates."""
        return self.store.made("gate effect", self.folder, self._effect, self.step)

    def _effect(self) -> GateEffect | None:
        gates = self.probe_gates
        examples = self.store.ask(queries.examples_frame, self.folder, self.step)
        if gates.empty or len(gates) != len(examples):
            return None
        return gate_effect(gates.to_numpy(float), examples["group"].tolist())

    @property
    def sampled(self) -> str:
        """On how many held-out examples the groups were evaluated, in a sentence; empty where on all."""
        return sample_words(self.summary)

    @property
    def short(self) -> dict[str, str]:
        """Short name of each module."""
        return dict(zip(self.modules["name"], self.modules["short"], strict=True))

    def over_steps(self, kind: str) -> pd.DataFrame:
        """Return `metric` or `loss` of each group over the evaluations: columns step, group, value."""
        frame = self.store.ask(queries.signal_frame, self.folder, f"group_{kind}")
        return input_frames.over_steps(frame, self.groups["group"].tolist())

    def gate_of(self, module: str) -> np.ndarray:
        """Return one module's gate on each probe example, NaN where none was recorded."""
        if module not in self.probe_gates.columns or len(self.probe_gates) != len(self.examples):
            return np.full(len(self.examples), np.nan)
        return self.probe_gates[module].to_numpy(float)


def inputs_of(run: RunReading) -> InputsReading:
    """Return the inputs of a run at the last evaluation up to the chosen step."""
    return InputsReading(run.folder, run.summary, run.selected, run.step, run.store, run.reactions)
