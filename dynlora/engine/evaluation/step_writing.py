"""A text that is written a token at a time, with pauses: in them the model may answer others or write other texts.

It writes what `generate.write` writes of the same prompt: the same tokens, chosen by the same rule, with the same seed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from dynlora.engine.evaluation.generate import Limits, end_tokens
from dynlora.engine.model.gates import Gates
from dynlora.engine.model.token_sums import WrittenSoFar

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
