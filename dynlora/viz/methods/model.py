"""What people want to know of a method before they launch it, from the list of strategies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dynlora.viz.kit.text import one_line

FIDELITY = {
    "code": "checked against published code",
    "description": "follows a full description in its paper",
    "reconstruction": "fills gaps of its paper with our own choices, so a bad result says nothing about the paper",
}
"""What each word for fidelity means."""

_ARXIV = re.compile(r"arXiv:? ?(\d{4}\.\d{4,5})")


def overview(strategies: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per method: its title, name, paper, fidelity and cost."""
    columns = {"method": "title", "strategy.name": "name", "paper": "paper", "fidelity": "fidelity", "cost": "cost"}
    rows = [{word: one_line(row.get(key) or "", 200) for word, key in columns.items()} for row in strategies]
    return pd.DataFrame(rows, columns=list(columns))


def facts(strategy: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is to be said in a word or two, as pairs of what and words; what is not known is left out."""
    fidelity = strategy.get("fidelity") or ""
    meaning = FIDELITY.get(fidelity)
    found = [
        ("Name", strategy["name"]),
        ("Fidelity", f"{fidelity}: {meaning}" if meaning else fidelity),
        ("Cost", strategy.get("cost")),
        ("Budget in", strategy.get("budget_in")),
        ("Paper", strategy.get("paper")),
    ]
    return [(word, str(value)) for word, value in found if value]


def paper_link(strategy: Mapping[str, Any]) -> str | None:
    """Return the address of the paper on arXiv, None when it is not there."""
    found = _ARXIV.search(strategy.get("paper") or "")
    return f"https://arxiv.org/abs/{found[1]}" if found else None


def how(strategy: Mapping[str, Any]) -> list[str]:
    """Return how the method works, a paragraph each: its documentation between the formula and the paper."""
    doc = (strategy.get("doc") or "").partition("Paper:")[0]
    return [" ".join(part.split()) for part in doc.split("\n\n")[1:] if part.strip()]


def departs(strategy: Mapping[str, Any]) -> str:
    """Return where the method departs from its paper or its code, as a sentence; empty when nothing is said."""
    said = (strategy.get("doc") or "").partition("Differs:")[2].partition("\n\n")[0]
    words = " ".join(said.split())
    return words[:1].upper() + words[1:]
