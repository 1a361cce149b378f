"""The spaces that inputs are searched in, word embeddings or pixels, and the models that read them.

A model is given ordinary token ids, and its own lookup is answered with the synthetic embeddings. So whatever watches
that lookup, such as input gates, sees what the blocks see, and positions stay those of the tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.base_model import BaseModel, load_tokenizer
from dynlora.errors import AssetError, first_line
from dynlora.kinds.sources import add_lora, around
from dynlora.tasks.classification import Classification


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
        place = torch.arange(self.slots, device=slots.device).expand(n, -1)
        if kept is None or self.gathers:
            place = place if kept is None else kept
            counts = torch.ones_like(place)
        else:
            empty = slots.new_zeros(n, self.slots, slots.shape[-1])
            slots = empty.scatter(1, kept.unsqueeze(-1).expand(-1, -1, slots.shape[-1]), slots)
            counts = torch.zeros_like(place).scatter(1, kept, 1)
        front = torch.arange(edge, device=slots.device).expand(n, -1)
        back = torch.arange(len(self.after), device=slots.device).expand(n, -1) + edge + self.slots
        return Synthetic(
            torch.cat([self._fixed(self.before, n), slots, self._fixed(self.after, n)], 1),
            torch.cat([front, place + edge, back], 1),
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
        nearest = [(size - 2 * part @ rows.t()).argmin(1) for part in flat.split(256)]
        return self.ordinary[torch.cat(nearest)].view(points.shape[:-1])

    def unlike(self, points: Tensor, ids: Tensor) -> Tensor:
        """Return the mean squared distance of points to tokens, in variances of the embeddings, ()."""
        return ((points - self.table[ids].float()) / self.deviation).square().mean()


def _written_with(tokenizer: Any, characters: set[str], known: int) -> list[int]:
    """Return the ids of the tokens that are written with some characters alone, special ones left out."""
    special = set(tokenizer.all_special_ids)
    ids = [number for number in range(min(len(tokenizer), known)) if number not in special]
    texts = tokenizer.batch_decode([[number] for number in ids])
    return [number for number, text in zip(ids, texts, strict=True) if text.strip() and characters.issuperset(text)]


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
        place = torch.arange(mask.shape[1], device=mask.device)
        last = (place * mask).argmax(1)
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
    adapters = add_lora(base, rank=rank, lora_alpha=lora_alpha, seed=seed, total=total)
    return MetaModel(base, adapters, pooling, max_length)


LEAST_DEVIATION = 1e-3
"""Deviations are counted as at least this fraction of the layer's mean deviation."""


@dataclass(frozen=True)
class Moments:
    """Mean and deviation of the hidden states of each layer, (layers, d) each."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, states: Sequence[Tensor], mask: Tensor) -> Moments:
        """Return the moments of hidden states (n, length, d) over the tokens that a mask (n, length) counts."""
        weight = mask.unsqueeze(-1).float()
        total = weight.sum()
        means, deviations = [], []
        for state in states:
            mean = (state.float() * weight).sum((0, 1)) / total
            variance = ((state.float() - mean).square() * weight).sum((0, 1)) / total
            means.append(mean)
            deviations.append((variance + 1e-12).sqrt())
        return cls(torch.stack(means), torch.stack(deviations))

    def distance(self, other: Moments) -> Tensor:
        """Return how far other moments are from these, (), in this text's deviations.

        The mean over layers and dimensions of ((mean - mean') / s)² + ((s - s') / s)².
        """
        least = LEAST_DEVIATION * self.deviation.mean(1, keepdim=True)
        size = self.deviation.maximum(least)
        means = ((other.mean - self.mean) / size).square()
        return (means + ((other.deviation - self.deviation) / size).square()).mean()


@torch.no_grad()
def text_moments(backbone: Any, tokenizer: Any, sentences: Sequence[str], length: int) -> Moments:
    """Return the moments of a backbone on sentences that are cut after `length` tokens."""
    batch = tokenizer(list(sentences), padding=True, truncation=True, max_length=length, return_tensors="pt")
    device = next(backbone.parameters()).device
    given = {name: tensor.to(device) for name, tensor in batch.items()}
    states = backbone(**given, output_hidden_states=True).hidden_states
    return Moments.of(states, given["attention_mask"])


@dataclass(frozen=True)
class TeacherSpace:
    """Synthetic texts for a teacher; searched by `materials.Inversion`.

    Attributes:
        teacher: the trained run, used as a function alone.
        base: the backbone that all teachers share; it is read without its meta-LoRA.
        space: of word embeddings.
        moments: of public text.
        kind: what a search starts from: text, words or noise.
        autocast: makes the precision's context.
    """

    teacher: AdaptedModel
    base: MetaModel
    space: TokenSpace
    moments: Moments
    kind: str = "words"
    autocast: Callable[[], Any] = nullcontext

    def start(self, n: int, generator: torch.Generator) -> Tensor:
        """Return where the search of n inputs starts, standardised, (n, slots, d)."""
        return self.space.start(n, self.kind, generator)

    def logits(self, z: Tensor, kept: Tensor | None) -> Tensor:
        """Return the teacher's logits, (n, classes)."""
        model = self.teacher.base.model
        with reading(model, self.space.inputs(self.space.place(z), kept)) as batch, self.autocast():
            return self.teacher.strategy.forward(model, batch)

    def strangeness(self, z: Tensor, kept: Tensor | None) -> Tensor:
        """Return the distance of the base model's hidden moments to those of public text, ()."""
        model, inputs = self.base.base.model, self.space.inputs(self.space.place(z), kept)
        with self.base.adapters.disabled(), reading(model, inputs) as batch, self.autocast():
            states = model(**batch, output_hidden_states=True).hidden_states
        return self.moments.distance(Moments.of(states, inputs.mask))

    def nearest(self, z: Tensor) -> Tensor:
        """Return the id of the token nearest to each slot, (n, slots)."""
        return self.space.nearest(self.space.place(z))

    def unlike(self, z: Tensor, nearest: Tensor) -> Tensor:
        """Return the mean squared distance of slots to tokens, in variances of the embeddings, ()."""
        return self.space.unlike(self.space.place(z), nearest)

    def may_drop(self) -> Tensor:
        """Return which slots may be dropped, (slots,): all but the last one that a decoder's head reads."""
        free = torch.ones(self.space.slots, dtype=torch.bool)
        free[-1] = not self.space.keeps_last
        return free
