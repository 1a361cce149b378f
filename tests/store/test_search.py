"""The language of searches: what it finds, where it says a mistake is, and that no text gets past it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.errors import SearchError
from dynlora.store import search as store_search
from dynlora.store.search import (
    MAX_DEPTH,
    MAX_LENGTH,
    And,
    Comparison,
    Not,
    Or,
    Query,
    Word,
    comparisons,
    parse,
)

PIECES = (
    "and",
    "or",
    "not",
    "(",
    ")",
    "tag:",
    "accuracy",
    "train.lr",
    "strategy",
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "~",
    "==",
    "0.85",
    "1e-3",
    "-2",
    '"two words"',
    "'it''s'",
    '"',
    "'",
    "\\",
    " ",
    "\t",
    "\n",
    "paper",
    "a!b",
    "\u202e",
    "é",
    "x=y",
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join),
)
ROW: dict[str, Any] = {
    "id": "20260101-000000-00000001",
    "name": "Alpha beta",
    "status": "finished",
    "strategy": "dynamic",
    "model": "minilm",
    "data": "nyu-mll/glue:sst2",
    "metric": "accuracy",
    "seed": 3,
    "step": 400,
    "max_steps": 400,
    "note": "Keep (this)",
    "fidelity": None,
    "error": None,
    "tags": ["paper", "two words"],
    "metrics": {"accuracy": 0.9, "loss": None},
    "best": {"accuracy": 0.91},
    "params": {"active": 1000, "budget": 2000},
    "time": {"train_s": 12.5},
    "config": {
        "seed": 3,
        "name": None,
        "train": {"lr": 1e-3, "max_grad_norm": None},
        "adapter": {"targets": ["query", "value"]},
        "strategy": {"name": "dynamic", "gates": "module", "merge": True, "init": "42"},
    },
}


def read(text: str) -> Query | SearchError:
    """Return the tree of a search, or the one error that refuses it; anything else that is raised fails the test."""
    try:
        return parse(text)
    except SearchError as error:
        return error


@given(TEXTS)
def test_any_text_is_read_or_refused_at_a_place_in_it(text: str) -> None:
    parsed = read(text)
    if isinstance(parsed, SearchError):
        assert 1 <= parsed.column <= len(text) + 1
        line, caret = parsed.picture.split("\n")
        assert caret.strip() == "^"
        assert len(caret) <= len(line) + 1
        assert len(str(parsed).splitlines()) == 1
    else:
        assert isinstance(store_search.is_fit(parsed, ROW), bool)


Predicate = Callable[[Mapping[str, Any]], bool]
PLAIN = {
    "accuracy": 0.9,
    "metrics.accuracy": 0.9,
    "loss": None,
    "best.accuracy": 0.91,
    "params.active": 1000,
    "seed": 3,
    "train.lr": 1e-3,
    "train.max_grad_norm": None,
    "strategy": "dynamic",
    "strategy.gates": "module",
    "data": "nyu-mll/glue:sst2",
    "strategy.nothing": None,
    "name": "Alpha beta",
}
"""The row as a naive reader sees it."""


def leaf(name: str, operator: str, value: str) -> tuple[str, Predicate]:
    """Return a comparison as text, and what it says, told apart by cases as naively as can be."""

    def holds(row: Mapping[str, Any]) -> bool:
        own = row[name]
        is_number = value in ("0.9", "1e-3", "1000", "3", "0")
        if own is None:
            return False
        if isinstance(own, str):
            left, right = own.lower(), value.lower()
            return {
                "=": left == right,
                "!=": left != right,
                "<": left < right,
                "<=": left <= right,
                ">": left > right,
                ">=": left >= right,
                "~": left.find(right) >= 0,
            }[operator]
        if not is_number or operator == "~":
            return False
        right = float(value)
        return {
            "=": own == right,
            "!=": own != right,
            "<": own < right,
            "<=": own <= right,
            ">": own > right,
            ">=": own >= right,
        }[operator]

    return f"{name}{operator}{value}", holds


LEAVES = st.builds(
    leaf,
    st.sampled_from(sorted(PLAIN)),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~"]),
    st.sampled_from(["0.9", "1e-3", "1000", "3", "0", "dynamic", "MODULE", "glue:sst2", "a"]),
)


def joined(pair: tuple[tuple[str, Predicate], tuple[str, Predicate]]) -> st.SearchStrategy[tuple[str, Predicate]]:
    (left, fits_left), (right, fits_right) = pair
    return st.sampled_from(
        [
            (f"({left} and {right})", lambda row: fits_left(row) and fits_right(row)),
            (f"({left} {right})", lambda row: fits_left(row) and fits_right(row)),
            (f"({left}) or ({right})", lambda row: fits_left(row) or fits_right(row)),
            (f"not ({left} OR {right})", lambda row: not (fits_left(row) or fits_right(row))),
        ]
    ).map(lambda predicates: (f"({predicates[0]})", predicates[1]))


@given(st.recursive(LEAVES, lambda inner: st.tuples(inner, inner).flatmap(joined), max_leaves=5))
def test_what_fits_is_what_a_naive_reader_says(search: tuple[str, Predicate]) -> None:
    text, holds = search
    assert store_search.is_fit(parse(text), ROW) is holds(PLAIN)


def test_and_binds_closer_than_or_and_not_closest() -> None:
    a, b, c = Word("a"), Word("b"), Word("c")
    assert parse("a or b and c") == parse("a or b c") == Or((a, And((b, c))))
    assert parse("(a or b) and c") == And((Or((a, b)), c))
    assert parse("not a b") == And((Not(a), b))
    assert parse("not (a b)") == Not(And((a, b)))
    assert parse("((a)) and (b and c)") == And((a, b, c))
    assert parse("  ") == And(())
    assert parse('NOT "and"') == Not(Word("and"))


def test_what_an_example_of_the_documentation_means() -> None:
    query = parse("strategy=dynamic and accuracy>0.85 or tag:paper")
    assert query == Or(
        (
            And((Comparison("strategy", "=", "dynamic"), Comparison("accuracy", ">", "0.85", 0.85))),
            Comparison("tag", "=", "paper"),
        )
    )
    assert [one.column for one in comparisons(query)] == [1, 22, 39]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("alpha", True),
        ("PAPER", True),
        ("keep", True),
        ('"Alpha beta"', True),
        ("beta alpha", True),
        ("tag:paper", True),
        ("tag:pap", False),
        ("tag~pap", True),
        ('tag:"Two Words"', True),
        ("tag!=paper", False),
        ("tag!=draft", True),
        ("seed=3.0", True),
        ('seed="3"', False),
        ("seed=three", False),
        ("seed!=three", False),
        ("best.accuracy>accuracy", False),
        ("not loss<1", True),
        ("train.lr = .001", True),
        ("strategy.merge=true", True),
        ("strategy.merge=1", False),
        ("strategy.init=42", True),
        ('strategy.init="42"', True),
        ("adapter.targets=query", True),
        ("adapter.targets~val", True),
        ("adapter.targets!=query", False),
        ("id>20251231", True),
        ("id<20251231", False),
        ("error=x", False),
        ("params.active<params.budget", False),
        ("strategy.unknown=1", False),
        ("time.train_s<13", True),
        ("name == 'alpha beta'", True),
        ("status=finished (seed=1 or seed=3)", True),
    ],
)
def test_typed_comparisons(text: str, fits: bool) -> None:
    assert store_search.fits(text, [ROW]) == [fits]


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("accuracy>", 10, "a value is missing after >, not the end; such as accuracy>0.85"),
        ("a and", 6, "a word, a comparison or ( must be here, not the end"),
        ("or a", 1, "not 'or'; put it in quotes"),
        ("(a or b", 8, "a ) is missing for the ( at column 1, not the end"),
        ("a)", 2, "closes nothing"),
        ("accuracy>and", 10, "not 'and'"),
        ("a = = b", 5, "not '='"),
        ("a=b=c", 4, "a field is missing before '='"),
        ('name="open', 6, "close the quote"),
        ('"a b"=c', 1, "a field has no quotes; remove them"),
        ("tag:", 5, "a value is missing after tag:"),
        ("()", 2, "not ')'"),
        ("<img src=x", 1, "not '<'"),
        ("acuracy>0.8", 1, "'acuracy' is not a field of these runs; did you mean accuracy?"),
        ("dynamic and lr>=1e-3", 13, "did you mean train.lr?"),
        ("Seed=1", 1, "did you mean seed?"),
        ("zzzzqqq=1", 1, "write one such as strategy"),
        ("params.activ>3", 1, "did you mean params.active?"),
        ("x" * (MAX_LENGTH + 1), MAX_LENGTH + 1, "501 characters are more than 500"),
        ("not " * (MAX_DEPTH + 2) + "a", 4 * (MAX_DEPTH + 1) + 1, "more than 20 nested brackets and nots"),
        ("(" * 400, MAX_DEPTH + 2, "more than 20"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(text: str, column: int, words: str) -> None:
    with pytest.raises(SearchError) as caught:
        store_search.fits(text, [ROW])
    assert (caught.value.column, str(caught.value).startswith(f"search, column {column}: ")) == (column, True)
    assert words in str(caught.value)
    line, caret = caught.value.picture.split("\n")
    assert len(caret) <= 70
    if column <= len(text) <= 60:
        assert line[len(caret) - 1] == text[column - 1]


def test_spaces_do_not_count_and_a_long_search_is_shown_around_the_mistake() -> None:
    assert parse("a" + " " * 5000 + "b") == And((Word("a"), Word("b")))
    with pytest.raises(SearchError) as caught:
        parse("good " * 60 + "( = 3")
    line, caret = caught.value.picture.split("\n")
    assert line.startswith("…")
    assert line[len(caret) - 1] == "="


def test_a_field_that_only_some_runs_have_is_known_by_being_there() -> None:
    other = {**ROW, "metrics": {"bleu": 0.3}, "config": {"strategy": {"name": "x", "depth": 2}}}
    assert store_search.fits("bleu>0.2", [ROW, other]) == [False, True]
    assert store_search.fits("strategy.depth=2", [ROW, other]) == [False, True]
    with pytest.raises(SearchError, match="not a field"):
        store_search.fits("bleu>0.2", [ROW])
    assert store_search.fits("accuracy>0.2", []) == []
    assert store_search.unset_names("strategy.gats=x or strategy.gates=y", [ROW]) == ["strategy.gats"]


def test_what_is_no_plain_value_never_fits_and_never_breaks() -> None:
    odd = {
        **ROW,
        "seed": 10**400,
        "step": float("nan"),
        "tags": None,
        "metrics": None,
        "params": 3,
        "config": {"train": {"lr": {"a": 1}}, "x": [[1], {"b": 2}]},
    }
    assert store_search.fits("seed>1", [odd]) == [True]
    for text in ("step>=0", "step!=0", "accuracy>0", "train.lr>0", "train.lr.a.b>0", "params.active>0", "tag:x", "x=1"):
        assert not store_search.is_fit(parse(text), odd)


def test_the_documentation_holds() -> None:
    blocks = (Path(__file__).parents[2] / "docs" / "SEARCH.md").read_text("utf-8").split("```\n")
    for line in blocks[1].splitlines():
        assert isinstance(store_search.fits(line, [ROW])[0], bool)
    command, sentence, *picture = blocks[5].splitlines()
    with pytest.raises(SearchError) as caught:
        store_search.fits(command.split("'")[1], [ROW])
    assert sentence == f"Error: {caught.value}"
    assert picture == caught.value.picture.split("\n")
