"""Evaluation: per-example losses, predictions and gates on held-out examples, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from dynlora.engine.data.batches import Tokens, sorted_batches
from dynlora.engine.data.held_back import Batch
from dynlora.engine.evaluation.module_effects import measured_effects
from dynlora.engine.evaluation.retention import GeneralText
from dynlora.engine.evaluation.written import Prompts, TokenTrace
from dynlora.engine.model.gates import Gates
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.randomness import stream_seed
from dynlora.engine.recorder import Recorder
from dynlora.tasks import Task, WritingTask


@dataclass(frozen=True)
class HeldOutPart:
    """Some of the held-out examples.

    Attributes:
        rows: their indices in rising order, (n,).
        of: number of all held-out examples.
    """

    rows: np.ndarray
    of: int

    @property
    def is_whole(self) -> bool:
        """Whether these are all held-out examples."""
        return len(self.rows) == self.of

    def places(self, chosen: np.ndarray) -> np.ndarray:
        """Return where rows of the part are in it."""
        return np.searchsorted(self.rows, chosen)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return one value for every held-out row, (of,): NaN for those that were not looked at."""
        if self.is_whole:
            return values
        whole = np.full(self.of, np.nan, dtype=np.float32)
        whole[self.rows] = values
        return whole


def whole(of: int) -> HeldOutPart:
    """Return all held-out examples."""
    return HeldOutPart(np.arange(of), of)


def sample(probe: np.ndarray, group: np.ndarray | None, of: int, size: int, seed: int) -> HeldOutPart:
    """Return the probe set and further rows, `size` in all: a keyed draw, the same at every evaluation.

    Rows are added where a group has the smallest fraction of its rows in the sample: so the groups come as near to
    their fractions of all rows as the probe set, which takes as many from each, lets them.

    Args:
        probe: row indices of the probe set.
        group: index of each row's group, (of,), or None.
        of: number of held-out examples.
        size: rows of the sample; all where there are no more.
        seed: of the run.
    """
    if size >= of:
        return whole(of)
    group = np.zeros(of, dtype=int) if group is None else group
    order = np.random.default_rng(stream_seed(seed, "held_out_sample")).permutation(of)
    order = np.concatenate([order[np.isin(order, probe)], order[~np.isin(order, probe)]])
    share = np.zeros(of)
    for value in np.unique(group):
        members = order[group[order] == value]
        share[members] = np.arange(len(members)) / len(members)
    share[probe] = -1.0
    return HeldOutPart(np.sort(order[np.argsort(share[order], kind="stable")][:size]), of)


WORST = 50
"""How many of the worst examples an evaluation keeps."""

UNUSUAL = "disagreement_p99"
"""The disagreement that one held-out row in a hundred exceeds: a text above it is unlike what the members know."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of n rows.

    Attributes:
        loss: per example, (n,).
        output: what the task makes of the logits, (n, k): class probabilities, or the predicted number.
        prediction: class index, or the number, (n,).
        gate: (n, n_modules), or None without gates.
        disagreement: how far members disagree, (n,), or None for a method without members.
        token_loss: the loss of each token of a row in nats, NaN where one does not count, or None for a row that was
            not asked for, (n,); None where none was.
        effect: how strongly each adapted module acts on a row, (n_modules,), or None for a row that was not asked for,
            (n,); None where none was.
    """

    loss: np.ndarray
    output: np.ndarray
    prediction: np.ndarray
    gate: np.ndarray | None
    disagreement: np.ndarray | None = None
    token_loss: np.ndarray | None = None
    effect: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Predictions:
        """Return those of some rows."""
        values = (None if value is None else value[rows] for value in vars(self).values())
        return Predictions(*values)  # pyright: ignore[reportArgumentType]


@torch.inference_mode()
def predict(  # noqa: PLR0913 - what a prediction depends on, named
    model: nn.Module,
    forward: Callable[[nn.Module, Batch], Tensor],
    tokens: Tokens,
    task: Task,
    *,
    batch_size: int,
    gates: Gates | None = None,
    disagreement: Callable[[], Tensor | None] = lambda: None,
    autocast: Callable[[], Any],
    shard: tuple[int, int] = (0, 1),
    by_token: Collection[int] = (),
    acted_on: Sequence[int] = (),
    adapters: Sequence[LoraLinear] = (),
    on_batch: Callable[[int], None] = lambda rows: None,
) -> Predictions:
    """Run the model over rows, longest first, and return the predictions in the rows' order.

    Args:
        model: in any mode; it is evaluated in eval mode and put back.
        forward: the strategy's forward.
        tokens: the rows.
        task: makes losses and predictions of the logits.
        batch_size: rows a forward pass.
        gates: whose values are kept.
        disagreement: the strategy's, of the last forward.
        autocast: makes the precision's context.
        shard: this process and the number of processes; every one runs its part and all get the whole.
        by_token: rows whose losses are kept token by token, of a task that writes texts.
        acted_on: rows on which the effect of each of `adapters` is measured; they have batches of their own.
        adapters: of the model.
        on_batch: called after each batch with the number of rows that this process has run.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    rank, world = shard
    parts: list[tuple[Any, ...]] = []
    rows = 0
    try:
        for number, indices in enumerate(sorted_batches(tokens.length, batch_size, acted_on)):
            if number % world != rank:
                continue
            batch = tokens.batch(indices, device)
            labels = batch.pop("labels")
            is_measured = len(acted_on) > 0 and bool(np.isin(indices[0], acted_on))
            with autocast(), measured_effects(adapters if is_measured else (), batch["attention_mask"]) as effects:
                logits = forward(model, batch)
            beside = (gates.values if gates is not None else None, disagreement())
            loss, output, each = _outputs(logits, labels, task, by_token=bool(by_token))
            token_losses = None if each is None else _token_losses(each, indices, tokens.length, by_token)
            by_row = np.empty(len(indices), dtype=object)
            by_row[:] = list(effects.values()) if is_measured else None
            effect = by_row if len(acted_on) else None
            parts.append((indices, loss, output, *(_array(values) for values in beside), token_losses, effect))
            rows += len(indices)
            on_batch(rows)
    finally:
        model.train(training)
    if world > 1:
        parts = gather_object(parts)
    return _ordered(parts, len(tokens), task)


def _outputs(
    logits: Any, labels: Tensor, task: Task, *, by_token: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return losses and outputs of a batch as arrays, and the loss of each token where it is wanted."""
    if by_token and isinstance(task, WritingTask):
        loss, output, each = task.judged_by_token(logits, labels)
        return loss.cpu().numpy(), output.cpu().numpy(), _array(each)
    loss, output = task.judged(logits, labels)
    return loss.cpu().numpy(), output.cpu().numpy(), None


def _token_losses(each: np.ndarray, rows: np.ndarray, length: np.ndarray, by_token: Collection[int]) -> np.ndarray:
    """Return the losses of the tokens of each row that is wanted, without padding; None for the others, (n,)."""
    losses = np.empty(len(rows), dtype=object)
    for index, row in enumerate(rows):
        losses[index] = each[index, : length[row]].copy() if int(row) in by_token else None
    return losses


def _array(values: Tensor | None) -> np.ndarray | None:
    """Return a tensor as an array in full precision."""
    return None if values is None else values.float().cpu().numpy()


def _ordered(parts: Sequence[tuple[Any, ...]], n: int, task: Task) -> Predictions:
    """Put the parts back into the rows' order."""
    order = np.argsort(np.concatenate([part[0] for part in parts]), kind="stable")
    columns = [
        None if column[0] is None else np.concatenate(column)[order][:n]
        for column in list(zip(*parts, strict=True))[1:]
    ]
    loss, output = np.asarray(columns[0]), np.asarray(columns[1])
    return Predictions(loss, output, task.prediction(output), *columns[2:])


def summarise(predictions: Predictions, label: np.ndarray, task: Task) -> dict[str, float]:
    """Return loss and metrics of predictions; of members that disagree, the mean of it and what few rows exceed."""
    metrics = {"loss": float(predictions.loss.mean())}
    metrics |= task.evaluate(label, predictions.prediction, predictions.output)
    if predictions.disagreement is not None:
        metrics["disagreement"] = float(predictions.disagreement.mean())
        metrics[UNUSUAL] = float(np.percentile(predictions.disagreement, 99))
    return metrics


@dataclass
class Evaluation:
    """Evaluates one held-out set again and again, and records it: groups, worst examples, the probe set.

    Attributes:
        tokens: held-out examples.
        text, text_pair: their texts.
        group: index of each row's group, (n,), or None.
        group_names: names of the groups.
        task: what is learned.
        probe: row indices of the probe set.
        metric: the number that decides.
        sample: the rows of an evaluation before the last; None: all rows.
        prompts: what a model that writes texts continues at each evaluation; None: nothing is written.
        trace: examples of the probe set whose losses are recorded token by token; None: of no example.
        general: text on which is measured what was forgotten; None: nothing is.
    """

    tokens: Tokens
    text: Sequence[str]
    text_pair: Sequence[str] | None
    group: np.ndarray | None
    group_names: Sequence[str]
    task: Task
    probe: np.ndarray
    metric: str
    sample: HeldOutPart | None = None
    prompts: Prompts | None = None
    trace: TokenTrace | None = None
    general: GeneralText | None = None

    def traced(self, part: HeldOutPart) -> frozenset[int]:
        """Return the places in a part of the rows whose losses are recorded token by token."""
        return frozenset() if self.trace is None else frozenset(part.places(self.trace.rows).tolist())

    def part(self, *, last: bool) -> HeldOutPart:
        """Return the rows that an evaluation looks at."""
        return whole(len(self.tokens)) if last or self.sample is None else self.sample

    def judged(self, predictions: Predictions, part: HeldOutPart) -> dict[str, float]:
        """Return the metrics that evaluations are compared by: all of them on the rows of the sample."""
        rows = self.part(last=False).rows
        return summarise(predictions.take(part.places(rows)), self.tokens.label[rows], self.task)

    def define(self, recorder: Recorder, n_modules: int, position: np.ndarray, gated: bool) -> None:
        """Announce groups, probe set and signals; `position` places the probe examples in the plane, (n_probe, 2)."""
        n_groups, n_probe = len(self.group_names), len(self.probe)
        loss, answer, output = self.task.loss_unit, self.task.prediction_unit, self.task.output_unit
        recorder.define_groups(self.group_names)
        for name, unit in (("held_out_loss", loss), ("held_out_prediction", answer), ("held_out_label", answer)):
            recorder.define_signal(name, "example", unit, len(self.tokens))
        recorder.define_examples([self._example(int(row), position[i]) for i, row in enumerate(self.probe)])
        if n_groups:
            recorder.define_signal("group_loss", "group", loss, n_groups)
            recorder.define_signal("group_metric", "group", self.metric, n_groups)
            for name in self.task.group_metrics:
                recorder.define_signal(f"group_{name}", "group", "", n_groups)
        for name, unit in (("probe_loss", loss), ("probe_prediction", answer), ("probe_probability", output)):
            recorder.define_signal(name, "example", unit, n_probe)
        for name, unit in (("base_loss", loss), ("base_prediction", answer)):
            recorder.define_signal(name, "example", unit, n_probe)
        recorder.define_signal("probe_effect", "example", "ratio", n_probe * n_modules)
        recorder.define_signal("probe_importance", "example", loss, n_probe * n_modules)
        if gated:
            recorder.define_signal("probe_gate", "example", "factor", n_probe * n_modules)
            if n_groups:
                recorder.define_signal("group_gate", "group", "factor", n_groups * n_modules)

    def record(
        self, recorder: Recorder, step: int, predictions: Predictions, part: HeldOutPart | None = None
    ) -> dict[str, float]:
        """Record an evaluation of a part of the rows, all unless told otherwise, and return its metrics."""
        part = part or whole(len(self.tokens))
        metrics = summarise(predictions, self.tokens.label[part.rows], self.task)
        for name, value in metrics.items():
            recorder.scalar(name, "validation", step, value)
        self._record_groups(recorder, step, predictions, part)
        if step == 0:
            recorder.vector("held_out_label", step, self.tokens.label)
        recorder.vector("held_out_loss", step, part.spread(predictions.loss))
        recorder.vector("held_out_prediction", step, part.spread(predictions.prediction))
        probed = predictions.take(part.places(self.probe))
        recorder.vector("probe_loss", step, probed.loss)
        recorder.vector("probe_prediction", step, probed.prediction)
        recorder.vector("probe_probability", step, self.task.confidence(probed.output))
        if probed.gate is not None:
            recorder.vector("probe_gate", step, probed.gate.ravel())
        if probed.effect is not None:
            recorder.vector("probe_effect", step, np.concatenate(list(probed.effect)))
        if self.trace is not None and probed.token_loss is not None:
            self.trace.record(recorder, step, probed.token_loss)
        if predictions.disagreement is not None:
            self._record_disagreement(recorder, step, predictions.disagreement, part)
        recorder.event(step, "evaluate", [], self._payload(metrics, predictions, part))
        return metrics

    def record_base(self, recorder: Recorder, step: int, predictions: Predictions) -> None:
        """Record what the trained head says of the probe set when all adapters are off."""
        recorder.vector("base_loss", step, predictions.loss)
        recorder.vector("base_prediction", step, predictions.prediction)

    def _record_disagreement(self, recorder: Recorder, step: int, disagreement: np.ndarray, part: HeldOutPart) -> None:
        """Record how far members disagree about each example, each probe example and, on average, each group."""
        unit = self.task.disagreement_unit
        by = [
            ("held_out_disagreement", "example", part.spread(disagreement)),
            ("probe_disagreement", "example", disagreement[part.places(self.probe)]),
        ]
        if self.group is not None and self.group_names:
            rows = [np.flatnonzero(self.group[part.rows] == index) for index in range(len(self.group_names))]
            means = [disagreement[members].mean() if len(members) else np.nan for members in rows]
            by.append(("group_disagreement", "group", np.array(means)))
        for name, axis, values in by:
            recorder.define_signal(name, axis, unit, len(values))
            recorder.vector(name, step, values)

    def _record_groups(self, recorder: Recorder, step: int, predictions: Predictions, part: HeldOutPart) -> None:
        """Record loss, metric, calibration and gates of each group; an empty group is NaN."""
        if self.group is None or not self.group_names:
            return
        by_group, gates = [], []
        group, label = self.group[part.rows], self.tokens.label[part.rows]
        for index in range(len(self.group_names)):
            rows = np.flatnonzero(group == index)
            by_group.append(summarise(predictions.take(rows), label[rows], self.task) if len(rows) else {})
            if predictions.gate is not None:
                gates.append(
                    predictions.gate[rows].mean(0) if len(rows) else np.full(predictions.gate.shape[1], np.nan)
                )
        numbers = {"loss": "loss", "metric": self.metric, **{name: name for name in self.task.group_metrics}}
        for name, key in numbers.items():
            recorder.vector(f"group_{name}", step, np.array([of_group.get(key, np.nan) for of_group in by_group]))
        if gates:
            recorder.vector("group_gate", step, np.concatenate(gates))

    def _payload(self, metrics: dict[str, float], predictions: Predictions, part: HeldOutPart) -> dict[str, Any]:
        """Return what an evaluation event holds: metrics, on how many rows, confusion table and worst examples."""
        worst = np.argsort(-predictions.loss, kind="stable")[:WORST]
        return {
            "metrics": metrics,
            "rows": len(part.rows),
            "of": part.of,
            "labels": list(self.task.labels),
            "group_rows": [] if self.group is None else self._group_rows(part),
            "worst": [self._worst(int(index), predictions, part) for index in worst],
            **self.task.details(self.tokens.label[part.rows], predictions.prediction),
        }

    def _group_rows(self, part: HeldOutPart) -> list[int]:
        """Return how many rows of each group an evaluation looks at."""
        group = np.asarray(self.group)[part.rows]
        return np.bincount(group, minlength=len(self.group_names)).tolist()

    def _example(self, row: int, position: np.ndarray) -> dict[str, Any]:
        """Return one probe example as the store keeps it."""
        return {
            "text": self.text[row],
            "text_pair": None if self.text_pair is None else self.text_pair[row],
            "label": self.task.describe(self.tokens.label[row]),
            "group": None if self.group is None else int(self.group[row]),
            "x": float(position[0]),
            "y": float(position[1]),
        }

    def _worst(self, index: int, predictions: Predictions, part: HeldOutPart) -> dict[str, Any]:
        """Return one of the worst examples."""
        row = int(part.rows[index])
        return {
            "row": row,
            "text": self.text[row][:2000],
            "text_pair": None if self.text_pair is None else self.text_pair[row][:2000],
            "label": self.task.describe(self.tokens.label[row]),
            "prediction": self.task.describe(predictions.prediction[index]),
            "loss": float(predictions.loss[index]),
        }
