"""Held-out rows with perturbed inputs; what a model is to write after them stays as it is."""

from __future__ import annotations

from dataclasses import replace

from dynlora.engine.data.perturb import perturbed
from dynlora.engine.data.text_data import Rows
from dynlora.tasks import WritingTask


def conditioned_rows(task: WritingTask, rows: Rows) -> tuple[Rows, str]:
    """Return rows in which what is written stands apart from what it is conditioned on, and what is scored.

    That is the completion or the answer; of a text without a prompt the second half, given the first (half).
    """
    if rows.text_pair is not None or "messages" in rows.fields:
        return rows, "completion"
    halves = [task.halves(text) for text in rows.text]
    return replace(rows, text=[first for first, _ in halves], text_pair=[second for _, second in halves]), "half"


def perturbed_rows(rows: Rows, kind: str, strength: float, seed: int, *, is_written: bool) -> Rows:
    """Return rows whose inputs are perturbed; where texts are to be written, what is to be written stays.

    Raises:
        ConfigError: when kind or strength is not one.
    """
    text = perturbed(rows.text, kind, strength, seed)
    if not is_written:
        pair = None if rows.text_pair is None else perturbed(rows.text_pair, kind, strength, seed)
        return replace(rows, text=text, text_pair=pair)
    talks = rows.fields.get("messages")
    if talks is None:
        return replace(rows, text=text)
    contents = iter(perturbed([turn["content"] for talk in talks for turn in talk], kind, strength, seed))
    changed = [
        [
            {**turn, "content": new if turn["role"] == "user" else turn["content"]}
            for turn, new in zip(talk, contents, strict=False)
        ]
        for talk in talks
    ]
    return replace(rows, text=text, fields={**rows.fields, "messages": changed})
