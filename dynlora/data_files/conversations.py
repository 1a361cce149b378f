"""Conversations as data files hold them: lists of turns, each with a role and what was said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""Other names of roles, and what chat templates call them."""

Turn = dict[str, str]


def conversation(value: Any) -> list[Turn]:
    """Return a cell as turns, {role, content} each; a cell of text is read as JSON.

    Raises:
        ValueError: saying in words what the cell is instead.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("is text that is no JSON") from None
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError("is no list of messages" if value else "is empty")
    return [_turn(item) for item in value]


def _turn(item: Any) -> Turn:
    """Return one message."""
    if not isinstance(item, dict):
        raise ValueError("has a message that is no object with role and content")
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError("has a message without role and content")
    return {"role": ROLES.get(role, role), "content": content}


def asked_and_said(turns: Sequence[Turn]) -> tuple[str, str]:
    """Return a conversation for reading: all before the assistant's last answer, and that answer, empty without one."""
    last = len(turns) - 1 if turns and turns[-1]["role"] == "assistant" else len(turns)
    asked = turns[:last]
    text = asked[0]["content"] if len(asked) == 1 else "\n".join(f"{turn['role']}: {turn['content']}" for turn in asked)
    return text, turns[last]["content"] if last < len(turns) else ""
