"""Searches for runs: the language, see docs/SEARCH.md, the fields of a run that it can ask for, and which runs fit.

A search is read by a parser of its own into a tree of comparisons. No part of it is ever run as code.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple, cast

from dynlora.config import config_keys
from dynlora.errors import SearchError

MAX_LENGTH = 500
"""Most characters of a search; spaces count inside quotes only."""

MAX_DEPTH = 20
"""Most brackets and `not`s inside one another."""

KEYWORDS = ("and", "or", "not")


@dataclass(frozen=True)
class Word:
    """Text that must occur in the run's own words: its name, tags, note and the like.

    Attributes:
        text: that is looked for, in any case.
    """

    text: str


@dataclass(frozen=True)
class Comparison:
    """A field set against a value.

    Attributes:
        name: of the field, dotted.
        operator: one of = != < <= > >= ~.
        value: as text.
        number: the value as a number; None when it is none, or was written in quotes.
        column: of the name in the search, from 1; says nothing about what is looked for.
    """

    name: str
    operator: str
    value: str
    number: float | None = None
    column: int = field(default=1, compare=False)


@dataclass(frozen=True)
class Not:
    """What `item` does not fit."""

    item: Query


@dataclass(frozen=True)
class And:
    """What all items fit; without items everything does."""

    items: tuple[Query, ...]


@dataclass(frozen=True)
class Or:
    """What one of the items fits at least."""

    items: tuple[Query, ...]


Query = Word | Comparison | Not | And | Or


def parse(text: str) -> Query:
    """Return the tree of a search; an empty one fits everything.

    Raises:
        SearchError: for the first thing wrong: where, what is wanted there, what to write.
    """
    return _Parser(text).query()


def comparisons(query: Query) -> Iterator[Comparison]:
    """Yield every comparison of a tree, from left to right."""
    match query:
        case Comparison():
            yield query
        case Not(item):
            yield from comparisons(item)
        case And(items) | Or(items):
            for item in items:
                yield from comparisons(item)
        case Word():
            return


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _number(text: str) -> float | None:
    """Return text as a finite number, None when it is none."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


_TOKEN = re.compile(
    r"""
      (?P<space> \s+ )
    | (?P<open> \( )
    | (?P<close> \) )
    | (?P<operator> != | <= | >= | ==? | [<>~] )
    | (?P<tag> tag: )
    | (?P<quoted> "(?: [^"\\] | \\. )*" | '(?: [^'\\] | \\. )*' )
    | (?P<unclosed> ["'] )
    | (?P<word> (?: [^\s()=<>~!] | !(?!=) )+ )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
"""Every text is a row of these; quotes count at the start of a token only, so that `it's` is a word."""


class _Token(NamedTuple):
    kind: str
    text: str
    column: int

    @property
    def keyword(self) -> str:
        """One of `KEYWORDS`, empty for everything else."""
        word = self.text.lower()
        return word if self.kind == "word" and word in KEYWORDS else ""

    @property
    def label(self) -> str:
        """What a message calls it."""
        return "the end" if self.kind == "end" else f"{self.text[:40]!r}"


class _Parser:
    """One pass from left to right; each method reads what its line of the grammar says."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [
            _Token(match.lastgroup or "", match.group(), match.start() + 1)
            for match in _TOKEN.finditer(text)
            if match.lastgroup != "space"
        ]
        size = sum(len(token.text) for token in self._tokens)
        if size > MAX_LENGTH:
            raise SearchError(text, len(text), f"{size:,} characters are more than {MAX_LENGTH}; shorten the search")
        self._tokens.append(_Token("end", "", len(text) + 1))
        self._next = 0

    def query(self) -> Query:
        """Query = [ or ] ."""
        if self._peek().kind == "end":
            return And(())
        tree = self._or(0)
        if self._peek().kind == "close":
            raise self._wrong("this bracket closes nothing; remove it or add an opening bracket")
        if self._peek().kind != "end":
            raise self._wrong(f"a field is missing before {self._peek().label}; write field{self._peek().text}value")
        return tree

    def _or(self, depth: int) -> Query:
        """Or = and { "or" and } ."""
        items = [self._and(depth)]
        while self._peek().keyword == "or":
            self._take()
            items.append(self._and(depth))
        spliced = [inner for item in items for inner in (item.items if isinstance(item, Or) else (item,))]
        return spliced[0] if len(spliced) == 1 else Or(tuple(spliced))

    def _and(self, depth: int) -> Query:
        """And = not { [ "and" ] not } ."""
        items = [self._not(depth)]
        while self._peek().kind in ("open", "tag", "quoted", "unclosed", "word") and self._peek().keyword != "or":
            if self._peek().keyword == "and":
                self._take()
            items.append(self._not(depth))
        spliced = [inner for item in items for inner in (item.items if isinstance(item, And) else (item,))]
        return spliced[0] if len(spliced) == 1 else And(tuple(spliced))

    def _not(self, depth: int) -> Query:
        """Not = "not" not | "(" or ")" | "tag:" value | field operator value | word ."""
        if depth > MAX_DEPTH:
            raise self._wrong(f"more than {MAX_DEPTH} nested brackets and nots; simplify the search")
        if self._peek().keyword == "not":
            self._take()
            return Not(self._not(depth + 1))
        if self._peek().keyword or self._peek().kind not in ("open", "tag", "quoted", "word"):
            raise self._wrong(f"a word, a comparison or ( must be here, not {self._peek().label}; {self._remedy()}")
        token = self._take()
        if token.kind == "open":
            return self._closed(token, depth)
        if token.kind == "tag":
            return Comparison("tag", "=", *self._value("tag:"), token.column)
        if self._peek().kind == "operator":
            return self._comparison(token)
        return Word(_unquoted(token))

    def _closed(self, opened: _Token, depth: int) -> Query:
        tree = self._or(depth + 1)
        if self._peek().kind != "close":
            raise self._wrong(f"a ) is missing for the ( at column {opened.column}, not {self._peek().label}; close it")
        self._take()
        return tree

    def _comparison(self, name: _Token) -> Comparison:
        operator = self._take()
        if name.kind == "quoted":
            raise self._wrong("a field has no quotes; remove them, or the comparison", name)
        value, number = self._value(operator.text)
        return Comparison(name.text, "=" if operator.text == "==" else operator.text, value, number, name.column)

    def _value(self, after: str) -> tuple[str, float | None]:
        if self._peek().keyword or self._peek().kind not in ("quoted", "word"):
            raise self._wrong(f"a value is missing after {after}, not {self._peek().label}; {self._remedy()}")
        token = self._take()
        return _unquoted(token), _number(token.text) if token.kind == "word" else None

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _remedy(self) -> str:
        if self._peek().kind == "unclosed":
            return "close the quote"
        if self._peek().kind == "end":
            return "such as accuracy>0.85"
        return "put it in quotes to search for it as text"

    def _wrong(self, problem: str, token: _Token | None = None) -> SearchError:
        return SearchError(self._text, (token or self._peek()).column, problem)


def _unquoted(token: _Token) -> str:
    return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL) if token.kind == "quoted" else token.text


Row = Mapping[str, Any]

SUMMARY = (
    "id",
    "name",
    "status",
    "strategy",
    "fidelity",
    "model",
    "data",
    "metric",
    "seed",
    "step",
    "max_steps",
    "note",
    "error",
    "kind",
    "task",
)
"""Fields of the row itself."""

METRICS = (
    "accuracy",
    "macro_f1",
    "f1",
    "matthews",
    "pearson",
    "spearman",
    "mse",
    "loss",
    "ece",
    "brier",
    "perplexity",
    "token_accuracy",
    "exact_match",
)
"""Metrics of every task."""

TABLES = {
    "metrics": METRICS,
    "best": (*METRICS, "step"),
    "params": ("budget", "active", "allocated", "gate", "head"),
    "time": ("train_s", "step_ms_median", "strategy_ms_median"),
}
"""Groups of numbers, and what every run has in them; a field of theirs is `group.name`, a metric its name alone too."""

OPEN = "strategy."
"""Fields that only some methods have, and a run's configuration only where it sets them: no search is refused over one.
"""

SEARCHED = ("name", "id", "strategy", "model", "data", "status", "note")
"""Where a word is looked for, beside the tags."""


def fits(text: str, rows: Iterable[Row]) -> list[bool]:
    """Say of each run whether a search fits it.

    Raises:
        SearchError: when the search cannot be read, or names a field that none of these runs can have.
    """
    matches = list(rows)
    query = parse(text)
    check_names(query, text, matches)
    return [is_fit(query, row) for row in matches]


def found_rows(text: str, rows: Iterable[Row]) -> list[Row]:
    """Return the runs that a search fits.

    Raises:
        SearchError: as `fits` does.
    """
    matches = list(rows)
    return [row for row, is_found in zip(matches, fits(text, matches), strict=True) if is_found]


def check_names(query: Query, text: str, rows: Iterable[Row]) -> None:
    """Refuse the first field that no run can have.

    Raises:
        SearchError: naming the nearest field.
    """
    usual = usual_names()
    odd = [one for one in comparisons(query) if one.name not in usual and not one.name.startswith(OPEN)]
    if not odd:
        return
    names = {*usual, *recorded_names(rows)}
    for one in odd:
        if one.name not in names:
            raise SearchError(
                text, one.column, f"{one.name[:60]!r} is not a field of these runs; {_nearest(one, names)}"
            )


def unset_names(text: str, rows: Iterable[Row]) -> list[str]:
    """Return the settings of a method that a search names and none of these runs sets: perhaps misspelt.

    Args:
        text: a search that can be read.
        rows: of the runs; their configuration is enough.
    """
    names = dict.fromkeys(one.name for one in comparisons(parse(text)) if one.name.startswith(OPEN))
    unset_rows = list(rows) if names else []
    return [name for name in names if all(value_of(row, name) is None for row in unset_rows)]


def usual_names() -> set[str]:
    """Return the fields that can be asked for whatever runs there are."""
    grouped = {f"{group}.{name}" for group, names in TABLES.items() for name in names}
    return {"tag", "tags", *SUMMARY, *TABLES["metrics"], *grouped, *config_keys()}


def recorded_names(rows: Iterable[Row]) -> set[str]:
    """Return the fields that these runs have beside the usual ones."""
    names: set[str] = set()
    for row in rows:
        names |= {str(name) for name in _table(row, "metrics")}
        names |= {f"{group}.{name}" for group in TABLES for name in _table(row, group)}
        names |= set(settings(row))
    return names


def settings(row: Row) -> dict[str, Any]:
    """Return a run's configuration with dotted keys."""
    return flat(_table(row, "config"))


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration with dotted keys."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        inner = cast(Mapping[str, Any], value) if isinstance(value, Mapping) else None
        values |= {f"{prefix}{key}": value} if inner is None else flat(inner, f"{prefix}{key}.")
    return values


def value_of(row: Row, name: str) -> Any:
    """Return what a field holds, None where the run has none."""
    if name in ("tag", "tags"):
        return row.get("tags") or []
    if name in SUMMARY:
        return row.get(name)
    group, dot, rest = name.partition(".")
    if dot and group in TABLES:
        return _table(row, group).get(rest)
    if not dot:
        return _table(row, "metrics").get(name)
    value: Any = _table(row, "config")
    for part in name.split("."):
        value = cast(Mapping[str, Any], value).get(part) if isinstance(value, Mapping) else None
    return value


def _table(row: Row, name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def is_fit(query: Query, row: Row) -> bool:
    """Say whether a search fits a run; a field that the run lacks never does."""
    match query:
        case Word(text):
            return _occurs(text.casefold(), row)
        case Comparison():
            return _holds(query, value_of(row, query.name))
        case Not(item):
            return not is_fit(item, row)
        case And(items):
            return all(is_fit(item, row) for item in items)
        case Or(items):
            return any(is_fit(item, row) for item in items)


def _occurs(text: str, row: Row) -> bool:
    texts = [*(row.get(name) for name in SEARCHED), *value_of(row, "tag")]
    return any(text in one.casefold() for one in texts if isinstance(one, str))


ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _holds(one: Comparison, value: Any) -> bool:
    """Say whether a comparison holds: number with number, text with text in any case; of a list one item must fit."""
    if isinstance(value, list | tuple):
        items = cast(Sequence[Any], value)
        if one.operator == "!=":
            return not any(_holds(Comparison(one.name, "=", one.value, one.number), item) for item in items)
        return any(_holds(one, item) for item in items)
    if isinstance(value, bool):
        value = "true" if value else "false"
    if isinstance(value, str):
        left, right = value.casefold(), one.value.casefold()
        return right in left if one.operator == "~" else ORDERS[one.operator](left, right)
    if not isinstance(value, Real) or one.number is None or one.operator == "~" or value != value:
        return False
    return ORDERS[one.operator](value, one.number)


def _nearest(one: Comparison, names: set[str]) -> str:
    """Return "did you mean ...?" with the nearest field, or where fields are listed when none is near."""
    lower = {name.lower(): name for name in sorted(names)}
    lowered = one.name.lower()
    ends = [name for name in sorted(names) if name.rpartition(".")[2].lower() == lowered]
    near = ends[:1] or [lower[name] for name in difflib.get_close_matches(lowered, list(lower), n=1)]
    if near:
        return f"did you mean {near[0][:60]}?"
    return "write one such as strategy, accuracy, params.active or train.lr"
