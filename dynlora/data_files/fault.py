"""What a fault of data is, and the faults of data for language models: one list for each kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynlora.data_files import finders
from dynlora.data_files.examples import Examples
from dynlora.data_files.repairs import LIKE


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        kind: its name.
        title: two or three words.
        rows: positions of its rows; empty for a fault of the whole table.
        sentence: file, lines, rule and remedy.
        repair: what removes it, as a configuration holds it; None where only a person can.
        action: the repair in words, for a button.
        refuses: training refuses the data because of it.
    """

    kind: str
    title: str
    rows: np.ndarray
    sentence: str
    repair: Any = None
    action: str = ""
    refuses: bool = field(default=False)


@dataclass(frozen=True)
class Drop:
    """A fault of single rows that a repair of `finders.DROPPED_BY` leaves out.

    Attributes:
        kind, title: as of the fault.
        repair: its name.
        problem: what is wrong, `{text}` and `{label}` for the columns.
        remedy: what to do by hand.
        refuses: training refuses such rows.
        of_classes: looked for only where labels are classes.
        finds: the rows that are shown, where they are not all that the repair leaves out.
    """

    kind: str
    title: str
    repair: str
    problem: str
    remedy: str
    refuses: bool = False
    of_classes: bool = False
    finds: Callable[[Examples], np.ndarray] | None = None


_ITS = LIKE.replace("their", "its")


def _repeats(what: str) -> tuple[Drop, ...]:
    """Return faults of rows that an earlier row says already; `what` is repeated."""
    differs = f"{what} differ from an earlier row only by case, punctuation or spaces"
    return (
        Drop("duplicate", "Duplicates", "drop_duplicates", f"{what} repeat an earlier row", "keep one of them"),
        Drop("near_duplicate", "Near-duplicates", "drop_near_duplicates", differs, "keep one of them"),
        Drop(
            "similar", "Similar texts", "drop_similar", f"the row shares {_ITS} with an earlier one", "keep one of them"
        ),
    )


_COMPLETIONS = (
    Drop(
        "empty_prompt",
        "Empty prompt",
        "drop_empty_texts",
        "the prompt is empty (data.prompt={text})",
        "fill it",
        True,
        finds=finders.empty_prompts,
    ),
    Drop(
        "empty_completion",
        "Empty completion",
        "drop_empty_texts",
        "the completion is empty (data.completion={pair})",
        "fill it",
        True,
        finds=finders.empty_pairs,
    ),
    *_repeats("prompt and completion"),
)
_CONVERSATIONS = (
    Drop(
        "no_conversation",
        "No conversation",
        "drop_empty_texts",
        "the cell is not a list of messages with role and content (data.messages={text})",
        "correct it",
        True,
        finds=finders.no_conversations,
    ),
    Drop(
        "empty_prompt",
        "Empty prompt",
        "drop_empty_texts",
        "what the assistant answers is empty",
        "fill it",
        finds=finders.empty_questions,
    ),
    Drop(
        "empty_completion",
        "Empty answer",
        "drop_empty_texts",
        "the last answer of the assistant is empty",
        "fill it",
        finds=finders.empty_answers,
    ),
    Drop(
        "role_order",
        "Roles out of order",
        "drop_role_order",
        "the roles are not in the order that chat templates expect (system first, then user and assistant in turn)",
        "correct the order",
    ),
    *_repeats("the messages"),
)
_UNANSWERED = {
    "completion": Drop(
        "unanswered",
        "No answer at the end",
        "drop_unanswered",
        "the last message is not the assistant's, so no token is in the loss",
        "add the answer, or set data.loss_on=all",
    ),
    "assistant": Drop(
        "unanswered",
        "No answer",
        "drop_unanswered",
        "the assistant says nothing, so no token is in the loss",
        "add an answer, or set data.loss_on=all",
        finds=finders.without_assistant,
    ),
}
_TEXTS = (
    Drop("empty_text", "Empty text", "drop_empty_texts", "the text is empty (data.text={text})", "fill it", True),
    Drop("duplicate", "Duplicates", "drop_duplicates", "the text repeats an earlier row", "keep one of them"),
    Drop(
        "near_duplicate",
        "Near-duplicates",
        "drop_near_duplicates",
        "the text differs from an earlier row only by case, punctuation or spaces",
        "keep one of them",
    ),
    Drop("similar", "Similar texts", "drop_similar", f"the text shares {_ITS} with an earlier one", "keep one of them"),
)

LATE = (
    Drop(
        "shared_prompt",
        "Same prompt on both sides",
        "drop_shared_prompts",
        "the training prompt is in the held-out part too with another completion, so held-out results are too "
        "optimistic",
        "keep it on one side",
    ),
    Drop(
        "near_shared",
        "Nearly the same text held out",
        "drop_near_shared",
        "the training text is in the held-out part too but for case, punctuation or spaces",
        "keep it on one side",
    ),
    Drop(
        "similar_shared",
        "Similar text held out",
        "drop_similar_shared",
        f"the training text shares {_ITS} with a held-out text",
        "keep them on one side",
    ),
)
"""Faults that are looked for after the split."""


def early(rows: Examples, loss_on: str | None) -> Sequence[Drop]:
    """Return the faults that are looked for before the split.

    Args:
        rows: of texts to be written.
        loss_on: `data.loss_on`.
    """
    if rows.columns.messages is not None:
        unanswered = _UNANSWERED.get(loss_on or "completion")
        return _CONVERSATIONS if unanswered is None else (*_CONVERSATIONS, unanswered)
    return _COMPLETIONS if rows.pair else _TEXTS
