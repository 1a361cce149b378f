"""Texts to be written as tokens: which tokens a row has, and which of them count in the loss.

What counts is decided by position, never by a token's id: where the padding token is the end token, a mask by id would
hide the end of every text, and the model would never learn to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dynlora.assets.template_trial import MOST_BYTES, MOST_CHARACTERS, MOST_SECONDS, is_bounded
from dynlora.data_files.columns import Turn
from dynlora.errors import DataError, first_line


class TextRows(Protocol):
    """Rows of one side of the data, as `engine/data/text_data.py` has them."""

    @property
    def text(self) -> list[str]:
        """First texts, or what is before a completion."""
        ...

    @property
    def text_pair(self) -> list[str] | None:
        """Second texts, or completions."""
        ...

    @property
    def fields(self) -> Mapping[str, list[Any]]:
        """What else a task needs of each row, by name."""
        ...


@dataclass(frozen=True)
class EncodedRows:
    """Rows as tokens.

    Attributes:
        features: per row, what the model takes: input_ids, attention_mask and maybe token_type_ids.
        targets: per row, the label of each token; None for a task with one label a row.
        counts: how many labels of each row count in the loss, (n,); None for one a row.
        notes: what a person should know, in sentences.
    """

    features: list[dict[str, list[int]]]
    targets: list[list[int]] | None = None
    counts: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """What a model continues.

    Attributes:
        ids: its tokens.
        text: for reading.
        expected: what the data has after it.
    """

    ids: list[int]
    text: str
    expected: str


IGNORED = -100
"""Written in the place of a token that does not count; PyTorch's own."""

GENERATION_MARK = "{% generation"
"""What a chat template marks the assistant's turns with, with or without a dash."""


@dataclass(frozen=True)
class TokenRow:
    """One row.

    Attributes:
        ids: its tokens.
        counts: whether each of them counts in the loss.
        is_seamless: the tokens of the prompt alone are those the row begins with.
    """

    ids: list[int]
    counts: list[bool]
    is_seamless: bool = True

    def cut(self, length: int) -> TokenRow:
        """Return the row's first tokens."""
        return TokenRow(self.ids[:length], self.counts[:length], self.is_seamless)


def encode_texts(tokenizer: Any, rows: TextRows, max_length: int, loss_on: str) -> EncodedRows:
    """Return rows as tokens with the labels of each position, cut after `max_length`.

    The first token of a row has no label: nothing is before it that could predict it.

    Raises:
        DataError: when the tokenizer has no chat template or no end token, or no row has a token that counts.
    """
    encode = encoder(tokenizer, rows, loss_on)
    whole = [encode(index) for index in range(len(rows.text))]
    limit = min(max_length, tokenizer.model_max_length)
    cut_rows = [row.cut(limit) for row in whole]
    targets = [_targets(row) for row in cut_rows]
    counts = np.array([sum(target != IGNORED for target in row) for row in targets], dtype=np.int64)
    features = [{"input_ids": row.ids, "attention_mask": [1] * len(row.ids)} for row in cut_rows]
    lost = sum(not count and any(row.counts[1:]) for count, row in zip(counts, whole, strict=True))
    if len(rows.text) and not counts.any():
        raise DataError(_nothing_counts(lost, limit, loss_on))
    return EncodedRows(features, targets, counts, tuple(_notes(whole, lost, limit)))


def encoder(tokenizer: Any, rows: TextRows, loss_on: str) -> Callable[[int], TokenRow]:
    """Return what makes the tokens of row i.

    Raises:
        DataError: when the rows need something that the tokenizer lacks.
    """
    messages = rows.fields.get("messages")
    if messages is not None:
        check_template(tokenizer, loss_on)
        return lambda index: conversation_row(tokenizer, messages[index], loss_on)
    if loss_on == "assistant":
        raise DataError(
            "data.loss_on=assistant: the data has no conversations; use completion or all, or data.messages"
        )
    pair = rows.text_pair
    if pair is None:
        return lambda index: text_row(tokenizer, rows.text[index])
    return lambda index: completion_row(tokenizer, rows.text[index], pair[index], loss_on)


def text_row(tokenizer: Any, text: str) -> TokenRow:
    """Return a text and its end; every token counts."""
    ids = begun(tokenizer, text)
    ids = ids if ids and ids[-1] == end_token(tokenizer) else [*ids, end_token(tokenizer)]
    return TokenRow(ids, [True] * len(ids))


def completion_row(tokenizer: Any, prompt: str, completion: str, loss_on: str) -> TokenRow:
    """Return a prompt, its completion and the end; the completion and the end count.

    The two are tokenised apart where their tokens would merge at the seam: at generation the prompt is alone.
    """
    first = begun(tokenizer, prompt)
    ids = begun(tokenizer, prompt + completion)
    is_seamless = ids[: len(first)] == first
    if not is_seamless:
        ids = first + tokenizer(completion, add_special_tokens=False)["input_ids"]
    ids = [*ids, end_token(tokenizer)]
    return TokenRow(ids, [loss_on == "all" or index >= len(first) for index in range(len(ids))], is_seamless)


def conversation_row(tokenizer: Any, turns: Sequence[Turn], loss_on: str) -> TokenRow:
    """Return a conversation through the tokenizer's own chat template, up to the end token of its last turn."""
    if loss_on == "assistant":
        encoded = by_template(tokenizer, turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        ids, counts = list(encoded["input_ids"]), [bool(one) for one in encoded["assistant_masks"]]
        return _to_the_end(tokenizer, TokenRow(ids, counts))
    ids = templated(tokenizer, turns)
    if loss_on == "all" or turns[-1]["role"] != "assistant":
        return _to_the_end(tokenizer, TokenRow(ids, [loss_on == "all"] * len(ids)))
    prompt = templated(tokenizer, turns[:-1], add_generation_prompt=True)
    is_seamless = ids[: len(prompt)] == prompt
    if not is_seamless:
        answer = tokenizer(turns[-1]["content"], add_special_tokens=False)["input_ids"]
        ids = [*prompt, *answer, end_token(tokenizer)]
    row = TokenRow(ids, [index >= len(prompt) for index in range(len(ids))], is_seamless)
    return _to_the_end(tokenizer, row)


BEGINNING = 8
"""Tokens of a text without a prompt that a model is given to continue; fewer where the text is short."""


def prompt_of(tokenizer: Any, rows: TextRows, index: int, *, is_whole: bool) -> Prompt:
    """Return what a model continues: all before the last answer, the prompt, or the beginning of a text.

    Args:
        tokenizer: of the model.
        rows: the row is one of them.
        index: of the row.
        is_whole: the text is continued at its end, also where the data has nothing after it.
    """
    messages, pair, text = rows.fields.get("messages"), rows.text_pair, rows.text[index]
    if messages is not None:
        turns = messages[index]
        before = turns[:-1] if turns[-1]["role"] == "assistant" else turns
        return Prompt(templated(tokenizer, before, add_generation_prompt=True), text, pair[index] if pair else "")
    ids = begun(tokenizer, text)
    if pair is not None or is_whole:
        return Prompt(ids, text, pair[index] if pair is not None else "")
    beginning = ids[: max(1, min(BEGINNING, len(ids) // 2))]
    beginning_text = tokenizer.decode(beginning, skip_special_tokens=True)
    return Prompt(beginning, beginning_text, tokenizer.decode(ids[len(beginning) :], skip_special_tokens=True))


def begun(tokenizer: Any, text: str) -> list[int]:
    """Return a text's tokens with what the tokenizer puts before it, and not what it puts after it."""
    bare = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer(text)["input_ids"]
    extra = len(whole) - len(bare)
    return next((whole[: start + len(bare)] for start in range(extra + 1) if whole[start:][: len(bare)] == bare), bare)


def templated(tokenizer: Any, turns: Sequence[Turn], *, add_generation_prompt: bool = False) -> list[int]:
    """Return the tokens of a conversation by the tokenizer's own chat template."""
    text = by_template(tokenizer, turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def by_template(tokenizer: Any, turns: Sequence[Mapping[str, str]], **options: Any) -> Any:
    """Return what the tokenizer's own chat template makes of a conversation, which is code of others.

    Raises:
        DataError: when the template fails, or its text has no bound.
    """
    try:
        if is_bounded(tokenizer.get_chat_template()):
            return tokenizer.apply_chat_template(list(turns), **options)
        problem = f"needs more than {MOST_CHARACTERS:,} characters, {MOST_BYTES // 2**30} GiB or {MOST_SECONDS} s"
        raise DataError(f"{_TEMPLATE} {problem} for two short messages; use another model")
    except DataError:
        raise
    except Exception as error:  # the template's own, such as for roles that it does not take
        reason = f"{_TEMPLATE} cannot write a conversation down ({first_line(error)})"
        raise DataError(f"{reason}; correct the template, or the messages where it names them") from error


_TEMPLATE = "model.name: the chat template of its tokenizer"


def check_template(tokenizer: Any, loss_on: str) -> None:
    """Refuse a tokenizer that cannot write down conversations.

    Raises:
        DataError: naming what is missing and what to do instead.
    """
    template = tokenizer.chat_template
    if not template:
        raise DataError(
            "data.messages: the tokenizer of model.name has no chat template; use an instruction-tuned model, or "
            "data.prompt and data.completion"
        )
    marked = GENERATION_MARK in str(template).replace("{%-", "{%")
    if loss_on == "assistant" and not marked:
        raise DataError(
            "data.loss_on=assistant: the chat template of model.name does not mark the assistant's turns "
            "({% generation %}); use data.loss_on=completion, which learns the last turn"
        )


def end_token(tokenizer: Any) -> int:
    """Return the token that ends a text.

    Raises:
        DataError: when the tokenizer has none.
    """
    if tokenizer.eos_token_id is None:
        raise DataError("model.name: its tokenizer has no end token (eos_token); set one and save it again")
    return tokenizer.eos_token_id


def _to_the_end(tokenizer: Any, row: TokenRow) -> TokenRow:
    """Return a row that ends with the end token: what a template writes after it is left out, or it is put there."""
    end = end_token(tokenizer)
    last = next((index for index in range(len(row.ids) - 1, -1, -1) if row.ids[index] == end), None)
    if last is not None and len(row.ids) - last <= MOST_AFTER_END:
        counts = [*row.counts[:last], row.counts[last] or (last > 0 and row.counts[last - 1])]
        return TokenRow(row.ids[: last + 1], counts, row.is_seamless)
    return TokenRow([*row.ids, end], [*row.counts, bool(row.counts and row.counts[-1])], row.is_seamless)


MOST_AFTER_END = 4
"""Tokens that a template may write after the end of the last turn, such as a line break."""


def _targets(row: TokenRow) -> list[int]:
    """Return the labels of a row: its tokens where they count, `IGNORED` elsewhere and at the first."""
    marked = [token if counts else IGNORED for token, counts in zip(row.ids, row.counts, strict=True)]
    return [IGNORED, *marked[1:]] if marked else []


def _nothing_counts(lost: int, limit: int, loss_on: str) -> str:
    """Return the sentence for rows of which no token counts."""
    if lost:
        return (
            f"data.max_length={limit}: all completions are cut off, because the prompts alone are that long; raise "
            "data.max_length"
        )
    return f"data.loss_on={loss_on}: no row has a token that counts; use data.loss_on=all, or add completions"


def _notes(rows: Sequence[TokenRow], lost: int, limit: int) -> list[str]:
    """Return what a person should know about rows that became tokens."""
    notes = []
    seams = sum(not row.is_seamless for row in rows)
    if lost:
        notes.append(
            f"{lost:,} of {len(rows):,} examples lose their whole completion at data.max_length={limit} and are left "
            "out; raise data.max_length."
        )
    if seams:
        notes.append(
            f"In {seams:,} of {len(rows):,} examples tokens of prompt and completion would merge; they are tokenised "
            "apart, as at generation."
        )
    return notes
