"""Hidden states: what enters and leaves each block of a transformer, one vector a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dynlora.engine.data.held_back import Batch


@torch.no_grad()
def layer_states(model: nn.Module, batches: Iterable[Batch], rows: int) -> list[Tensor]:
    """Return the states before the first block and after each, averaged over the tokens: layers + 1 of (n, d).

    The model is in eval mode meanwhile. Padding is left out, and a row that came before counts once. What leaves the
    last block is taken there: Llama and GPT-2 list it after their last norm only.

    Args:
        model: a transformers model.
        batches: as the model takes them; labels are left out.
        rows: at most so many are read.
    """
    known: set[bytes] = set()
    batch_states: list[list[Tensor]] = []
    training = model.training
    model.eval()
    try:
        for batch in batches:
            if len(known) >= rows:
                break
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
            fresh = _fresh(inputs["input_ids"], mask, known, rows)
            if not fresh:
                continue
            weight = (mask / mask.sum(1, keepdim=True).clamp_min(1)).unsqueeze(-1).float()
            with leaving_last_block(model) as left:
                states = list(model(**inputs, output_hidden_states=True).hidden_states)
            states[-1:] = left or states[-1:]
            batch_states.append([(state.float() * weight).sum(1)[fresh] for state in states])
    finally:
        model.train(training)
    return [torch.cat(parts) for parts in zip(*batch_states, strict=True)]


@contextmanager
def leaving_last_block(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what leaves the model's last block inside the block; nothing where its blocks are not found."""
    inner = getattr(model, "module", model)
    count = getattr(getattr(inner, "config", None), "num_hidden_layers", 0)
    blocks = [part for part in inner.modules() if isinstance(part, nn.ModuleList) and 0 < len(part) == count]
    left: list[Tensor] = []

    def take(module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the states, which some blocks return first of several things."""
        left.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block[-1].register_forward_hook(take) for block in blocks[:1]]
    try:
        yield left
    finally:
        for hook in hooks:
            hook.remove()


def _fresh(ids: Tensor, mask: Tensor, known: set[bytes], rows: int) -> list[int]:
    """Return which rows of a batch were not read before, and note them, up to `rows` in all."""
    fresh = []
    for index, (row, row_mask) in enumerate(zip(ids.cpu(), mask.bool().cpu(), strict=True)):
        key = row[row_mask].numpy().tobytes()
        if key not in known and len(known) < rows:
            known.add(key)
            fresh.append(index)
    return fresh
