"""The space of word embeddings: where synthetic inputs are searched, and how a model reads them in place of words.

A model is given ordinary token ids, and its own lookup is answered with the synthetic embeddings. So whatever watches
that lookup, such as input gates, sees what the blocks see, and positions stay those of the tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynlora.errors import AssetError


@dataclass(frozen=True)
class Synthetic:
    """Synthetic inputs as a model reads them.

    Attributes:
        `built-in`: in the place of word embeddings, (n, length, d).
        positions: of each token in the text, (n, length).
        mask: 1 where a token counts, (n, length).
    """

    embedded: Tensor
    positions: Tensor
    mask: Tensor

    def take(self, rows: Tensor) -> Synthetic:
        """Return the inputs at these positions."""
        return Synthetic(self.embedded[rows], self.positions[rows], self.mask[rows])


@dataclass(frozen=True)
class TokenSpace:
    """Texts of a fixed number of free slots between a tokenizer's special tokens.

    Attributes:
        table: embeddings of all tokens, (vocabulary, d).
        ordinary: ids of the tokens written with the characters of public text alone, (m,).
        stream: ids of public text, one sentence after the other, (tokens,).
        before, after: ids of the special tokens around a text.
        slots: number of free slots.
        mean, deviation: of the ordinary embeddings by dimension, (d,).
        keeps_last: whether the last slot may not be dropped, since a decoder's head reads it.
        gathers: whether dropped tokens are left out; else they are masked, where a model takes no positions.
    """

    table: Tensor
    ordinary: Tensor
    stream: Tensor
    before: tuple[int, ...]
    after: tuple[int, ...]
    slots: int
    mean: Tensor
    deviation: Tensor
    keeps_last: bool
    gathers: bool = True

    @classmethod
    def of(cls, model: Any, tokenizer: Any, slots: int, sentences: Sequence[str]) -> TokenSpace:
        """Return the space of a model, whose words are those that could be in some public text.

        Raises:
            AssetError: when the tokenizer knows no such token.
        """
        table: Tensor = model.get_input_embeddings().weight.detach()
        ids = [one for text in sentences for one in tokenizer(text, add_special_tokens=False)["input_ids"]]
        ordinary = torch.tensor(_written_with(tokenizer, set("".join(sentences)), len(table)), device=table.device)
        if not len(ordinary) or len(ids) < slots:
            raise AssetError("model: its tokenizer does not know the words of public text; use another model")
        rows = table[ordinary].float()
        before, after = around(tokenizer)
        is_decoder = not tokenizer.cls_token and not tokenizer.mask_token
        return cls(
            table,
            ordinary,
            torch.tensor(ids, device=table.device),
            before,
            after,
            slots,
            rows.mean(0),
            rows.std(0),
            is_decoder and not after,
            takes_positions(model),
        )

    def start(self, n: int, kind: str, generator: torch.Generator) -> Tensor:
        """Return where a search of n inputs starts, standardised, (n, slots, d).

        Args:
            n: inputs.
            kind: text (pieces of public text), words (drawn tokens) or noise.
            generator: of the draw.
        """
        if kind == "noise":
            return torch.randn(n, self.slots, self.table.shape[1], generator=generator).to(self.table.device)
        if kind == "words":
            ids = self.ordinary[torch.randint(len(self.ordinary), (n, self.slots), generator=generator)]
        else:
            first = torch.randint(len(self.stream) - self.slots + 1, (n, 1), generator=generator)
            ids = self.stream[first + torch.arange(self.slots)]
        return self.standardised(ids)

    def standardised(self, ids: Tensor) -> Tensor:
        """Return tokens (n, slots) as standardised values, (n, slots, d)."""
        return (self.table[ids].float() - self.mean) / self.deviation

    def place(self, z: Tensor) -> Tensor:
        """Return standardised values (n, slots, d) as points among the word embeddings."""
        return self.mean + self.deviation * z

    def inputs(self, slots: Tensor, kept: Tensor | None = None) -> Synthetic:
        """Return slots (n, k, d) between the special tokens, at the places `kept`, (n, k), or at all of them.

        A model that takes no positions is given all slots, and those that were dropped are masked.
        """
        n, edge = len(slots), len(self.before)
        position = torch.arange(self.slots, device=slots.device).expand(n, -1)
        if kept is None or self.gathers:
            position = position if kept is None else kept
            counts = torch.ones_like(position)
        else:
            empty = slots.new_zeros(n, self.slots, slots.shape[-1])
            slots = empty.scatter(1, kept.unsqueeze(-1).expand(-1, -1, slots.shape[-1]), slots)
            counts = torch.zeros_like(position).scatter(1, kept, 1)
        front = torch.arange(edge, device=slots.device).expand(n, -1)
        back = torch.arange(len(self.after), device=slots.device).expand(n, -1) + edge + self.slots
        return Synthetic(
            torch.cat([self._fixed(self.before, n), slots, self._fixed(self.after, n)], 1),
            torch.cat([front, position + edge, back], 1),
            torch.cat([torch.ones_like(front), counts, torch.ones_like(back)], 1),
        )

    def _fixed(self, ids: tuple[int, ...], n: int) -> Tensor:
        return self.table[list(ids)].float().expand(n, -1, -1)

    @torch.no_grad()
    def nearest(self, points: Tensor) -> Tensor:
        """Return the ids of the ordinary tokens nearest to points (n, slots, d), (n, slots)."""
        rows = self.table[self.ordinary].float()
        flat = points.reshape(-1, points.shape[-1]).float()
        size = rows.square().sum(1)
        indices = [(size - 2 * part @ rows.t()).argmin(1) for part in flat.split(256)]
        return self.ordinary[torch.cat(indices)].view(points.shape[:-1])

    def unlike(self, points: Tensor, ids: Tensor) -> Tensor:
        """Return the mean squared distance of points to tokens, in variances of the embeddings, ()."""
        return ((points - self.table[ids].float()) / self.deviation).square().mean()


def _written_with(tokenizer: Any, characters: set[str], known: int) -> list[int]:
    """Return the ids of the tokens that are written with some characters alone, special ones left out."""
    special = set(tokenizer.all_special_ids)
    ids = [number for number in range(min(len(tokenizer), known)) if number not in special]
    texts = tokenizer.batch_decode([[number] for number in ids])
    return [number for number, text in zip(ids, texts, strict=True) if text.strip() and characters.issuperset(text)]


def around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the special tokens that a tokenizer puts before and after a text."""
    ids: list[int] = tokenizer("the")["input_ids"]
    inner: list[int] = tokenizer("the", add_special_tokens=False)["input_ids"]
    for start in range(len(ids) - len(inner) + 1):
        if ids[start : start + len(inner)] == inner:
            return tuple(ids[:start]), tuple(ids[start + len(inner) :])
    return (), ()


@contextmanager
def reading(model: Any, inputs: Synthetic) -> Iterator[dict[str, Tensor]]:
    """Let a model read synthetic inputs inside the block; yields the batch to call it with.

    Positions are handed over where the model takes them; where it does not, they are those of the rows.
    """

    def put(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        copies = len(output) // len(inputs.embedded)  # an ensemble reads every row once for each member
        return (inputs.embedded.repeat(copies, 1, 1) if copies > 1 else inputs.embedded).to(output.dtype)

    filler = torch.full_like(inputs.mask, _filler(model))
    batch = {"input_ids": filler, "attention_mask": inputs.mask}
    if takes_positions(model):
        batch["position_ids"] = inputs.positions + first_position(model)
    handle = model.get_input_embeddings().register_forward_hook(put, prepend=True)
    try:
        yield batch
    finally:
        handle.remove()


def _filler(model: Any) -> int:
    """Return a token id that is not the one that pads: decoders look for the last token that does not."""
    return 1 if getattr(model.config, "pad_token_id", None) != 1 else 2


def takes_positions(model: nn.Module) -> bool:
    """Say whether a model can be told the positions of its tokens."""
    return "position_ids" in inspect.signature(model.forward).parameters


def first_position(model: nn.Module) -> int:
    """Return the number of the first position: RoBERTa counts from the one after that of padding."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
