"""The training loop: one for all strategies. It is handed a recorder and knows no page, no file of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from dynlora.analysis.learning import LEARNING, message, payload
from dynlora.config import RunConfig
from dynlora.engine import edits
from dynlora.engine.context import Step
from dynlora.engine.data.batches import BatchOrder, Tokens, divisors
from dynlora.engine.data.held_back import Batch
from dynlora.engine.edits.components import state_bytes
from dynlora.engine.evaluation import retention
from dynlora.engine.evaluation.evaluate import Evaluation, HeldOutPart, Predictions, predict, sample
from dynlora.engine.evaluation.module_effects import MEAN_ROWS, MOST_ROWS, averaged_gates, losses_without, reaction
from dynlora.engine.evaluation.written import EXACT_MATCH, InterimTexts
from dynlora.engine.loop.first_steps import FirstSteps, check_loss, check_start
from dynlora.engine.loop.optimizer import clip, set_lr
from dynlora.engine.loop.schedule import Outlook, checkpoint_every, eval_every
from dynlora.engine.loop.step_signals import StepSignals, Timing
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gates import Gates
from dynlora.engine.randomness import seed_global_stream, stream_seed
from dynlora.engine.recorder import Recorder
from dynlora.engine.strategy import Strategy


class CheckpointWriter(Protocol):
    """Keeps what must survive; `training.py` writes it into the run folder."""

    def checkpoint(self, trainer: Trainer) -> None:
        """Keep the whole state; a resume continues from it bit for bit."""

    def best(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Keep the adapter of the best evaluation so far."""


class TrainingStopped(Exception):
    """Training was asked to stop, and its state is kept."""


@dataclass
class Trainer:
    """Everything the loop needs.

    Attributes:
        config: the run's settings.
        model: the adapted model as the strategy's forward takes it (wrapped for several processes).
        adapters: of the model.
        strategy: the method.
        optimizer: AdamW over adapters and head.
        tokens: training examples.
        evaluation: held-out examples and how to record them.
        accelerator: device and processes.
        autocast: makes the precision's context.
        recorder: takes what is emitted.
        total: optimizer steps of the run.
        should_stop: asked after every step.
        step: optimizer steps done.
        best: metrics of the best evaluation so far, with its step; all are judged on the same rows.
        metrics: of the last evaluation.
        last_eval_subset: the held-out examples of the last evaluation; None before the first of this process.
        penalties: the strategy's terms of the last forward, which the recorded loss leaves out.
        outlook: how long the run still takes.
    """

    config: RunConfig
    model: nn.Module
    adapters: Adapters
    strategy: Strategy
    optimizer: Optimizer
    tokens: Tokens
    evaluation: Evaluation
    accelerator: Accelerator
    autocast: Callable[[], Any]
    recorder: Recorder
    total: int
    should_stop: Callable[[], bool] = lambda: False
    on_step: Callable[[Trainer], None] = lambda trainer: None
    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    last_eval_subset: HeldOutPart | None = None
    loss: float = math.nan
    timing: Timing = field(default_factory=Timing)
    penalties: dict[str, Tensor] = field(default_factory=dict)
    outlook: Outlook = field(init=False)

    def __post_init__(self) -> None:
        """Reckon what the run has to do."""
        train, held_out = self.config.train, self.evaluation.tokens.length
        per_row = float(self.tokens.length.mean()) if len(self.tokens) else 0.0
        interim = float(held_out[self.evaluation.part(last=False).rows].sum())
        probe = float(held_out[self.evaluation.probe].sum())
        general = self.evaluation.general
        compared = 2.0 * float(general.tokens.length.sum()) if general is not None else 0.0
        self.outlook = Outlook(
            self.total,
            eval_every(self.config, self.total),
            per_row * train.batch_size * train.grad_accum,
            # the last one looks at the probe set without adapters too
            (interim + compared / max(1, self.config.log.retention), float(held_out.sum()) + probe + compared),
        )

    @cached_property
    def first_steps(self) -> FirstSteps:
        """Watches the first steps of the run."""
        plain: Any = self.accelerator.unwrap_model(self.model)
        steps, peak = range(self.step, self.total), self.config.train.lr
        return FirstSteps(self.adapters, self.optimizer, steps, peak_lr=peak, model=plain)

    @cached_property
    def texts(self) -> InterimTexts | None:
        """What evaluations let a model write; None for a model that writes no texts."""
        prompts = self.evaluation.prompts
        if prompts is None:
            return None
        plain: Any = self.accelerator.unwrap_model(self.model)
        is_deciding = self.evaluation.metric == EXACT_MATCH
        gates, agree = self.adapters.gates, self._over_processes
        return InterimTexts(prompts, plain, gates, self.outlook, self.recorder, agree, is_deciding)

    def train(self, keeper: CheckpointWriter) -> None:
        """Train to the last step, or until asked to stop.

        Raises:
            TrainingStopped: after a stop was asked for and the state kept.
            TrainingDiverged: when the loss is not a number.
        """
        order, signals = self.begin()
        self.model.train()
        if self.step == 0:
            keeper.checkpoint(self)  # from here on, whatever happens, there is something to resume from
            signals.record(Step(0, self.total, 0.0), {})
            signals.flush()
            part = self.evaluation.part(last=False)
            self.recorder.log("info", f"First evaluation ({len(part.rows):,} of {part.of:,} held-out examples)")
            self.recorder.commit()
            self._evaluate(keeper)
        if self.step < self.total:
            self.recorder.log("info", f"Training steps {self.step + 1:,} to {self.total:,}")
        while self.step < self.total:
            start, evaluated_s = time.perf_counter(), self.timing.evaluated_s
            self.take_step(order, signals)
            self._after_step(keeper, signals)
            evaluated_s = self.timing.evaluated_s - evaluated_s
            self.outlook.took_step(time.perf_counter() - start - evaluated_s)
            self.outlook.expect(self.step)
            self._tell("")
        signals.flush()
        self.recorder.commit()

    def _tell(self, phase: str) -> None:
        """Say what the run does, beside its steps, and how long it still takes."""
        self.recorder.activity(phase, self.outlook.remaining_s())

    def begin(self) -> tuple[BatchOrder, StepSignals]:
        """Return the order of the batches, and what records the steps."""
        self.adapters.over_processes = self._over_processes
        order = BatchOrder(self.tokens.length, self.config.train.batch_size, self.config.seed)
        reduce, every = self._over_processes, self.config.log.every
        return order, StepSignals(self.adapters, self.strategy, self.recorder, every, reduce=reduce)

    def take_step(self, order: BatchOrder, signals: StepSignals) -> None:
        """Take one optimizer step and record it.

        Raises:
            TrainingDiverged: when the loss is not a number.
        """
        start = time.perf_counter()
        loss, made = self._advance(order, signals)
        self.timing.end_step(time.perf_counter() - start)
        step = Step(self.step, self.total, self.optimizer.param_groups[0]["lr"])
        signals.record(
            step,
            {"loss": loss, **self._penalties(), **self._numbers()},
            self._budget_payload(made),
            edits.describe(made),
        )
        signals.record_timing(step, self.timing)
        self.recorder.scalar("tokens", "train", self.step, self._tokens_in(order, self.step))
        self._clear_gradients()
        self.loss = signals.last_loss
        if signals.has_loss:
            check_loss(self.config, self.loss, self.step)
        self.on_step(self)

    def _advance(self, order: BatchOrder, signals: StepSignals | None = None) -> tuple[Tensor, list[edits.Edit]]:
        """Take one optimizer step; return the batch loss (a tensor, not yet read) and the edits that were applied.

        `signals` weigh the components before edits move them away from their gradients.
        """
        index = self.step + 1
        lr = set_lr(self.optimizer, self.config.train, index, self.total, self.strategy.rates.factor)
        loss = self._backward(order, index)
        step = Step(index, self.total, lr, loss)
        with self.timing.strategy(), torch.no_grad():
            self.strategy.watch(step)
            self.strategy.observe(self.adapters, step)
        clip(self.optimizer, self.config.train.max_grad_norm)
        self.first_steps.before_step()
        self.optimizer.step()
        self.step = index
        self._look_at_learning()
        if signals is not None:
            signals.capture_importance()
        with self.timing.strategy(), torch.no_grad():
            made = self.strategy.allocate(self.adapters, step)
            edits.apply(self.adapters, made, self.optimizer, step=index)
            if index == self.total:
                last = self.strategy.finish(self.adapters)
                edits.apply(self.adapters, last, self.optimizer, step=index)
                made = [*made, *last]
        return loss, made

    def _look_at_learning(self) -> None:
        """Record whether the adapters learn, once, and say it in the log where they do not."""
        symptoms = self.first_steps.after_step()
        if symptoms is None:
            return
        self.recorder.event(self.step, LEARNING, [], payload(symptoms))
        for symptom in symptoms:
            self.recorder.log("warning", message(symptom, self.step))

    def _backward(self, order: BatchOrder, index: int) -> Tensor:
        """Accumulate the gradient of one optimizer step and return its mean loss, penalties left out."""
        accum = self.config.train.grad_accum
        total = torch.zeros((), device=self.accelerator.device)
        parts = [order[(index - 1) * accum + part] for part in range(accum)]
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        for part, divisor in enumerate(divisors(self.tokens, parts, process, processes)):
            batch = self._batch(order, (index - 1) * accum + part)
            key = (index, part, self.accelerator.process_index)
            seed_global_stream(self.config.seed, "forward", *key)
            self.adapters.streams.at(*key)
            with self._sync_context(part, accum):
                loss = self._loss(batch)
                penalty = self.strategy.penalty(self.adapters)
                self.penalties = {name: term.detach() for name, term in penalty.items()}
                objective = loss + sum(penalty.values()) if penalty else loss
                (objective / divisor if divisor != 1 else objective).backward()
            total += loss.detach() * (accum / divisor)
        return self._over_processes(total / accum if accum > 1 else total)

    def _clear_gradients(self) -> None:
        """Forget this step's gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        self.adapters.clear_gradients()

    def _penalties(self) -> dict[str, Tensor]:
        """Return the strategy's penalty terms of this step as they are recorded."""
        return {f"penalty/{name}": term for name, term in self.penalties.items()}

    def _numbers(self) -> dict[str, Tensor]:
        """Return the strategy's single numbers of this step, as tensors on the device."""
        device = self.accelerator.device
        numbers = self.strategy.scalars(self.adapters)
        return {name: torch.as_tensor(value, dtype=torch.float32, device=device) for name, value in numbers.items()}

    def _over_processes(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes, which hold parts of equal size."""
        if self.accelerator.num_processes == 1:
            return value
        return self.accelerator.reduce(value, "mean")  # pyright: ignore

    def _sync_context(self, part: int, accum: int) -> Any:
        """Reduce gradients over processes only with the last part."""
        return self.accelerator.no_sync(self.model) if part < accum - 1 else nullcontext()

    def _loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss of a batch."""
        labels = batch.pop("labels")
        with self.autocast():
            output = self.strategy.forward(self.model, batch)
        return self.strategy.loss(output, labels)

    def _batch(self, order: BatchOrder, number: int) -> dict[str, Tensor]:
        """Return this process's part of forward pass `number`."""
        rows = order[number][self.accelerator.process_index :: self.accelerator.num_processes]
        return self.tokens.batch(rows, self.accelerator.device)

    def _tokens_in(self, order: BatchOrder, index: int) -> float:
        """Return how many tokens, padding left out, all processes read in one optimizer step."""
        accum = self.config.train.grad_accum
        parts = range((index - 1) * accum, index * accum)
        return float(sum(self.tokens.length[order[number]].sum() for number in parts))

    def _budget_payload(self, made: list[edits.Edit]) -> dict[str, int] | None:
        """Return the budget as a decision left it, for the decision log."""
        if not any(edits.is_logged(edit) for edit in made):
            return None
        count = self.adapters.adapter_parameter_count()
        return {"budget": count["budget"], "budget_used": count["active"] + count["gate"]}

    def _after_step(self, keeper: CheckpointWriter, signals: StepSignals) -> None:
        """Evaluate and checkpoint when due, and stop when asked."""
        last = self.step == self.total
        stop = self._agree_to_stop() and not last
        if last or self.step % eval_every(self.config, self.total) == 0:
            signals.flush()
            self._evaluate(keeper)
        elif stop or self.step % checkpoint_every(self.config, self.total) == 0:
            signals.flush()
            keeper.checkpoint(self)
        if stop:
            raise TrainingStopped

    def _agree_to_stop(self) -> bool:
        """Say whether any process was asked to stop; all must leave after the same step."""
        is_requested = self.should_stop()
        if self.accelerator.num_processes == 1:
            return is_requested
        flag = torch.tensor(float(is_requested), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)  # pyright: ignore

    def _evaluate(self, keeper: CheckpointWriter) -> None:
        """Evaluate, keep the adapter if it is the best so far, and checkpoint."""
        start = time.perf_counter()
        self.outlook.expect(self.step, evaluates=True)
        self.recorder.scalar("optimizer_bytes", "train", self.step, float(state_bytes(self.optimizer)))
        part = self.evaluation.part(last=self.step == self.total)
        if self.step:
            self.recorder.log("info", f"Evaluating {len(part.rows):,} of {part.of:,} held-out examples")
        self._tell("evaluating")
        self.recorder.commit()  # what was recorded before is there to be seen meanwhile
        tokens = self.evaluation.tokens if part.is_whole else self.evaluation.tokens.take(part.rows)
        probe = part.places(self.evaluation.probe).tolist()
        predictions = self.predictions(tokens, self.evaluation.traced(part), probe, report=True)
        if self.step == 0:
            check_start(self.config, predictions)
        self.outlook.token_s = (time.perf_counter() - start) / max(1.0, float(tokens.length.sum()))
        self.metrics, self.last_eval_subset = self.evaluation.record(self.recorder, self.step, predictions, part), part
        written, compared = ({}, {}) if self.texts is None else self.texts.write(self.step)
        self.metrics = {**self.metrics, **written}
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        self.recorder.log("info", f"Evaluated at step {self.step:,} of {self.total:,}: {numbers}")
        judged = {**self.evaluation.judged(predictions, part), **compared}
        if self.evaluation.task.is_better(self.evaluation.metric, judged, self.best):
            self.best = {**judged, "step": self.step}
            keeper.best(self, judged)
        if self.step == self.total:
            with self.adapters.disabled():
                without = self.predictions(self.evaluation.tokens.take(self.evaluation.probe))
            self.evaluation.record_base(self.recorder, self.step, without)
            self._record_importance()
            if self.adapters.gates is not None:
                gain = self.reaction(self.adapters.gates, predictions)
                self.recorder.event(self.step, "gate_reaction", [], gain)
        self._measure_retention()
        keeper.checkpoint(self)
        self.timing.evaluated_s += time.perf_counter() - start
        self._tell("")

    def _measure_retention(self) -> None:
        """Record what the adapters changed on general text, where this evaluation is to."""
        general, every = self.evaluation.general, self.config.log.retention
        number = self.step // eval_every(self.config, self.total)
        if general is None or not every or (number % every and self.step < self.total):
            return
        self._tell("measuring retention")
        plain: Any = self.accelerator.unwrap_model(self.model)
        measured = general.measured(plain, self.adapters, self.strategy.forward, self.autocast)
        retention.record(self.recorder, self.step, measured)

    def reaction(self, gates: Gates, predictions: Predictions) -> dict[str, Any]:
        """Return what reacting to the input gains, as `gate_reaction.reaction` does.

        Args:
            gates: of the adapters.
            predictions: of all held-out examples, with the gates; a sample of them is compared.
        """
        evaluation, seed = self.evaluation, self.config.seed
        plain: Any = self.accelerator.unwrap_model(self.model)
        rng = np.random.default_rng(stream_seed(seed, "gate means"))
        mean = averaged_gates(plain, gates, self.tokens.take(rng.permutation(len(self.tokens))[:MEAN_ROWS]))
        rows = sample(evaluation.probe, evaluation.group, len(evaluation.tokens), MOST_ROWS, seed).rows
        with gates.holding(mean):
            held = self.predictions(evaluation.tokens.take(rows))
        group = None if evaluation.group is None else evaluation.group[rows]
        of = len(evaluation.tokens)
        return reaction(held.loss, predictions.loss[rows], of, group, evaluation.group_names)

    def _record_importance(self) -> None:
        """Record the importance of each module to each probe example; without room on the device a run continues."""
        try:
            importance = self.probe_importance()
        except torch.OutOfMemoryError:
            self.recorder.log("warning", "Importance by input group was not recorded: the device has no room for it")
        else:
            self.recorder.vector("probe_importance", self.step, importance.ravel())

    def probe_importance(self) -> np.ndarray:
        """Return what the loss of each probe example would rise by without each module, to first order.

        Raises:
            torch.OutOfMemoryError: where the device cannot hold the activations of a few rows.
        """
        model: Any = self.accelerator.unwrap_model(self.model)
        tokens = self.evaluation.tokens.take(self.evaluation.probe)

        def losses(batch: Batch, labels: Tensor) -> Tensor:
            with self.autocast():
                return self.evaluation.task.example_loss(self.strategy.forward(model, batch), labels)

        train = self.config.train  # half of a step's rows: outputs are held beside their gradients
        rows = 1 if train.gradient_checkpointing else train.batch_size // (2 * self.accelerator.num_processes)
        return losses_without(model, losses, tokens, self.adapters.modules, max(1, rows))

    def probe_step(self, order: BatchOrder) -> float:
        """Take one step that is recorded nowhere, and return its seconds; a trainer that was probed trains no run.

        `loss` is that of its batch.
        """
        start = time.perf_counter()
        self.step = min(self.step, self.total - 1)  # schedules end with the last step
        loss, _ = self._advance(order)
        self.loss = float(loss)  # waits for the device
        self._clear_gradients()
        return time.perf_counter() - start

    def predictions(
        self,
        tokens: Tokens,
        by_token: Collection[int] = (),
        acted_on: Sequence[int] = (),
        *,
        report: bool = False,
    ) -> Predictions:
        """Return what the adapted model says of rows: see `predict` for `by_token` and `acted_on`.

        With `report`, the recorder is told how far the evaluation is.
        """
        n = math.ceil(len(tokens) / self.accelerator.num_processes)

        def on_batch(rows: int) -> None:
            if report:
                self._tell(f"evaluating: example {min(rows, n):,} of {n:,}")

        return predict(
            self.model,
            self.strategy.forward,
            tokens,
            self.evaluation.task,
            batch_size=max(64, self.config.train.batch_size),
            gates=self.adapters.gates,
            disagreement=self.strategy.disagreement,
            autocast=self.autocast,
            shard=(self.accelerator.process_index, self.accelerator.num_processes),
            by_token=by_token,
            acted_on=acted_on,
            adapters=self.adapters,
            on_batch=on_batch,
        )
