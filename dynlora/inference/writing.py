"""A run that learned to write, under examination: what it can be asked, texts as they are written, token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dynlora.data_files.columns import conversation
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.generate import LONGEST, Limits, write_steps
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.evaluation.token_scores import Scored, ablated, estimated, row_losses, scored
from dynlora.engine.evaluation.written import token_texts
from dynlora.errors import ConfigError
from dynlora.inference.session import MAX_CHARACTERS, PLACES, Examined, check_strength, plain
from dynlora.tasks import WritingTask
from dynlora.tasks.token_rows import begun, templated

MODES = ("adapter", "base")
"""Who may be asked: the model with its adapter, or the model without."""

MOST_NEW = 2048
"""Tokens that a text may be asked to have."""

MOST_TEMPERATURE = 5.0
MOST_ROWS = 256
"""Held-out rows whose tokens are looked at in one question."""


def about(examined: Examined) -> dict[str, Any]:
    """Return what can be asked of a run that writes.

    `chat`: its tokenizer has a chat template; `learned_chat`: it learned from conversations; `step`: optimizer steps
    behind the adapter; `place`: where it was found (adapter, checkpoint, adapter-best); `total`: tokens of a prompt
    and its text together; `new`: tokens a text has usually.

    Raises:
        ConfigError: when the run's model writes no texts.
    """
    model, task = examined.model, _writer(examined)
    place = next((name for name in PLACES[examined.which] if (examined.folder / name).is_dir()), "")
    return {
        "chat": bool(model.base.tokenizer.chat_template),
        "learned_chat": task.settings().get("reads") == "messages",
        "step": model.step,
        "place": place,
        "total": total_tokens(model),
        "new": model.new_tokens,
    }


def total_tokens(model: AdaptedModel) -> int:
    """Return how many tokens a prompt and its text may have together."""
    positions = getattr(model.base.model.config, "max_position_embeddings", None)
    known = [LONGEST, model.base.tokenizer.model_max_length, *([positions] if isinstance(positions, int) else [])]
    return min(known)


@dataclass(frozen=True)
class Prompt:
    """What a model is to continue.

    Attributes:
        text: that is continued as it is; None for a conversation.
        turns: of a conversation, {role, content} each, the last one a user's; None for a text.
    """

    text: str | None = None
    turns: Sequence[Mapping[str, str]] | None = None

    def ids(self, model: AdaptedModel) -> list[int]:
        """Return the tokens of the prompt.

        Raises:
            ConfigError: when it cannot be used: empty, too long, or a conversation without a chat template.
        """
        tokenizer = model.base.tokenizer
        if self.turns is None:
            _check_text(self.text or "")
            ids = begun(tokenizer, self.text or "")
        else:
            turns = _turns(self.turns)
            if not tokenizer.chat_template:
                raise ConfigError("chat: the tokenizer of this run has no chat template; choose Completion")
            ids = templated(tokenizer, turns, add_generation_prompt=True)
        total = total_tokens(model)
        if not 0 < len(ids) < total:
            raise ConfigError(
                f"prompt: has {len(ids):,} tokens, and the model reads at most {total:,} with what it writes; "
                "shorten it, or clear the conversation"
            )
        return ids


def written(
    examined: Examined,
    mode: str,
    *,
    temperature: float,
    seed: int,
    new_tokens: int,
    strength: float = 1.0,
    **prompt: Any,
) -> tuple[Iterator[dict[str, Any]], int]:
    """Return what yields one message for each token that is written after a `Prompt`, and how many there are at most.

    Each has `id` and `text`, what the token adds to the text for reading ("" while a letter is not yet whole), and the
    last one `end`, "token" where the model ended the text, which that token is, or "limit", and `whole`, the text. The
    adapter is multiplied by `strength`.

    Raises:
        ConfigError: when a value is not allowed, or the prompt cannot be used.
    """
    _writer(examined)
    if not 0 <= temperature <= MOST_TEMPERATURE:
        raise ConfigError(f"temperature={temperature}: must be from 0 (greedy) to {MOST_TEMPERATURE:g}")
    if not 1 <= new_tokens <= MOST_NEW:
        raise ConfigError(f"new tokens={new_tokens}: must be from 1 to {MOST_NEW:,}")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed={seed}: must be from 0 to {2**63 - 1}")
    model = examined.model
    ids = Prompt(**prompt).ids(model)
    limits = Limits(new_tokens, total_tokens(model), temperature, seed)
    return _messages(model, ids, limits, _state(model, mode, strength)), new_tokens


def token_view(examined: Examined, ids: Sequence[int], strength: float = 1.0, **prompt: Any) -> dict[str, Any]:
    """Return the tokens of a text after its prompt, with what adapter, times `strength`, and base make of each.

    `tokens`: one row each with text, adapter and base (log-probabilities, nats) and for each of the two the most
    probable tokens, `adapter_top` and `base_top`, as [text, probability].

    Raises:
        ConfigError: when the prompt cannot be used, or the text is empty or too long.
    """
    model, before, ids = _asked_of(examined, Prompt(**prompt), ids)
    by = {}
    for mode in MODES:
        with _state(model, mode, strength)():
            by[mode] = scored(model, before, ids)
    texts = token_texts(model.base.tokenizer, ids)
    rows = [
        {"text": text}
        | {mode: float(one.log_probability[place]) for mode, one in by.items()}
        | {f"{mode}_top": _alternatives(model, one, place) for mode, one in by.items()}
        for place, text in enumerate(texts)
    ]
    return {"tokens": rows, "step": model.step}


def ablation(
    examined: Examined, ids: Sequence[int], strength: float = 1.0, **prompt: Any
) -> tuple[Iterator[dict[str, Any]], int]:
    """Return what yields for each module what a text loses without it, and how many modules there are.

    The adapter is multiplied by `strength`.

    Each message has `module`, its position; `adds`, log p(text) less what it is without the module, nats; `changes`,
    whether greedy decoding would write another text without it.

    Raises:
        ConfigError: as `token_view` does.
    """
    model, before, ids = _asked_of(examined, Prompt(**prompt), ids)
    return _measured(model, before, ids, _state(model, "adapter", strength)), len(model.adapters)


def _measured(
    model: AdaptedModel, prompt: Sequence[int], ids: Sequence[int], state: Callable[[], AbstractContextManager[Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the messages of `ablation`, the modules with the largest estimates first.

    The model is in `state` while a module is measured, and as it was between two of them: others ask it meanwhile.
    """
    with state():
        order = np.argsort(-np.abs(estimated(model, prompt, ids)), kind="stable").tolist()
    steps = ablated(model, prompt, ids, order)
    while True:
        with state():
            step = next(steps, None)
        if step is None:
            return
        index, adds, changes = step
        yield {"module": index, "adds": adds, "changes": changes}


def estimate(examined: Examined, ids: Sequence[int], strength: float = 1.0, **prompt: Any) -> dict[str, Any]:
    """Return to first order what each module adds to a text: `adds`, nats, by position; see `estimated`.

    The adapter is multiplied by `strength`.

    Raises:
        ConfigError: as `token_view` does.
    """
    model, before, ids = _asked_of(examined, Prompt(**prompt), ids)
    with _state(model, "adapter", strength)():
        return {"adds": plain(estimated(model, before, ids))}


def token_losses(
    examined: Examined, texts: Sequence[str], pairs: Sequence[str | None]
) -> tuple[Iterator[dict[str, Any]], int]:
    """Return what yields the messages of `held_out_losses`, and how many.

    Raises:
        ConfigError: when these are no examples, or too many.
    """
    if not 0 < len(texts) == len(pairs) <= MOST_ROWS:
        raise ConfigError(f"examples: {len(texts):,} given; give 1 to {MOST_ROWS}, each with its pair")
    return held_out_losses(examined, texts, pairs), len(texts)


def example_losses(examined: Examined, text: str, pair: str | None) -> dict[str, Any]:
    """Return the message of `held_out_losses` for one example.

    Raises:
        ConfigError: as `held_out_losses` does.
    """
    return next(held_out_losses(examined, [text], [pair]))


def held_out_losses(examined: Examined, texts: Sequence[str], pairs: Sequence[str | None]) -> Iterator[dict[str, Any]]:
    """Yield for each held-out example, named by its texts, the loss of its tokens with the adapter and without.

    Each message has `tokens`, the text of each; `adapter` and `base`, nats, None where a token does not count; `step`,
    optimizer steps behind the adapter.

    Raises:
        ConfigError: when an example is not among the held-out rows of the run's data.
    """
    _writer(examined)
    model, held_out = examined.model, examined.data.held_out
    others = held_out.text_pair or [None] * len(held_out)
    places = {key: row for row, key in reversed(list(enumerate(zip(held_out.text, others, strict=True))))}
    for text, pair in zip(texts, pairs, strict=True):
        row = places.get((text, pair))
        if row is None:
            raise ConfigError(
                "example: it is not among the held-out examples of the run's data; the data file has changed"
            )
        yield _losses_of(model, held_out.take(np.array([row])))


def _losses_of(model: AdaptedModel, row: Rows) -> dict[str, Any]:
    by = {}
    ids: list[int] = []
    for mode in MODES:
        with _state(model, mode)():
            ((ids, by[mode]),) = row_losses(model, row)
    losses = {mode: plain(values) for mode, values in by.items()}
    return {"tokens": token_texts(model.base.tokenizer, ids), "step": model.step, **losses}


def _alternatives(model: AdaptedModel, scores: Scored, place: int) -> list[list[Any]]:
    texts = token_texts(model.base.tokenizer, [int(token) for token in scores.top[place]])
    return [[text, float(value)] for text, value in zip(texts, scores.top_probability[place], strict=True)]


def _messages(
    model: AdaptedModel, prompt: Sequence[int], limits: Limits, state: Callable[[], AbstractContextManager[Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the messages of `written`."""
    tokenizer, ids, sent = model.base.tokenizer, list[int](), ""
    most = max(1, min(limits.new_tokens, limits.total_tokens - len(prompt)))
    for token in write_steps(model.base.model, tokenizer, prompt, limits, model.adapters.gates, state):
        ids += [] if token.is_end else [token.id]
        is_last = token.is_end or len(ids) == most
        text = str(tokenizer.decode(ids, skip_special_tokens=True))
        whole = text if is_last else text.rstrip("�")  # a letter of several tokens waits for its last one
        piece = whole[len(sent) :] if whole.startswith(sent) else ""
        sent += piece
        message: dict[str, Any] = {"id": token.id, "text": piece}
        yield message | ({"end": "token" if token.is_end else "limit", "whole": text} if is_last else {})


def _state(model: AdaptedModel, mode: str, strength: float = 1.0) -> Callable[[], AbstractContextManager[Any]]:
    """Return what puts the model into the state of who is asked.

    Raises:
        ConfigError: when there is no such mode, or the strength is out of range.
    """
    if mode not in MODES:
        raise ConfigError(f"mode={mode}: must be {' or '.join(MODES)}")
    check_strength(strength)
    return model.adapters.disabled if mode == "base" else partial(model.adapters.scaled, strength)


def _writer(examined: Examined) -> WritingTask:
    """Return the task of a run that writes.

    Raises:
        ConfigError: when it does not.
    """
    task = examined.model.task
    if not isinstance(task, WritingTask):
        raise ConfigError(f"data.task={task.name}: this run's model writes no texts; ask for a prediction instead")
    return task


def _check_text(text: str) -> None:
    if not text or len(text) > MAX_CHARACTERS:
        raise ConfigError(f"prompt: has {len(text):,} characters; give 1 to {MAX_CHARACTERS:,}")


def _turns(turns: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    try:
        messages = conversation([dict(turn) for turn in turns])
    except ValueError as error:
        raise ConfigError(f"chat: the conversation {error}; give messages with role and content") from None
    for turn in messages:
        _check_text(turn["content"] or " ")
    return messages


def _asked_of(examined: Examined, prompt: Prompt, ids: Sequence[int]) -> tuple[AdaptedModel, list[int], list[int]]:
    """Return the model of a run that writes, and the tokens of a prompt and of the text after it."""
    _writer(examined)
    model = examined.model
    words = int(model.base.model.get_input_embeddings().weight.shape[0])  # pyright: ignore
    if not 0 < len(ids) <= MOST_NEW or not all(isinstance(one, int) and 0 <= one < words for one in ids):
        raise ConfigError(f"text: has {len(ids):,} tokens; give 1 to {MOST_NEW:,} of the {words:,} the model knows")
    return model, prompt.ids(model), list(ids)
