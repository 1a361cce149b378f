"""What each method is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from dynlora.analysis.frames import records
from dynlora.server.serve import sample_runs_dir
from dynlora.text import listed, one_line

FIDELITY = {
    "code": "checked against published code",
    "description": "follows a full description in its paper",
    "reconstruction": "fills gaps of its paper with our own choices, so a bad result says nothing about the paper",
}
"""What each word for fidelity means."""

FOLLOWS = {
    "code": "checked against published code",
    "description": "after a full description in the paper",
    "reconstruction": "with gaps filled by our own choices",
}
"""The same in a list of counts."""

_ARXIV = re.compile(r"arXiv:? ?(\d{4}\.\d{4,5})")


_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+\d*|\d+")


@dataclass(frozen=True)
class Filter:
    """A property that the list of methods is filtered by.

    Attributes:
        label: of the choice.
        options: a word for each value, in order.
    """

    label: str
    options: Mapping[str, str]


FILTERS = {
    "moves": Filter(
        "Adapters change", {"during": "during training", "before": "before training", "never": "not at all"}
    ),
    "cost": Filter("Cost per step", {"none": "as LoRA or less", "extra": "more than LoRA"}),
    "memory": Filter("Optimizer memory", {"less": "less than LoRA", "same": "as LoRA", "more": "more than LoRA"}),
    "task": Filter(
        "Task",
        {
            "classification": "classification",
            "regression": "regression",
            "causal_lm": "language modelling",
            "planted": "planted ranks",
        },
    ),
    "fidelity": Filter(
        "Fidelity", {"code": "published code", "description": "paper's description", "reconstruction": "reconstruction"}
    ),
}
"""What the page filters by: name in the address to words."""

FIELDS = {"cost": "step_cost", "memory": "state_memory", "task": "tasks"}
"""Fields of the catalogue that filters of another name ask for."""

COSTS = {"less": "none", "same": "none", "more": "extra"}
"""Options of the filter by cost, by the catalogue's word; links have held them for long."""


def values(strategy: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return which options of a filter fit a method."""
    value = strategy.get(FIELDS.get(name, name)) or ()
    if name == "cost":
        return (COSTS.get(str(value), ""),)
    return (value,) if isinstance(value, str) else tuple(value)


def filtered(strategies: Sequence[Mapping[str, Any]], chosen: Mapping[str, Sequence[str]]) -> list[Mapping[str, Any]]:
    """Return the methods that fit all filters; one without a choice fits all.

    Args:
        strategies: as `launch.catalog` lists them.
        chosen: options by filter.
    """
    return [
        one
        for one in strategies
        if all(not choices or not set(choices).isdisjoint(values(one, name)) for name, choices in chosen.items())
    ]


def in_brief(strategy: Mapping[str, Any]) -> str:
    """Return what the filters say of a method, in words."""
    known = [(words, [words.options.get(one) for one in values(strategy, name)]) for name, words in FILTERS.items()]
    facts = [f"{words.label}: {traits[0]}" for words, traits in known if len(traits) == 1 and traits[0]]
    return " · ".join([*facts, *([f"Not for {listed(missing)}"] if (missing := refused_tasks(strategy)) else [])])


def refused_tasks(strategy: Mapping[str, Any]) -> list[str]:
    """Return the tasks that a method cannot learn, in words; none where it is not known."""
    known = values(strategy, "task")
    return [words for name, words in FILTERS["task"].options.items() if known and name not in known]


def learned_tasks(strategy: Mapping[str, Any]) -> str:
    """Return the tasks that a method can learn, in words; empty where it is not known."""
    options, known = FILTERS["task"].options, values(strategy, "task")
    others = [one_line(name, 40) for name in known if name not in options]
    names = [words for name, words in options.items() if name in known] + others
    return listed(names, len(names)) if names else ""


def conclusion(methods: Sequence[Mapping[str, Any]], of: int) -> str:
    """Say how many methods are shown and how faithful they are to their source.

    Args:
        methods: the methods that fit the filters.
        of: how many methods there are.
    """
    if not methods:
        return f"None of {of} methods fits all filters."
    counts = [(sum(one.get("fidelity") == word for one in methods), words) for word, words in FOLLOWS.items()]
    parts = [f"{n} {words}" for n, words in counts if n]
    which = f"{of} methods" if len(methods) == of else f"{len(methods)} of {of} methods fit the filters"
    return f"{which}: {listed(parts)}." if parts else f"{which}."


@cache
def leaderboard() -> pd.DataFrame:
    """Return the error of each method on planted ranks (`benchmarks.planted`), the lowest first.

    Columns: method, error (relative to the base model's), within and components (of all, those in the modules that need
    rank), recovered (fraction of the headroom between uniform LoRA and the planted ranks, its 95 % interval low to
    high), seeds.
    """
    return pd.read_csv(sample_runs_dir() / "planted-methods.csv")


def leaders(board: pd.DataFrame) -> str:
    """Say which method finds most of the planted ranks, and how much the next one recovers."""
    first, second, *_ = records(board[~board["method"].isin(["lora", "planted ranks"])])
    placed = f"{first['within']:.0f} of {first['components']:.0f} components are in the four modules that need them"
    interval = f"95 % CI {first['low']:.2f} to {first['high']:.2f}, {first['seeds']} draws"
    return (
        f"Where the need for rank is known, {first['method']} recovers {first['recovered']:.2f} of the headroom from "
        f"uniform LoRA to the planted ranks ({interval}): {placed}. The next, {second['method']}, recovers "
        f"{second['recovered']:.2f} ({second['low']:.2f} to {second['high']:.2f})."
    )


def title(strategy: Mapping[str, Any]) -> str:
    """Return what a method is called."""
    return str(strategy.get("title") or strategy["name"])


def anchor(strategy: Mapping[str, Any]) -> str:
    """Return the name of a method's section in a link, such as `ada-lo-ra`, as links had it before."""
    return "-".join(word.lower() for word in _WORDS.findall(title(strategy)))


def overview(strategies: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per method: its title, name, paper, fidelity and cost."""
    columns = {"method": "title", "strategy.name": "name", "paper": "paper", "fidelity": "fidelity", "cost": "cost"}
    rows = [{word: one_line(row.get(key) or "", 200) for word, key in columns.items()} for row in strategies]
    return pd.DataFrame(rows, columns=list(columns))


def facts(strategy: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is to be said in a word or two, as pairs of what and words; what is not known is left out."""
    fidelity = strategy.get("fidelity") or ""
    meaning = FIDELITY.get(fidelity)
    rows = [
        ("Name", strategy["name"]),
        ("Fidelity", f"{fidelity}: {meaning}" if meaning else fidelity),
        ("Cost", strategy.get("cost")),
        ("Tasks", learned_tasks(strategy)),
        ("Budget in", strategy.get("budget_in")),
        ("Paper", strategy.get("paper")),
    ]
    return [(word, str(value)) for word, value in rows if value]


def paper_link(strategy: Mapping[str, Any]) -> str | None:
    """Return the address of the paper on arXiv, None when it is not there."""
    match = _ARXIV.search(strategy.get("paper") or "")
    return f"https://arxiv.org/abs/{match[1]}" if match else None


def how(strategy: Mapping[str, Any]) -> list[str]:
    """Return how the method works, a paragraph each: its documentation between the formula and the paper."""
    doc = (strategy.get("doc") or "").partition("Paper:")[0]
    return [" ".join(part.split()) for part in doc.split("\n\n")[1:] if part.strip()]


def departs(strategy: Mapping[str, Any]) -> str:
    """Return where the method departs from its paper or its code, as a sentence; empty when nothing is said."""
    sentence = (strategy.get("doc") or "").partition("Differs:")[2].partition("\n\n")[0]
    words = " ".join(sentence.split())
    return words[:1].upper() + words[1:]
