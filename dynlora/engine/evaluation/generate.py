"""Texts that a model writes: token by token, from prompts that are tokens already."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from dynlora.engine.model.base_model import learned_positions
from dynlora.engine.model.gates import Gates
from dynlora.engine.model.gradient_sketch import WrittenSoFar

TOGETHER = 32
"""Most prompts that are continued at once: a decoding step reads all weights, for one text or for many."""

TOKENS_TOGETHER = 8192
"""Most tokens, of prompts and new ones, that are kept at once: with 7 billion parameters in bf16 they take 4 GiB."""

LONGEST = 8192
"""Tokens of a prompt and what is written after it, whatever the model could hold."""


@dataclass(frozen=True)
class Limits:
    """How long texts may become, and how their tokens are chosen.

    Attributes:
        new_tokens: at most so many tokens are written.
        total_tokens: prompt and written tokens together.
        temperature: 0 takes the most probable token, else tokens are drawn from softmax(logits / temperature).
        seed: of what is drawn; every batch of texts has one of its own, made of it.
    """

    new_tokens: int
    total_tokens: int
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Written:
    """What a model wrote after a prompt.

    Attributes:
        ids: tokens, the end token left out.
        ended: whether the model wrote the end token; else it was cut off.
    """

    ids: list[int]
    ended: bool


OnToken = Callable[[int, int], None]
"""Called after each decoding step with the texts that have ended, and the tokens written after the others."""


@torch.no_grad()
def write(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    limits: Limits,
    gates: Gates | None = None,
    on_token: OnToken = lambda ended, tokens: None,
) -> list[Written]:
    """Return what a model writes after each prompt, in their order.

    Prompts are padded on the left, so that every text is continued at its own end; a batch (`batch_size`) stops when
    its last text has ended. The settings are given whole: those that a checkpoint brings along, such as sampling, do
    not count. In bf16 a text may depend on the others of its batch, by rounding; one prompt given alone does not.

    Args:
        model: adapted or not; it is put into eval mode and back.
        tokenizer: knows the end and the padding token.
        prompts: tokens of each prompt.
        limits: how long, and how tokens are chosen.
        gates: of the adapted model; they see what was written so far.
        on_token: called after each decoding step.
    """
    training = model.training
    model.eval()
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    by_prompt: dict[int, Written] = {}
    together = batch_size(model, prompts, limits)
    try:
        with _own_settings(model):
            for start in range(0, len(order), together):
                places = order[start : start + together]
                own = replace(limits, seed=limits.seed + start)  # else every batch would draw the same

                def report(ended: int, tokens: int, before: int = start) -> None:
                    on_token(before + ended, tokens)

                written = _continued(model, tokenizer, [prompts[index] for index in places], own, gates, report)
                by_prompt |= dict(zip(places, written, strict=True))
    finally:
        model.train(training)
    return [by_prompt[index] for index in range(len(prompts))]


def batch_size(model: PreTrainedModel, prompts: Sequence[Sequence[int]], limits: Limits) -> int:
    """Return how many prompts are continued at once: as many as memory allows, one where padding moves a text."""
    if not _can_pad_left(model):
        return 1
    width = max(map(len, prompts), default=1)
    return max(1, min(TOGETHER, TOKENS_TOGETHER // (width + _new_tokens(width, limits))))


def _new_tokens(width: int, limits: Limits) -> int:
    """Return how many tokens at most are written after prompts of `width` tokens."""
    return max(1, min(limits.new_tokens, limits.total_tokens - width))


def _can_pad_left(model: PreTrainedModel) -> bool:
    """Say whether padding before a text leaves its positions as they are: not where learned ones are simply counted."""
    return "position_ids" in inspect.signature(model.forward).parameters or learned_positions(model) is None


def end_tokens(model: PreTrainedModel, tokenizer: Any) -> list[int]:
    """Return the tokens that end a text: the tokenizer's, and those that the checkpoint names."""
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    more = named if isinstance(named, list) else [named]
    return list(dict.fromkeys(token for token in [tokenizer.eos_token_id, *more] if isinstance(token, int)))


@contextmanager
def _own_settings(model: PreTrainedModel) -> Iterator[None]:
    """Leave the settings of generation that the checkpoint brought out of it inside the block, its end tokens aside."""
    before = model.generation_config
    ends = before.eos_token_id if before is not None else None
    model.generation_config = GenerationConfig(eos_token_id=ends)
    try:
        yield
    finally:
        model.generation_config = before


class _Report(StoppingCriteria):
    """Says how far a batch is after each decoding step, and never stops it."""

    def __init__(self, ids: Tensor, ends: Sequence[int], on_token: OnToken) -> None:
        """Report on texts after the prompts `ids`, (n, longest), that end with one of `ends`."""
        self.width, self.on_token = ids.shape[1], on_token
        self.ends = torch.tensor(ends, dtype=ids.dtype, device=ids.device)
        self.ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # pyright: ignore
        """Report on prompts and texts, (n, tokens), and return that none is to stop, (n,)."""
        self.ended |= torch.isin(input_ids[:, -1], self.ends)
        self.on_token(int(self.ended.sum()), input_ids.shape[1] - self.width)
        return torch.zeros_like(self.ended)


def _continued(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    limits: Limits,
    gates: Gates | None,
    on_token: OnToken,
) -> list[Written]:
    """Continue a few prompts at once."""
    ids, mask = _padded_left(prompts, tokenizer.pad_token_id, model.device)
    ends = end_tokens(model, tokenizer)
    config = GenerationConfig(
        max_new_tokens=_new_tokens(ids.shape[1], limits),
        do_sample=limits.temperature > 0,
        num_beams=1,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        **({"temperature": limits.temperature, "top_k": 0, "top_p": 1.0} if limits.temperature > 0 else {}),
    )
    with gates.writing() if gates is not None else nullcontext(), _seeded(limits):
        report = StoppingCriteriaList([_Report(ids, ends, on_token)])
        output: Any = model.generate(  # pyright: ignore
            inputs=ids, attention_mask=mask, generation_config=config, stopping_criteria=report
        )
    return [_until_end(row[ids.shape[1] :].tolist(), ends) for row in output]


def _padded_left(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return prompts filled up on the left, and their masks, (n, longest)."""
    width = max(map(len, prompts))
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


@contextmanager
def _seeded(limits: Limits) -> Iterator[None]:
    """Draw from a stream of its own inside the block, so that training's is not touched."""
    if limits.temperature <= 0:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(limits.seed)
        yield


def _until_end(ids: list[int], ends: Sequence[int]) -> Written:
    """Return tokens up to the first end token."""
    index = next((index for index, token in enumerate(ids) if token in ends), None)
    return Written(ids[:index], index is not None) if index is not None else Written(ids, ended=False)


CACHE_NAMES = ("cache", "past_key_values")
"""What models call the keys and values of earlier tokens: the new name first, and the older one."""


@dataclass(frozen=True)
class Token:
    """A token that was chosen.

    Attributes:
        id: of the vocabulary.
        is_end: whether it ends the text.
    """

    id: int
    is_end: bool


def write_steps(
    model: PreTrainedModel,
    tokenizer: Any,
    prompt: Sequence[int],
    limits: Limits,
    gates: Gates | None = None,
    state: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[Token]:
    """Yield the tokens that a model writes after a prompt, one forward each, at most `limits.new_tokens` of them.

    Args:
        model: adapted or not, in eval mode.
        tokenizer: knows the end token.
        prompt: its tokens, at least one.
        limits: how long, and how tokens are chosen.
        gates: of the adapted model; they see what was written so far.
        state: makes the context each forward runs in, such as adapters that are off; left in the pauses.
    """
    ends = set(end_tokens(model, tokenizer))
    name = cache_name(model)
    cache, text = DynamicCache(config=model.config), WrittenSoFar()
    draw = torch.Generator(model.device).manual_seed(limits.seed)
    seen = torch.tensor([list(prompt)], device=model.device)
    read = 0
    for _ in range(max(1, min(limits.new_tokens, limits.total_tokens - len(prompt)))):
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(state())
            stack.enter_context(nullcontext() if gates is None else gates.writing(text))
            options = {name: cache, "attention_mask": torch.ones_like(seen), "use_cache": True}
            output: Any = model(input_ids=seen[:, read:], **options)
            chosen = _chosen(output.logits[:, -1], limits.temperature, draw)
        read = seen.shape[1]
        seen = torch.cat([seen, chosen], 1)
        token = Token(int(chosen), int(chosen) in ends)
        yield token
        if token.is_end:
            return


def cache_name(model: PreTrainedModel) -> str:
    """Return the argument that takes the keys and values of earlier tokens.

    Raises:
        ValueError: when the model keeps none.
    """
    known = inspect.signature(model.forward).parameters
    argument = next((name for name in CACHE_NAMES if name in known), None)
    if argument is None:
        raise ValueError(f"{type(model).__name__} keeps no keys and values, so it cannot write token by token")
    return argument


def _chosen(logits: Tensor, temperature: float, draw: torch.Generator) -> Tensor:
    """Return the next token, (1, 1), of logits (1, words): the most probable, or one drawn of softmax(logits / T)."""
    logits = logits.float()
    if temperature <= 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=draw)
