"""How much of an adapter's effect is in its first components: agreement of its truncations with the whole.

This is a diagnosis, not a way to save time: an adapter is about one hundredth of a forward, at any rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlora.config_files import read_run_config
from dynlora.engine.compress.plain import Truncatable, as_plain_lora
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError
from dynlora.inference.load import GATE_ROWS, load_run
from dynlora.tasks import WritingTask
from dynlora.training.inputs import read_data

ROWS = 48
"""Held-out completions whose tokens are compared."""


def nested_ranks(folder: Path, rows: int = ROWS) -> list[dict[str, Any]]:
    """Return {rank, share, agreement} of the ranks 0, 1, 2, 4, ... of a run's adapter, up to the whole.

    `share` is the fraction of the adapter's parameters; `agreement` the fraction of tokens of held-out completions at
    which the truncated adapter, with `rank` components in every module, finds the same token most probable as the
    whole one. Gates are replaced by their means.

    Raises:
        ConfigError: when the run writes no texts, or its data has no completions.
        NotMergeableError: when the method's update has no components.
    """
    config, model = read_run_config(folder), load_run(folder)
    data = read_data(config)
    if not isinstance(model.task, WritingTask) or data.held_out.text_pair is None:
        raise ConfigError(f"run {folder.name}: has no completions to compare tokens on; give a run that learned some")
    bake_gates(model, mean_gates(model, model.tokens(data.train_sample(GATE_ROWS, config.seed))))
    plain = as_plain_lora(model)
    drawn = np.random.default_rng(stream_seed(config.seed, "nested ranks")).permutation(len(data.held_out))[:rows]
    chosen = data.held_out.take(np.sort(drawn))
    whole = _choices(plain, chosen)
    adapter = Truncatable.of(plain, None, "plain")
    rows_by_rank = []
    for rank in _ranks(max(adapter.sizes, default=0)):
        first_components = [np.arange(min(rank, size)) for size in adapter.sizes]
        adapter.keep(first_components)
        same = (_choices(plain, chosen) == whole).double().mean()
        share = adapter.parameters_of(first_components) / max(1, adapter.parameters)
        rows_by_rank.append({"rank": rank, "share": share, "agreement": float(same)})
    return rows_by_rank


def _ranks(largest: int) -> Iterator[int]:
    """Yield 0, 1, 2, 4, ... and the largest."""
    yield 0
    rank = 1
    while rank < largest:
        yield rank
        rank *= 2
    if largest:
        yield largest


@torch.no_grad()
def _choices(model: AdaptedModel, rows: Rows) -> Tensor:
    """Return the most probable token at every token of the completions, each after the right tokens, (n,)."""
    task, tokenizer, choices = model.task, model.base.tokenizer, []
    assert isinstance(task, WritingTask)
    whole: Any = model.base.model
    device = next(whole.parameters()).device
    for index in range(len(rows)):
        prompt = task.prompt(tokenizer, rows, index)
        ids = [*prompt.ids, *tokenizer(prompt.expected, add_special_tokens=False)["input_ids"]]
        ids = ids[: model.max_length]
        logits = whole(input_ids=torch.tensor([ids], device=device)).logits[0, len(prompt.ids) - 1 :]
        choices.append(logits.argmax(-1).cpu())
    return torch.cat(choices)
