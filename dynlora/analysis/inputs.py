"""What is shown of a run's inputs: groups, gates and the probe set at one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis import run_summary
from dynlora.analysis.frames import RunQueries
from dynlora.analysis.module_effects import LEAST_EXAMPLES, GateEffect, Moved, Reaction, gate_effect, joined, moved
from dynlora.analysis.results import as_written
from dynlora.analysis.retention import effects_file
from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.run_summary import sample_words
from dynlora.store import queries
from dynlora.store.measurements import Effects
from dynlora.store.meta import section
from dynlora.store.summary import RunSummary
from dynlora.text import metric_words, one_line


def named(examples: pd.DataFrame, groups: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Return the probe set with names where the store holds positions of groups, labels and predictions."""
    frame = examples.copy()
    frame["group"] = [_at(groups, value) for value in frame["group"]]
    frame["label"] = [_at(labels, value) for value in frame["label"]]
    frame["prediction"] = [
        _at(labels, int(value)) if value == value and labels and float(value).is_integer() else value
        for value in frame["prediction"]
    ]
    frame["prediction"] = frame["prediction"].map(_text_of)
    return frame


def _text_of(value: Any) -> str | None:
    return None if value != value else str(value)


def _at(names: Sequence[str], value: Any) -> Any:
    text = "" if value is None else str(value)
    if text in names or not text.isdecimal() or len(text) > 6 or int(text) >= len(names):
        return value if value is None else text
    return str(names[int(text)])


NOT_TRAINED = " (not trained on)"


def told_apart(names: Sequence[str], summary: RunSummary) -> list[str]:
    """Return the names of groups, marked where the run never saw the group in training.

    Args:
        names: of the groups, as recorded.
        summary: as `queries.run_summary` returns it.
    """
    trained = section(summary.config, "data").get("train_groups")
    if not isinstance(trained, list | tuple) or not trained:
        return list(names)
    return [name if name in trained else f"{name}{NOT_TRAINED}" for name in names]


def over_steps(frame: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Return a signal over groups long: columns step, group, value, with the groups' own names."""
    names = list(groups) if len(groups) == frame.shape[1] - 1 else list(frame.columns[1:])
    values = frame.iloc[:, 1:].to_numpy(float)
    steps = frame["step"].repeat(len(names)).to_numpy()
    return pd.DataFrame({"step": steps, "group": names * len(frame), "value": values.ravel()})


GROUP_NUMBERS = ("metric", "loss", "token_accuracy", "ece", "brier", "disagreement")
"""What may be recorded of each group at every evaluation, as signals `group_...`, in the order of the charts."""


def group_label(kind: str) -> str:
    """Return what people call a number of the groups."""
    words = {"ece": "calibration error", "brier": "Brier score", "token_accuracy": "token accuracy"}
    return words.get(kind, kind)


def group_title(kind: str, metric: str | None) -> str:
    """Return the axis title of a number of the groups."""
    units = {"metric": metric_words(metric or "metric"), "loss": "loss (nats)", "disagreement": "mean disagreement"}
    return units.get(kind, group_label(kind))


def colourings(examples: pd.DataFrame, *, gated: bool) -> list[str]:
    """Return what can colour the probe set: what was recorded of it."""
    disagreement = ["disagreement"] if examples["disagreement"].notna().any() else []
    return ["group", "loss", "prediction", *disagreement, *(["gate"] if gated else [])]


def gate_table(gates: pd.DataFrame) -> pd.DataFrame:
    """Return the gates as a table: column `group`, then one per module."""
    frame = gates.reset_index(drop=True)
    frame.insert(0, "group", [str(name) for name in gates.index], allow_duplicates=True)
    return frame


MOST_LINES = 8
"""Examples whose gates are drawn over depth; more lines cannot be distinguished."""


def over_depth(gates: pd.DataFrame, modules: pd.DataFrame, chosen: Sequence[int]) -> pd.DataFrame:
    """Return the mean gate of each layer for the first of the chosen examples: columns example, layer, gate.

    Args:
        gates: one row per example, one column per module as recorded.
        modules: as `capacity.described` returns them.
        chosen: positions of examples.
    """
    layers, columns = modules["layer"].to_numpy(), modules["position"].to_numpy()
    rows = []
    for position in [place for place in chosen if place < len(gates)][:MOST_LINES]:
        values = pd.Series(gates.iloc[position].to_numpy(float)[columns]).groupby(layers).mean()
        rows += [(f"example {position}", int(layer), float(value)) for layer, value in values.items()]
    return pd.DataFrame(rows, columns=["example", "layer", "gate"])


def listed(examples: pd.DataFrame, chosen: Sequence[int], *, writes: bool = False) -> pd.DataFrame:
    """Return the chosen examples, else all, the costliest first, as a table of numbers and texts.

    Args:
        examples: the probe set.
        chosen: positions.
        writes: the texts are to be written: there are tokens in the place of labels.
    """
    part = examples.loc[[position for position in chosen if position in examples.index]] if chosen else examples
    disagreement = ["disagreement"] if examples["disagreement"].notna().any() else []
    columns = ["loss", *disagreement, "group", "label", "prediction", "text", "text_pair"]
    rows = part.sort_values("loss", ascending=False, kind="stable")[columns]
    rows.insert(0, "example", rows.index)
    rows = rows.drop(columns="text_pair") if rows["text_pair"].isna().all() else rows
    return as_written(rows) if writes else rows


def large_enough(groups: pd.DataFrame) -> pd.DataFrame:
    """Return the groups that a sentence may name; those whose size nobody recorded are among them.

    Args:
        groups: with a column n, their examples; it is absent, or NaN, where that is not known.
    """
    return groups[~(groups["n"] < LEAST_EXAMPLES)] if "n" in groups else groups


def group_with_size(group: object, n: float) -> str:
    """Return the name of a group with its number of examples, where that is known."""
    return f"{one_line(group, 24)} (n = {n:,.0f})" if n == n else one_line(group, 24)


def sized_groups(store: RunQueries, folder: Path, step: int | None = None) -> pd.DataFrame:
    """Return the groups as `queries.groups_frame` does, with a column n: held-out examples of each.

    Runs of older versions recorded no sizes: there n are those in the probe set, which takes as many of each group as
    there are.
    """
    groups = store.ask_events(queries.groups_frame, folder, *([] if step is None else [step]))
    events = store.ask_events(queries.events_frame, folder, ("evaluate",))
    events = events if step is None else events[events["step"] <= step]
    payload = events["payload"].iloc[-1] if len(events) else None
    sizes = payload.get("group_rows") if isinstance(payload, Mapping) else None
    if not isinstance(sizes, list) or len(sizes) != len(groups) or not all(isinstance(n, int) for n in sizes):
        names = groups["group"].tolist()
        probe = [_at(names, group) for group in store.ask_events(queries.examples_frame, folder, 0)["group"]]
        sizes = [probe.count(name) if probe else np.nan for name in names]
    return groups.assign(n=sizes)


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
    summary: RunSummary
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
        return gates.set_axis(told_apart(gates.index.tolist(), self.summary), axis=0)

    @property
    def named_gates(self) -> pd.DataFrame:
        """The gates of the groups that a sentence may name."""
        return self.gates[self.gates.index.isin(large_enough(self.groups)["group"])]

    @cached_property
    def names(self) -> list[str]:
        """Names of the groups as recorded."""
        return self.store.ask(queries.groups_frame, self.folder, self.step)["group"].tolist()

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Groups with loss, metric and size, as `sized_groups` returns them; groups not trained on are marked."""
        frame = sized_groups(self.store, self.folder, self.step)
        return frame.assign(group=told_apart(frame["group"].tolist(), self.summary))

    @cached_property
    def examples(self) -> pd.DataFrame:
        """The probe set with names for groups, labels and predictions; groups not trained on are marked."""
        frame = self.store.ask(queries.examples_frame, self.folder, self.step)
        examples = named(frame, self.names, list(self.summary.labels))
        marked = dict(zip(self.names, self.groups["group"], strict=True))
        return examples.assign(group=[marked.get(name, name) for name in examples["group"]])

    @cached_property
    def probe_gates(self) -> pd.DataFrame:
        """Gate of each module on each probe example, as `queries.probe_gates` returns it."""
        return self.store.ask(queries.probe_gates, self.folder, self.step)

    @cached_property
    def measured(self) -> Effects | None:
        """What was measured of the run's adapter after its end; None where nothing was, or it has changed since."""
        effects = Effects.read(effects_file(self.folder))
        if effects is None or not effects.effects or (effects.which, effects.step) != ("last", self.summary.step):
            return None
        size = len(self.examples), len(self.store.modules(self.folder))
        return effects if (len(effects.effects), len(effects.effects[0])) == size else None

    @cached_property
    def module_effects(self) -> np.ndarray | None:
        """How strongly each module as recorded acts on each probe example, (n_examples, n_modules).

        None where it was neither recorded up to the step nor measured.
        """
        recorded = self.store.ask(queries.probe_effects, self.folder, self.step)
        if len(recorded) and len(recorded) == len(self.examples):
            return recorded.to_numpy(float)
        return None if self.measured is None else np.array(self.measured.effects, dtype=float)

    @cached_property
    def module_importance(self) -> np.ndarray | None:
        """What the loss of each probe example would rise by without each module as recorded, to first order.

        (n_examples, n_modules); None where the step has none, as before the last evaluation.
        """
        recorded = self.store.ask(queries.probe_importance, self.folder, self.step)
        return recorded.to_numpy(float) if len(recorded) and len(recorded) == len(self.examples) else None

    @cached_property
    def groupings(self) -> dict[str, list[str]]:
        """The group of each probe example by what it is grouped by; small groups are joined with their neighbour."""
        examples, data = self.examples, section(self.summary.config, "data")
        every = {}
        if len(self.names) > 1 and examples["group"].notna().all():
            every["group"] = joined(examples["group"].tolist(), self.groups["group"].tolist())
        labels = [str(label) for label in self.summary.labels]
        if len(labels) > 1 and data.get("group_by") != "label":
            every["class"] = joined(examples["label"].tolist(), labels)
        if len(examples) and data.get("group_by") != "length":
            lengths = examples["text"].str.len() + examples["text_pair"].fillna("").str.len()
            low, high = (int(one) for one in np.quantile(lengths, (1 / 3, 2 / 3)))
            names = [f"up to {low:,} characters", f"{low + 1:,} to {high:,} characters", f"over {high:,} characters"]
            place = (lengths > low).astype(int) + (lengths > high)
            every["length"] = joined([names[one] for one in place], names)
        return {by: groups for by, groups in every.items() if len(set(groups)) > 1}

    def moved(self, by: str, pair: tuple[str, str] | None = None) -> Moved | None:
        """Return what moves between two groups, as `module_effects.moved` does; None where nothing was measured."""
        effects, groups = self.module_effects, self.groupings.get(by)
        if effects is None or groups is None:
            return None
        of = (by, pair, self.step, self.measured is not None)
        return self.store.made("moved effect", self.folder, lambda: moved(effects, groups, pair), *of)

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
        return over_steps(frame, self.groups["group"].tolist())

    def gate_of(self, module: str) -> np.ndarray:
        """Return one module's gate on each probe example, NaN where none was recorded."""
        if module not in self.probe_gates.columns or len(self.probe_gates) != len(self.examples):
            return np.full(len(self.examples), np.nan)
        return self.probe_gates[module].to_numpy(float)


def inputs_of(run: RunReading) -> InputsReading:
    """Return the inputs of a run at the last evaluation up to the chosen step."""
    return InputsReading(run.folder, run.summary, run.selected, run.step, run.store, run.reactions)
