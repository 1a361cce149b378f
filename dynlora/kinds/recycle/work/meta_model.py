"""The meta-model: a frozen backbone with one meta-LoRA, whose features are compared with prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from dynlora import strategies
from dynlora.engine.adapt import adapt, nothing
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.base_model import BaseModel, load_tokenizer
from dynlora.errors import AssetError, first_line
from dynlora.kinds.recycle.work.token_space import Synthetic, reading
from dynlora.tasks.classification import Classification

BATCH = 64
"""Texts of a forward pass that needs no gradient."""


@dataclass
class MetaModel:
    """A backbone without a head, and the adapters in it.

    Attributes:
        base: model and tokenizer; the model carries the adapters.
        adapters: the meta-LoRA.
        pooling: mean (over the tokens) or last (token).
        max_length: texts are cut after so many tokens.
    """

    base: BaseModel
    adapters: Adapters
    pooling: str
    max_length: int

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.base.model.device

    def features(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the pooled state of each text, (n, d), of a batch with its attention mask."""
        hidden: Tensor = self.base.model(**batch).last_hidden_state.float()
        return pooled(hidden, batch["attention_mask"], self.pooling)

    def synthetic_features(self, inputs: Synthetic) -> Tensor:
        """Return the pooled state of each synthetic input, (n, d)."""
        with reading(self.base.model, inputs) as batch:
            return self.features(batch)

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return texts as one padded batch."""
        tokenizer: Any = self.base.tokenizer
        limit = min(self.max_length, tokenizer.model_max_length)
        batch = tokenizer(
            list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt", padding_side="right"
        )
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return the pooled state of each text, (n, d), on the CPU."""
        self.base.model.eval()
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        features = [self.features(self.tokens([texts[row] for row in part])).cpu() for part in parts]
        table = torch.cat(features) if features else torch.zeros(0, 0)
        return table[torch.tensor(order).argsort()]


def pooled(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Return one vector for each text, (n, d), of hidden states (n, length, d) and a mask (n, length).

    Args:
        hidden: of the last layer.
        mask: 1 where a token counts.
        pooling: mean over the tokens that count, or the last of them.
    """
    if pooling == "last":
        position = torch.arange(mask.shape[1], device=mask.device)
        last = (position * mask).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    weight = mask.unsqueeze(-1).float()
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def load_backbone(folder: Path) -> BaseModel:
    """Return the backbone of a local folder, frozen, without a head.

    Only safetensors are read, and no code of the folder is run.

    Raises:
        AssetError: when the folder holds no transformer.
    """
    transformers_logging.disable_progress_bar()
    try:
        model: Any = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise AssetError(f"model.name={folder}: cannot be loaded without a head ({first_line(error)})") from None
    tokenizer = load_tokenizer(folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.requires_grad_(False)
    return BaseModel(model, tokenizer, [], folder, Classification())


def add_meta_lora(
    base: BaseModel, *, rank: int, lora_alpha: float, seed: int, total: int, pooling: str, max_length: int
) -> MetaModel:
    """Put a meta-LoRA into a backbone and return both; its update is zero at first.

    Args:
        base: its linear modules are replaced in place.
        rank: of every module, all linear ones of the blocks.
        lora_alpha: the update is scaled by lora_alpha / rank.
        seed: of A.
        total: episodes of meta-training.
        pooling: mean or last.
        max_length: texts are cut after so many tokens.
    """
    adapters = adapt(
        base,
        strategies.build("lora", {}),
        rank=rank,
        lora_alpha=lora_alpha,
        dropout=0.0,
        targets=None,
        total=total,
        seed=seed,
        batches=nothing,
    )
    base.model.eval()
    return MetaModel(base, adapters, pooling, max_length)
