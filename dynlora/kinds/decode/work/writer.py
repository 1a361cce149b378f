"""One model at work on one text, with a cache that holds exactly a prefix of its tokens; and what its tokens cost."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, StopStringCriteria

from dynlora.engine.evaluation.generate import cache_name, end_tokens
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.model.base_model import head_parameters
from dynlora.engine.model.gradient_sketch import TokenSums, WrittenSoFar
from dynlora.errors import ConfigError


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


class StepEnd:
    """Says of the tokens of a step whether they hold the text that ends it.

    A token that has more after the end ends a step too; what it has beyond stays in the step.

    Attributes:
        text: that ends a step.
    """

    def __init__(self, tokenizer: Any, text: str, role: str) -> None:
        """Prepare the criterion of transformers for a tokenizer.

        Args:
            tokenizer: of the role.
            text: that ends a step.
            role: for the message.

        Raises:
            ConfigError: when the text is empty, or the tokenizer cannot write it.
        """
        if not text:
            raise ConfigError("--step-string: is empty; give the text that ends a step, such as a line break")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if text not in tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False):
            raise ConfigError(
                f"--step-string {text!r}: the tokenizer of the {role} cannot write it; give a text that it can, or "
                "another run"
            )
        self.text = text
        self._criterion = StopStringCriteria(tokenizer, [text])

    def __call__(self, ids: Sequence[int]) -> bool:
        """Say whether the last token of a step ends it."""
        return bool(self._criterion(torch.tensor([list(ids)]), None)[0])  # pyright: ignore[reportArgumentType]


MOST_REMEMBERED = 50_000
"""Steps and readings that a role remembers: those of some thousand problems, about 100 MB."""


@dataclass(frozen=True)
class Role:
    """A model that writes, and what is known of it.

    Attributes:
        name: draft or target.
        model: of a run that learned to write.
        step_end: where a step ends for its tokenizer.
        total: tokens of a prompt and its solution together.
        memory: what it wrote or read off before, by the tokens before; the most probable tokens are always the same.
    """

    name: str
    model: AdaptedModel
    step_end: StepEnd
    total: int
    memory: dict[Any, tuple[Any, float]] = field(default_factory=dict[Any, "tuple[Any, float]"], compare=False)

    @cached_property
    def size(self) -> Size:
        """What a token costs it."""
        return Size.of(self.model)

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end a text."""
        return frozenset(end_tokens(self.model.base.model, self.model.base.tokenizer))

    @cached_property
    def cache_name(self) -> str:
        """What the model calls its cache."""
        return cache_name(self.model.base.model)

    @cached_property
    def keeps_logits(self) -> bool:
        """Whether the model can leave the head out where nothing is read off it."""
        return "logits_to_keep" in inspect.signature(self.model.base.model.forward).parameters


@dataclass(frozen=True)
class Piece:
    """What a role wrote in one go.

    Attributes:
        ids: its tokens, an end token included.
        text: what they add to the solution.
        end: step (the step string), end (an end token) or cap (as many tokens as were allowed).
    """

    ids: list[int]
    text: str
    end: str


@dataclass
class Writer:
    """A role at work on one text.

    Attributes:
        role: who writes.
        ids: tokens of the prompt and of the solution so far.
        prompt: how many of them are the prompt's.
        read: how many of them the cache holds, always the first ones.
        counted: how many it would hold if nothing came from memory: that is what `work` counts.
        work: what was done so far.
        seconds: it took; of what came from memory, those that it took when it was done.
    """

    role: Role
    ids: list[int]
    prompt: int = field(init=False)
    read: int = field(default=0, init=False)
    counted: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    work: Work = field(default_factory=Work, init=False)
    _cache: Any = field(init=False, repr=False)
    _sums: dict[int, TokenSums | None] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Begin with an empty cache."""
        self.prompt = len(self.ids)
        self._cache = DynamicCache()  # without the config: layers with a window would drop what is cropped later
        self._sums = {0: None}

    @property
    def room(self) -> int:
        """How many more tokens the model can take."""
        return self.role.total - len(self.ids)

    def text(self, ids: Sequence[int] | None = None) -> str:
        """Return the solution, of the tokens so far or of others, for reading."""
        tokens = self.ids[self.prompt :] if ids is None else ids
        tokenizer: Any = self.role.model.base.tokenizer
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def take(self, ids: Sequence[int]) -> None:
        """Add tokens that another role wrote; they are read when they are needed."""
        self.ids += ids

    def take_back(self, count: int) -> None:
        """Remove the last tokens, from the cache too."""
        self.ids = self.ids[: len(self.ids) - count]
        self.counted = min(self.counted, len(self.ids))
        self._crop(len(self.ids))

    def write(self, most: int) -> Piece:
        """Write up to the end of a step, the end of the text, or `most` tokens: at each the most probable one."""
        first = len(self.ids)
        self._count_read(first - 1)  # the next token is read off the last one
        piece: Piece = self._once(("write", most), lambda: self._written(most))
        self.ids = [*self.ids[:first], *piece.ids]
        self.counted = len(self.ids) - 1
        self.work.decoded += len(piece.ids)
        self.work.decode_flops += self.role.size.written(first, len(piece.ids))
        return piece

    def log_probabilities(self, count: int) -> Tensor:
        """Return the log-probability of each of the last `count` tokens, (count,), nats; one forward."""
        self.counted = min(self.counted, len(self.ids) - count - 1)
        self._count_read(len(self.ids), scored=count)
        return self._once(("score", count), lambda: self._scores(count))

    @torch.no_grad()
    def next_probabilities(self) -> Tensor:
        """Return the probability of every word as the next token, (words,)."""
        self.counted = min(self.counted, len(self.ids) - 1)
        self._count_read(len(self.ids), scored=1)
        self._crop(len(self.ids) - 1)
        started = time.perf_counter()
        probabilities = torch.softmax(self._logits(1)[-1].float(), -1)
        self.seconds += time.perf_counter() - started
        return probabilities

    def _once(self, what: tuple[str, int], do: Callable[[], Any]) -> Any:
        """Return what was done before after the same tokens, or do it now; the seconds are those of doing it."""
        key = (what, tuple(self.ids))
        if key not in self.role.memory:
            started = time.perf_counter()
            value = do()
            if len(self.role.memory) >= MOST_REMEMBERED:
                self.role.memory.clear()
            self.role.memory[key] = (value, time.perf_counter() - started)
        value, seconds = self.role.memory[key]
        self.seconds += seconds
        return value

    @torch.no_grad()
    def _written(self, most: int) -> Piece:
        before, first, end = self.text(), len(self.ids), "cap"
        self._crop(first - 1)
        for _ in range(most):
            token = int(self._logits(1)[-1].argmax())
            self.ids = [*self.ids, token]
            if token in self.role.ends or self.role.step_end(self.ids[first:]):
                end = "end" if token in self.role.ends else "step"
                break
        written, after = self.ids[first:], self.text()
        return Piece(written, after[len(before) :] if after.startswith(before) else self.text(written), end)

    @torch.no_grad()
    def _scores(self, count: int) -> Tensor:
        self._crop(len(self.ids) - count - 1)
        scores = torch.log_softmax(self._logits(count + 1)[:-1].float(), -1)
        return scores.gather(1, torch.tensor(self.ids[-count:], device=scores.device).unsqueeze(1)).squeeze(1)

    def _logits(self, count: int) -> Tensor:
        """Read all that is new in one forward, and return the logits of the last `count` tokens, (count, words)."""
        model, gates, sums = self.role.model.base.model, self.role.model.adapters.gates, WrittenSoFar()
        device = next(model.parameters()).device
        sums.sums = self._sums[self.read]
        options: dict[str, Any] = {self.role.cache_name: self._cache, "use_cache": True}
        options["attention_mask"] = torch.ones(1, len(self.ids), dtype=torch.long, device=device)
        if self.role.keeps_logits:
            options["logits_to_keep"] = count
        with ExitStack() as stack:
            stack.enter_context(self.role.model.autocast())
            stack.enter_context(nullcontext() if gates is None else gates.writing(sums))
            output: Any = model(input_ids=torch.tensor([self.ids[self.read :]], device=device), **options)
        self.read = len(self.ids)
        self._sums[self.read] = sums.sums
        return output.logits[0, -count:]

    def _crop(self, length: int) -> None:
        """Let the cache hold at most the first `length` tokens, and a prefix at which the gates' sums are known."""
        length = max(place for place in self._sums if place <= length)
        if self.read > length:
            if length:
                self._cache.crop(length - self.read)  # negative: how many are removed
            else:
                self._cache = DynamicCache()
            self.read = length
        self._sums = {place: sums for place, sums in self._sums.items() if place <= length}

    def _count_read(self, length: int, scored: int = 0) -> None:
        """Count the tokens up to `length` that are not read yet, and those that the head is read off."""
        count = max(0, length - self.counted)
        self.work.prefilled += count
        self.work.prefill_flops += self.role.size.read(self.counted, count) + 2 * self.role.size.head * scored
        self.counted = max(self.counted, length)
