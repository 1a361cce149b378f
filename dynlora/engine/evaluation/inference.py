"""A trained adapter on its base model: predict, bake the gates, fold everything into plain weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.engine.data.batches import Tokens, sorted_batches, tokenize
from dynlora.engine.data.held_back import Batch
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.evaluate import Predictions, predict, summarise
from dynlora.engine.evaluation.generate import LONGEST, Limits, write
from dynlora.engine.evaluation.module_effects import averaged_gates
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.base_model import BaseModel, dequantize
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.strategy import Strategy
from dynlora.errors import NotMergeableError
from dynlora.tasks import Task, WritingTask

Forward = Callable[[nn.Module, Batch], Any]
"""A strategy's forward: a model and a batch without labels to its output."""


@dataclass
class AdaptedModel:
    """A base model with trained adapters and head.

    Attributes:
        base: model, tokenizer and head; the model carries the adapters.
        adapters: of the model.
        strategy: the method, whose forward is used.
        task: what it predicts, with the names of the classes.
        max_length: texts are cut after so many tokens.
        autocast: makes the precision's context.
        unusual: how far members disagree about one held-out row in a hundred; None for a method without members.
        step: optimizer steps the adapter has behind it.
        new_tokens: a model that writes texts writes at most so many.
    """

    base: BaseModel
    adapters: Adapters
    strategy: Strategy
    task: Task
    max_length: int
    autocast: Callable[[], Any] = nullcontext
    unusual: float | None = None
    step: int = 0
    new_tokens: int = 128

    @property
    def labels(self) -> list[str]:
        """Names of the classes, empty for a task without."""
        return list(self.task.labels)

    def tokens(self, rows: Rows) -> Tokens:
        """Return rows as tokens."""
        return tokenize(self.base.tokenizer, rows, self.max_length, self.task)

    def predict(self, text: Sequence[str], text_pair: Sequence[str] | None = None) -> Predictions:
        """Return predictions for texts; their loss means nothing."""
        pair = None if text_pair is None else list(text_pair)
        rows = Rows(list(text), pair, self.task.no_labels(len(text)), None)
        return self.predictions(self.tokens(rows))

    def answers(self, text: Sequence[str], text_pair: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return predictions for texts in words, one row each: text, prediction, and what belongs to the task.

        Classification adds the probabilities by class. Where members disagree, `disagreement` says how far and
        `unusual` whether further than about 99 of 100 held-out examples.
        """
        if isinstance(self.task, WritingTask):
            return self.continued(self.task, text)
        predictions = self.predict(text, text_pair)
        rows: list[dict[str, Any]] = []
        for index, item in enumerate(text):
            row: dict[str, Any] = {"text": item} | ({} if text_pair is None else {"text_pair": text_pair[index]})
            row |= self.task.answer(predictions.prediction[index], predictions.output[index])
            if predictions.disagreement is not None:
                row["disagreement"] = float(predictions.disagreement[index])
                row["unusual"] = None if self.unusual is None else row["disagreement"] > self.unusual
            rows.append(row)
        return rows

    def continued(
        self, task: WritingTask, text: Sequence[str], temperature: float = 0.0, seed: int = 0
    ) -> list[dict[str, Any]]:
        """Return what the model writes after texts, one row each: text, prediction, tokens and whether it ended.

        Args:
            task: of the model.
            text: prompts; of a run that learned conversations each is a user's turn.
            temperature: 0 takes the most probable token.
            seed: of what is drawn.
        """
        rows = Rows(list(text), None, task.no_labels(len(text)), None, task.prompt_fields(text))
        return self.continued_rows(task, rows, temperature, seed)

    def continued_rows(
        self, task: WritingTask, rows: Rows, temperature: float = 0.0, seed: int = 0
    ) -> list[dict[str, Any]]:
        """Return what the model writes after rows, each with the tokens that are before its completion in training.

        Args:
            task: of the model.
            rows: prompts, or conversations up to a turn of the assistant's.
            temperature: 0 takes the most probable token.
            seed: of what is drawn.
        """
        tokenizer, text = self.base.tokenizer, rows.text
        ids = [task.prompt(tokenizer, rows, index, is_whole=True).ids for index in range(len(rows))]
        limits = Limits(self.new_tokens, min(tokenizer.model_max_length, LONGEST), temperature, seed)
        with self.autocast():
            written = write(self.base.model, tokenizer, ids, limits, self.adapters.gates)
        return [
            {
                "text": prompt,
                "prediction": str(tokenizer.decode(one.ids, skip_special_tokens=True)),
                "tokens": len(one.ids),
                "ended": one.ended,
            }
            for prompt, one in zip(text, written, strict=True)
        ]

    def predictions(
        self, tokens: Tokens, batch_size: int = 64, on_batch: Callable[[int], None] = lambda rows: None
    ) -> Predictions:
        """Return predictions for tokenised rows; `on_batch` is called with the number of rows that are done."""
        return self._predict(self.strategy.forward, tokens, batch_size, on_batch)

    def effects(self, tokens: Tokens, batch_size: int = 64) -> np.ndarray:
        """Return how strongly each module acts on each row, ‖h - h₀‖ / ‖h₀‖ of its output, (n, n_modules)."""
        predictions = self._predict(
            self.strategy.forward, tokens, batch_size, lambda rows: None, acted_on=range(len(tokens))
        )
        return np.stack(list([] if predictions.effect is None else predictions.effect))

    def _predict(
        self,
        forward: Forward,
        tokens: Tokens,
        batch_size: int,
        on_batch: Callable[[int], None],
        acted_on: Sequence[int] = (),
    ) -> Predictions:
        return predict(
            self.base.model,
            forward,
            tokens,
            self.task,
            batch_size=batch_size,
            gates=self.adapters.gates,
            disagreement=self.strategy.disagreement,
            autocast=self.autocast,
            acted_on=acted_on,
            adapters=self.adapters,
            on_batch=on_batch,
        )

    def predictions_and_readings(
        self, tokens: Tokens, batch_size: int = 64, on_batch: Callable[[int], None] = lambda rows: None
    ) -> tuple[Predictions, Tensor]:
        """Return what `predictions` and `readings` do, of one forward for each batch."""
        logits: list[Tensor] = []

        def forward(model: nn.Module, batch: Batch) -> Any:
            output = self.strategy.forward(model, batch)
            if not isinstance(self.task, WritingTask):
                logits.append(output.float().cpu())
            return output

        predictions = self._predict(forward, tokens, batch_size, on_batch)
        if not logits:  # a model that writes is read by its loss
            return predictions, torch.from_numpy(predictions.loss).unsqueeze(1)
        places = np.argsort(np.concatenate(list(sorted_batches(tokens.length, batch_size))))
        return predictions, torch.cat(logits)[places]

    def evaluate(self, rows: Rows) -> dict[str, float]:
        """Return loss and metrics on labelled rows."""
        tokens = self.tokens(rows)
        return summarise(self.predictions(tokens), tokens.label, self.task)

    def readings(self, tokens: Tokens, batch_size: int = 64) -> Tensor:
        """Return what the task reads off each row, (n, k), in the rows' order: its logits or loss."""
        return self.predictions_and_readings(tokens, batch_size)[1]


@torch.no_grad()
def mean_gates(model: AdaptedModel, tokens: Tokens, batch_size: int = 64) -> Tensor | None:
    """Return each gate averaged over rows, (n_modules,) or (n_modules, max_rank); None without gates."""
    gates = model.adapters.gates
    return None if gates is None else averaged_gates(model.base.model, gates, tokens, batch_size)


@torch.no_grad()
def bake_gates(model: AdaptedModel, mean: Tensor | None) -> None:
    """Put each gate's mean in the place of the gate: the adapter is plain LoRA then. None takes gates off unchanged."""
    adapters = model.adapters
    for index, module in enumerate(adapters):
        module.gates = None
        if mean is None:
            continue
        if mean.dim() == 1:
            module.scaling *= float(mean[index])
        else:
            module.lora_B.mul_(mean[index, : module.held].to(module.lora_B.device))
    if adapters.gates is not None:
        adapters.gates.uninstall(model.base.model)
        adapters.gates = None


@torch.no_grad()
def merge(model: AdaptedModel) -> None:
    """Fold every update into its base weight and put the plain module back: W0 + scaling · B diag(e) A.

    Raises:
        NotMergeableError: while input gates are on; bake them first.
    """
    if model.adapters.gates is not None:
        raise NotMergeableError("the gates depend on the input; replace them by their means before merging")
    dequantize(model.base.model)  # into quantised weights the update would be rounded away
    for module in model.adapters:
        base = module.base_layer
        weight: Tensor = base.weight  # pyright: ignore - linear by construction
        delta, shift = module.delta_weight().to(weight.dtype), module.delta_bias()  # both of the unmerged weight
        weight += delta.t() if is_transposed(module) else delta
        _merge_bias(base, shift)
        replace_module(model.base.model, module.info.name, base)


def _merge_bias(base: nn.Module, shift: Tensor | None) -> None:
    """Fold the update of the bias into the frozen one, or give the module one."""
    if shift is None:
        return
    bias: Tensor | None = base.bias  # pyright: ignore - linear by construction
    total = shift if bias is None else bias + shift
    base.bias = nn.Parameter(total.detach(), requires_grad=False)


def is_transposed(module: LoraLinear) -> bool:
    """Say whether the base weight is as (d_in, d_out), as in Conv1D; told by type where the matrix is square."""
    return not isinstance(module.base_layer, nn.Linear)
