"""Texts that are alike: found with few comparisons, confirmed by an exact count, and repaired by line."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.config import parse_config
from dynlora.data_files import scan, similarity
from dynlora.data_files.similarity import SHARE, Sketches, share
from dynlora.engine.data.text_data import load_data
from tests.data_files.files import csv_text

WORDS = [f"{a}{b}{c}" for a in ("bre", "sta", "mo", "gli", "ka") for b in ("n", "rk", "st") for c in ("a", "ing", "o")]


def text(seed: int, n: int) -> str:
    """Return a text of so many words."""
    return " ".join(random.Random(seed).choices(WORDS, k=n))


def edited(original: str, place: int) -> str:
    """Return a text with another word at a place."""
    words = original.split()
    words[place % len(words)] = "zzz"
    return " ".join(words)


def expected(texts: list[str]) -> list[bool]:
    """Return which texts are alike to an earlier one that is kept, by comparing all pairs."""
    sketches, first = Sketches(texts), list[int]()
    is_repeated: list[bool] = []
    for row, each in enumerate(texts):
        is_long = len(each) >= similarity.MIN_CHARACTERS
        others = (other for other in first if texts[other] != each)
        is_repeated.append(is_long and any(sketches.are_alike(row, other) for other in others))
        if is_long and not is_repeated[-1]:
            first.append(row)
    return is_repeated


NAMES = ("Anna", "Bao", "Carla", "Deniz", "Emeka", "Farah", "Goran", "Hiro", "Ines", "Jonas")
THINGS = ("apples", "stamps", "marbles", "pencils", "tickets", "shells", "coins", "books")


def prompt(seed: int) -> str:
    """Return a prompt of one template, filled in by a seed."""
    draw = random.Random(seed)
    name, thing, first, second = draw.choice(NAMES), draw.choice(THINGS), draw.randint(10, 99), draw.randint(10, 99)
    return (
        "Solve the problem step by step and write the answer on the last line. "
        f"{name} has {first} {thing} and buys {second} more. How many {thing} does {name} have now?"
    )


TICKETS = (
    "Hello, I ordered a {thing} on Monday with order number {n} and it has not arrived yet. Please help.",
    "My account {n} was charged twice for the {thing} last month. Could you refund one payment to my card?",
    "The {thing} that came with shipment {n} is broken. I would like a replacement as soon as possible, please.",
)


def ticket(seed: int) -> str:
    """Return a ticket of one of a few templates."""
    draw = random.Random(seed)
    return draw.choice(TICKETS).format(thing=draw.choice(THINGS), n=draw.randint(10_000, 99_999))


@pytest.mark.parametrize("make", [prompt, ticket])
def test_rows_of_a_template_are_no_copies_of_each_other(make: Callable[[int], str]) -> None:
    texts = list(dict.fromkeys(make(seed) for seed in range(160)))
    raw = sum(any(share(texts[row], other) >= SHARE for other in texts[:row]) for row in range(len(texts)))
    assert raw > 80, "most of them share most of their pieces"
    assert similarity.repeated(texts, [0] * len(texts), Sketches(texts)).sum() <= len(texts) // 20


@pytest.mark.parametrize("make", [prompt, ticket])
def test_copies_among_rows_of_a_template_and_among_others_are_found(make: Callable[[int], str]) -> None:
    texts = list(dict.fromkeys(make(seed) for seed in range(120)))
    copies = [each.replace("Please", "please").replace("step by step", "step  by step") + " thx" for each in texts[:4]]
    plain = [text(seed, 25) for seed in range(30)]
    edits = [edited(each, 7) for each in plain[:4]]
    rows = [*texts, *plain, *copies, *edits]
    is_alike = similarity.repeated(rows, [0] * len(rows), Sketches(rows))
    assert is_alike[-8:].all(), "four of each kind"
    assert is_alike[: len(texts) + 30].sum() <= 3


def test_two_copies_in_a_table_of_three_rows_are_no_template() -> None:
    rows = [text(1, 30), edited(text(1, 30), 20), text(2, 30)]
    assert similarity.repeated(rows, [0] * 3, Sketches(rows)).tolist() == [False, True, False]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(6, 40), st.integers(-1, 40)), min_size=1, max_size=25))
def test_what_is_found_is_what_a_comparison_of_all_pairs_finds(drawn: list[tuple[int, int, int]]) -> None:
    texts = [text(seed, n) if place < 0 else edited(text(seed, n), place) for seed, n, place in drawn]
    is_copy = similarity.repeated(texts, [0] * len(texts), Sketches(texts)).tolist()
    wanted = expected(texts)
    for row in np.flatnonzero(is_copy):
        assert any(share(texts[row], other) >= SHARE for other in texts[:row] if other != texts[row])
    missed = sum(wanted) - sum(is_copy)
    assert missed <= max(1, len(texts) // 10), "a pair just at the threshold may have no band in common"


def test_many_texts_are_compared_without_missing_a_copy() -> None:
    originals = [text(seed, 30) for seed in range(800)]
    copies = [edited(each, seed) for seed, each in enumerate(originals[:200])]
    texts = [*originals, *copies]
    is_copy = similarity.repeated(texts, [0] * len(texts), Sketches(texts))
    alike = [share(copy, original) >= SHARE for copy, original in zip(copies, originals, strict=False)]
    assert not is_copy[:800].any()
    assert is_copy[800:].sum() >= 0.98 * sum(alike) > 100
    assert not (is_copy[800:] & ~np.array(alike)).any()


def test_other_rows_and_runs_change_nothing() -> None:
    texts: list[str | None] = [text(1, 30), edited(text(1, 30), 3), None, "short", text(2, 30), edited(text(2, 30), 9)]
    copies = similarity.repeated(texts, [0] * 6, Sketches(texts)).tolist()
    assert copies == [False, True, False, False, False, True]
    assert similarity.repeated(texts, [0] * 6, Sketches(texts)).tolist() == copies
    assert similarity.repeated(texts, [0, 1, 0, 0, 0, 0], Sketches(texts)).tolist() == [*[False] * 5, True]
    more = [*texts, *(text(seed, 30) for seed in range(10, 60))]
    assert similarity.repeated(more, [0] * len(more), Sketches(more)).tolist()[:6] == copies


ROWS = [{"text": text(seed, 20), "label": ("bug", "praise")[seed % 2]} for seed in range(40)]
ALIKE = [{"text": edited(ROWS[seed]["text"], 19), "label": ROWS[seed]["label"]} for seed in (0, 3)]


def look(path: Path, **values: Any) -> scan.CheckResult:
    """Check a file."""
    return scan.look(path, scan.wanted_of(parse_config({"data": {"path": "x", **values}}).data, 0))


def test_rows_that_are_alike_are_a_fault_by_line_and_the_repair_leaves_out_these(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    other_class = {"text": edited(ROWS[5]["text"], 19), "label": "bug"}
    path.write_text(csv_text([*ROWS, *ALIKE, other_class, ALIKE[0]]))
    fault = next(each for each in look(path).faults if each["kind"] == "similar")
    assert [place["line"] for place in fault["places"]] == [42, 43, 45]
    assert "shares 80 % or more of its pieces of 5 characters with an earlier one of its class" in fault["sentence"]
    assert (fault["repair"], fault["refuses"]) == ("drop_similar", False)
    repaired = look(path, repair=["drop_similar"])
    assert "similar" not in {each["kind"] for each in repaired.faults}
    data = load_data(parse_config({"data": {"path": "x", "repair": ["drop_similar"]}}).data, path, 0)
    kept = [*(row["text"] for row in ROWS), other_class["text"]]
    assert sorted([*data.train.text, *data.held_out.text]) == sorted(kept)
    assert data.repaired == [item["sentence"] for item in repaired.repaired]


@pytest.mark.parametrize("label", ["bug", "praise"])
def test_training_texts_that_are_alike_to_held_out_ones_of_their_class(label: str, tmp_path: Path) -> None:
    both = tmp_path / "data"
    both.mkdir()
    (both / "train.csv").write_text(csv_text(ROWS))
    (both / "validation.csv").write_text(csv_text([{"text": ALIKE[0]["text"], "label": label}, ROWS[3], ROWS[6]]))
    faults = {each["kind"]: each for each in look(both).faults}
    assert ("similar_shared" in faults) is (label == ROWS[0]["label"])
    if label == ROWS[0]["label"]:
        assert faults["similar_shared"]["places"] == [{"file": "train.csv", "line": 2}]
        assert faults["similar_shared"]["repair"] == "drop_similar_shared"
        assert "similar_shared" not in {each["kind"] for each in look(both, repair=["drop_similar_shared"]).faults}
