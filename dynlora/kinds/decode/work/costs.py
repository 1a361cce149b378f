"""What decoding costs, by formula: floating-point operations of tokens that are written, and of those that are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.model.base_model import head_parameters


@dataclass(frozen=True)
class Size:
    """What one token costs a model: 2 · (blocks + head) + 4 · attention · context FLOPs.

    Attributes:
        blocks: parameters that multiply every token: all but tables that are looked up and the output head, with the
            active ones of the adapter, which is not merged.
        head: parameters of the output head.
        attention: Σ over the blocks of heads · head dimension: queries meet keys, and weights meet values.
    """

    blocks: int
    head: int
    attention: int

    @classmethod
    def of(cls, model: AdaptedModel) -> Size:
        """Count the parameters of an adapted model."""
        whole: Any = model.base.model
        head = _head(model)
        adapter = {id(part) for module in model.adapters for part in module.parameters(recurse=False)}
        gates = set() if model.adapters.gates is None else {id(part) for part in model.adapters.gates.parameters()}
        tables = {id(part.weight) for part in whole.modules() if isinstance(part, nn.Embedding)}
        left_out = adapter | gates | tables | {id(part) for part in head}
        blocks = sum(part.numel() for part in whole.parameters() if id(part) not in left_out)
        counts = model.adapters.adapter_parameter_count()
        return cls(
            blocks + counts["active"] + counts["gate"], sum(part.numel() for part in head), _attention(whole.config)
        )

    @property
    def parameters(self) -> int:
        """Parameters that multiply a token that is written."""
        return self.blocks + self.head

    def written(self, first: int, count: int) -> int:
        """Return the FLOPs of `count` tokens that are written, each from the position before it.

        Args:
            first: tokens before the first of them.
            count: how many there are.
        """
        return self.read(first - 1, count) + 2 * self.head * count

    def read(self, first: int, count: int) -> int:
        """Return the FLOPs of reading `count` tokens after `first` others, the head aside."""
        contexts = count * first + count * (count + 1) // 2  # a token sees those before it, and itself
        return 2 * self.blocks * count + 4 * self.attention * contexts

    def classified(self, count: int) -> int:
        """Return the FLOPs of classifying a text of `count` tokens: each sees all, the head is read once."""
        return 2 * self.blocks * count + 4 * self.attention * count * count + 2 * self.head


def _head(model: AdaptedModel) -> list[nn.Parameter]:
    """Return the tensors of the output head: a model's words, or its classes."""
    output: Any = model.base.model.get_output_embeddings()
    return list(head_parameters(model.base).values()) if output is None else list(output.parameters())


def _attention(config: Any) -> int:
    inner = config.get_text_config()
    heads = int(inner.num_attention_heads)
    width = getattr(inner, "head_dim", None) or inner.hidden_size // heads
    return int(inner.num_hidden_layers) * heads * int(width)


@dataclass
class Work:
    """What one role has done.

    Attributes:
        decoded: tokens written, one forward each.
        prefilled: tokens read, many in one forward.
        decode_flops, prefill_flops: of the two.
    """

    decoded: int = 0
    prefilled: int = 0
    decode_flops: int = 0
    prefill_flops: int = 0
