"""The signals over modules that pages can show: their names and titles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynlora.store.meta import section, table
from dynlora.text import one_line, sentence_case

WORDS = {
    "rank": "rank",
    "importance": "importance",
    "gate": "gate",
    "scale": "learned scale",
    "grad_norm": "gradient norm",
    "delta_norm": "update norm",
    "effective_rank": "effective rank",
}
"""Recorded name of each signal, and what people call it."""

_CENTRES = {"gate": 1.0, "scale": 1.0}
_MOST_CHOICES = 64


@dataclass(frozen=True)
class About:
    """What is said of a signal.

    Attributes:
        word: what people call it.
        question: what its map answers, the subtitle; empty for none.
        centre: the neutral value; None when its scale starts at zero.
        choices: names of the values 0, 1, 2, ... where they are choices; empty for amounts.
        grouping: whether equal values mean that modules belong together, and the values nothing else.
        unit: what its method counts it in; empty where that is not said.
    """

    word: str
    question: str = ""
    centre: float | None = None
    choices: tuple[str, ...] = ()
    grouping: bool = False
    unit: str = ""

    @property
    def title(self) -> str:
        """Title of its map over modules."""
        return f"{one_line(sentence_case(self.word), 60)} by module over time"


def known(summary: Mapping[str, Any], recorded: Sequence[str]) -> dict[str, About]:
    """Return the signals over modules that a run recorded, by name: those that every run has, then its method's own.

    What a run says of its method's own signals is not trusted: what is no text is left out.
    """
    found = {name: About(word, centre=_CENTRES.get(name)) for name, word in WORDS.items()}
    found |= {name: about for name, about in own(summary).items() if name not in found}
    return {name: about for name, about in found.items() if name in recorded}


def own(summary: Mapping[str, Any]) -> dict[str, About]:
    """Return what a run says of its method's own signals, by name; what is no text is left out."""
    found = {}
    for name, said in table(summary.get("own_signals")).items():
        if isinstance(said, Mapping) and isinstance(said.get("title"), str):
            choices = said.get("choices")
            names = [str(choice) for choice in choices[:_MOST_CHOICES]] if isinstance(choices, list) else []
            question = said.get("question")
            words = question if isinstance(question, str) else ""
            unit, grouping = said.get("unit"), said.get("grouping") is True
            found[name] = About(
                said["title"], words, None, tuple(names), grouping, unit if isinstance(unit, str) else ""
            )
    return found


def uniform_rank(summary: Mapping[str, Any]) -> int | None:
    """Return the rank every row would have under uniform LoRA; None when it is not known, or a row is many modules."""
    if summary.get("ranks_are_sums"):
        return None
    rank = section(summary.get("config"), "adapter").get("rank")
    return rank if isinstance(rank, int) and 0 < rank <= 1024 else None
