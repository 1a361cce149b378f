"""What a model wrote: read from events, compared word by word, told in a sentence."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.viz.run import result_figures


def events(*steps: tuple[int, list[dict[str, Any]]]) -> pd.DataFrame:
    return pd.DataFrame({"step": [step for step, _ in steps], "payload": [{"rows": rows} for _, rows in steps]})


def row(place: int, text: str, right: bool | None = None) -> dict[str, Any]:
    return {"row": place, "group": "a", "prompt": "p", "expected": "e", "text": text, "ended": True, "right": right}


@given(st.text("ab \n", max_size=30), st.text("ab \n", max_size=30))
def test_the_pieces_of_a_text_are_the_text(before: str, after: str) -> None:
    pieces = result_figures.changes(before, after)
    assert "".join(piece for piece, _ in pieces) == after
    assert any(new for _, new in pieces) <= (before != after)
    if before == after:
        assert not any(new for _, new in pieces)


@pytest.mark.parametrize(
    ("steps", "caption"),
    [
        (
            [(0, [row(1, "x", False)] * 4), (9, [row(1, "y", True)] * 2 + [row(2, "z", False)] * 2)],
            "At step 9, 2 of 4 answers are correct (95 % CI 15 % to 85 %); at step 0 it was 0.",
        ),
        ([(0, [row(1, "x", True)])], "At step 0, 1 of 1 answers are correct (95 % CI 21 % to 100 %)."),
        ([(0, [row(1, "x")]), (3, [row(1, "y")])], "1 of 1 texts are other ones at step 3 than at step 0."),
        ([(0, [row(1, "x")])], "The model continued 1 prompts at step 0."),
    ],
)
def test_the_conclusion_counts(steps: list[tuple[int, list[dict[str, Any]]]], caption: str) -> None:
    assert result_figures.conclusion(result_figures.by_step(events(*steps))) == caption


def test_what_is_no_text_is_left_out() -> None:
    texts = result_figures.by_step(
        pd.DataFrame({"step": [3, 1, 2], "payload": [{"rows": [row(0, "a"), 7]}, "x", {"rows": 3}]})
    )
    assert list(texts) == [3]
    assert [text.text for text in texts[3]] == ["a"]
    assert result_figures.by_step(events((0, [{"text": None, "row": "no", "right": 1}])))[0][0].right is None


def test_texts_are_beside_those_of_the_first_evaluation() -> None:
    steps = result_figures.by_step(events((0, [row(5, "old")]), (2, [row(5, "new", False), row(6, "more")])))
    table = result_figures.table(steps[2], steps[0])
    assert table[["at first", "now", "correct"]].to_numpy().tolist() == [["old", "new", "no"], ["", "more", "–"]]
