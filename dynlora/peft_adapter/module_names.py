"""Where the modules of an adapter are: the block and the kind, by their names alone, since there is no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def split_names(names: Iterable[str]) -> dict[str, tuple[str, int | None, str]]:
    """Return (stack of blocks, layer, kind) by module name; outside of the blocks ("", None, name)."""
    return {name: _parts(name) for name in names}


def places(names: Sequence[str]) -> list[tuple[int | None, str]]:
    """Return (layer, kind) of each module: the first number in its name, and what comes after it.

    A module without a number is outside of the blocks, and its kind is its name. Where a model has several stacks of
    blocks, as an encoder and a decoder, the kind begins with the stack's.
    """
    parts = [_parts(name) for name in names]
    owners = _owners([stack for stack, layer, _ in parts if layer is not None])
    return [(layer, kind if layer is None else f"{owners[stack]}{kind}") for stack, layer, kind in parts]


def _parts(name: str) -> tuple[str, int | None, str]:
    """Return (stack, layer, kind) of a name such as `encoder.layer.3.attention.query`."""
    words = name.split(".")
    place = next((i for i, word in enumerate(words) if word.isascii() and word.isdigit() and len(word) < 7), None)
    if place is None:
        return "", None, name
    stack, kind = ".".join(words[:place]), ".".join(words[place + 1 :])
    return stack, int(words[place]), kind or (words[place - 1] if place else "block")


def _owners(stacks: Sequence[str]) -> dict[str, str]:
    """Return what distinguishes the stacks, before each kind: nothing for one, its owner's name, else the whole."""
    distinct = list(dict.fromkeys(stacks))
    if len(distinct) < 2:
        return dict.fromkeys(distinct, "")
    short = [stack.split(".")[-2] if "." in stack else stack for stack in distinct]
    return {stack: f"{word if short.count(word) == 1 else stack}." for stack, word in zip(distinct, short, strict=True)}
