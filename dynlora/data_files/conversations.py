"""Conversations as data files hold them: lists of turns, each with a role and what was said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dynlora.text import is_text

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""Other names of roles, and what chat templates call them."""

FIRST, ASKS, SAYS = ("system", "developer"), ("user", "tool"), ("assistant",)
"""Roles of instructions, of what is answered, and of who answers."""

Turn = dict[str, str]


def conversation(value: Any) -> list[Turn]:
    """Return a cell as turns, {role, content} each; a cell of text is read as JSON.

    Raises:
        ValueError: saying in words what the cell is instead.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("is text that is not JSON") from None
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError("is not a list of messages" if value else "is empty")
    return [_turn(item) for item in value]


def is_conversation(value: Any) -> bool:
    """Say whether a cell, also one of a pandas frame, is a conversation."""
    try:
        return bool(conversation(plain(value)))
    except ValueError:
        return False


def plain(value: Any) -> Any:
    """Return a cell of a pandas frame, where a list is an array, as a list."""
    return value.tolist() if hasattr(value, "tolist") else value


def _turn(item: Any) -> Turn:
    """Return one message."""
    if not isinstance(item, dict):
        raise ValueError("has a message that is not an object with role and content")
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError("has a message without role and content")
    if not (is_text(role) and is_text(content)):
        raise ValueError("has a message that is not valid text (half of a surrogate pair)")
    return {"role": ROLES.get(role, role), "content": content}


def asked_and_said(turns: Sequence[Turn]) -> tuple[str, str]:
    """Return a conversation for reading: all before the assistant's last answer, and that answer, empty without one."""
    last = len(turns) - 1 if turns and turns[-1]["role"] == "assistant" else len(turns)
    prompt = turns[:last]
    text = (
        prompt[0]["content"] if len(prompt) == 1 else "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
    )
    return text, turns[last]["content"] if last < len(turns) else ""


def order_fault(roles: Sequence[str]) -> str:
    """Return what is wrong with the order of roles, in words; empty where nothing is.

    Many chat templates refuse other orders than system, user, assistant, user, assistant and so on.
    """
    known = (*FIRST, *ASKS, *SAYS)
    for place, (role, before) in enumerate(zip(roles, [None, *roles], strict=False)):
        if role not in known:
            return f"the role {role[:20]!r} is none of {', '.join(known)}"
        if role in FIRST and place:
            return f"a {role} message follows other messages"
        if role in SAYS and before not in ASKS:
            return "an assistant's message follows no user's"
        if role == "user" and before == "user":
            return "two user's messages follow each other"
    return ""
