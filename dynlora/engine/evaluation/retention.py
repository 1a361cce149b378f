"""What a model forgets: adapter against base on general text that no task is about.

A model that writes is compared by its loss on the same tokens with the adapters on and off, and by the mean over tokens
of KL(base || adapter), which also sees changes that leave the loss as it is.

A model with a new head is compared by its hidden states. Its base has no classes: agreement of predictions would need
the trained head on states that it was not trained for, or a head that was fitted to the base, which no run has. So
`cosine` is that of the two pooled states of each text, and `agreement` the fraction of the texts whose nearest other
text is the same in both. Neither needs labels, and the second does not depend on the scale of the states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynlora.analysis.retention import RETENTION
from dynlora.analysis.stats import normal_reach, per_token
from dynlora.assets.catalog import digest_of, public_sentences
from dynlora.engine.data.batches import IGNORED, Tokens, sorted_batches, tokenize
from dynlora.engine.data.held_back import Batch, pooled, pooled_from
from dynlora.engine.data.text_data import Rows
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.recorder import Recorder
from dynlora.tasks import Task, WritingTask
from dynlora.tasks.token_loss import token_divergence, token_loss
from dynlora.tasks.token_rows import begun

MOST_TOKENS = 64
"""Tokens after which a text is cut."""

BATCH = 64
"""Texts a forward pass."""

NUMBERS = ("base_loss", "loss", "kl", "cosine", "agreement")
"""What is recorded as a number of split `retention`, where it was measured."""


@dataclass(frozen=True)
class GeneralText:
    """General text as a model reads it.

    Attributes:
        tokens: of each text.
        task: of the model; one that writes is read by its loss.
        digest: SHA-256 of the texts.
    """

    tokens: Tokens
    task: Task
    digest: str = ""

    @classmethod
    def of(cls, tokenizer: Any, task: Task) -> GeneralText:
        """Return the public text of the package for a model with this tokenizer and task."""
        texts = public_sentences()
        limit = min(MOST_TOKENS, tokenizer.model_max_length)
        if isinstance(task, WritingTask):
            tokens = _to_write(tokenizer, texts, limit)
        else:
            tokens = tokenize(tokenizer, Rows(texts, None, task.no_labels(len(texts)), None), limit, task)
        return cls(tokens, task, digest_of(texts))

    @torch.inference_mode()
    def measured(
        self,
        model: nn.Module,
        adapters: Adapters,
        forward: Callable[[nn.Module, Batch], Any],
        autocast: Callable[[], Any],
    ) -> dict[str, Any]:
        """Return what the adapters changed, as the event `retention` holds it; the model's mode stays.

        Args:
            model: not wrapped for several processes: each of them reads all texts.
            adapters: of the model.
            forward: the strategy's.
            autocast: makes the precision's context.
        """
        device = next(model.parameters()).device
        compare = _written if isinstance(self.task, WritingTask) else _pooled
        training = model.training
        model.eval()
        try:
            parts = []
            for rows in sorted_batches(self.tokens.length, BATCH):
                batch = self.tokens.batch(rows, device)
                labels = batch.pop("labels")
                with autocast():
                    parts.append(compare(model, adapters, forward, batch, labels))
        finally:
            model.train(training)
        joined = [np.concatenate([part[place] for part in parts], axis=-1) for place in range(len(parts[0]))]
        numbers = _of_tokens(*joined) if isinstance(self.task, WritingTask) else _of_states(*joined)
        return {"texts": len(self.tokens), "tokens": int(self.tokens.length.sum()), "digest": self.digest, **numbers}


def record(recorder: Recorder, step: int, measured: Mapping[str, Any]) -> None:
    """Record what `GeneralText.measured` returned: an event, and its numbers over the steps."""
    recorder.event(step, RETENTION, [], measured)
    for name in NUMBERS:
        if name in measured:
            recorder.scalar(name, RETENTION, step, measured[name])


def _to_write(tokenizer: Any, texts: list[str], limit: int) -> Tokens:
    """Return texts whose tokens count all but the first; the end of a text is no part of it."""
    rows = [begun(tokenizer, text)[:limit] for text in texts]
    rows = [ids for ids in rows if len(ids) > 1]
    features = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows]
    length = np.array([len(ids) for ids in rows])
    pad = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0}
    return Tokens(features, length - 1, length, pad, [[IGNORED, *ids[1:]] for ids in rows])


def _written(
    model: nn.Module, adapters: Adapters, forward: Callable[[nn.Module, Batch], Any], batch: Batch, labels: Tensor
) -> tuple[np.ndarray, ...]:
    """Return for each text of a batch, summed over its tokens: base loss, loss and KL, nats, and how many tokens."""
    with adapters.disabled():
        base = forward(model, batch)
    adapted = forward(model, batch)
    base_loss, count = token_loss(base, labels)
    values = (base_loss, token_loss(adapted, labels)[0], token_divergence(base, adapted, labels)[0], count)
    return tuple(one.double().cpu().numpy() for one in values)


def _of_tokens(base_loss: np.ndarray, loss: np.ndarray, kl: np.ndarray, count: np.ndarray) -> dict[str, float]:
    """Return means over tokens; `low` and `high` are those of the rise of the loss, over the texts."""
    rise, tokens = per_token(loss - base_loss, count), count.sum()
    means = {name: float(sums.sum() / tokens) for name, sums in (("base_loss", base_loss), ("loss", loss), ("kl", kl))}
    return {**means, "low": rise["low"], "high": rise["high"]}


def _pooled(
    model: nn.Module, adapters: Adapters, forward: Callable[[nn.Module, Batch], Any], batch: Batch, labels: Tensor
) -> tuple[np.ndarray, ...]:
    """Return the pooled states of a batch without the adapters and with them, (members, d, batch) each."""
    states: list[Tensor] = []
    for is_base in (True, False):
        with pooled_from(model) as seen:
            if is_base:
                with adapters.disabled():
                    forward(model, batch)
            else:
                forward(model, batch)
        members = len(seen[-1]) // len(batch["input_ids"])  # an ensemble reads each text once for every member
        states.append(pooled(seen[-1], batch["attention_mask"].repeat(members, 1)))
    shape = (-1, len(labels), states[0].shape[-1])
    return tuple(one.view(shape).transpose(1, 2).double().cpu().numpy() for one in states)


def _of_states(base: np.ndarray, adapted: np.ndarray) -> dict[str, float]:
    """Return mean cosine, its interval over the texts, and how many texts keep their neighbour; (members, d, n)."""
    first, second = (F.normalize(torch.from_numpy(one), dim=1) for one in (base, adapted))
    cosine = (first * second).sum(1).mean(0).numpy()
    near = [_nearest(one) for one in (first, second)]
    mean, reach = float(cosine.mean()), normal_reach(cosine)
    agreement = float((near[0] == near[1]).double().mean())
    return {"cosine": mean, "low": mean - reach, "high": mean + reach, "agreement": agreement}


def _nearest(states: Tensor) -> Tensor:
    """Return for each text the nearest other one, (members, n), of states of length one, (members, d, n)."""
    alike = states.transpose(1, 2) @ states
    alike.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return alike.argmax(-1)
