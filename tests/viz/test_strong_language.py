"""Texts that are shown only when asked for: hidden, never left out."""

from __future__ import annotations

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from dynlora.viz.inputs import figures as inputs_figures
from dynlora.viz.kit import strong_language
from dynlora.viz.kit.theme import LIGHT
from dynlora.viz.launch import cost_model
from dynlora.viz.report import document
from dynlora.viz.report.page import page

STRONG = "What a crock of shit!"
DELICATE = "Two words that should die this year: Sexting and jeggings"
CLEAN = "An assessment of the class in Scunthorpe, with a cocktail."


def test_a_word_of_the_list_is_found_and_a_word_that_holds_one_is_not() -> None:
    assert strong_language.is_strong(STRONG)
    assert strong_language.is_strong("f.u.c.k this")
    assert not strong_language.is_strong(CLEAN)
    for nothing in (None, 3.5, "", float("nan")):
        assert not strong_language.is_strong(nothing)


def test_a_list_keeps_its_rows_its_order_and_its_numbers() -> None:
    frame = pd.DataFrame({"loss": [3.0, 2.0, 1.0], "text": [STRONG, CLEAN, None], "text_pair": [CLEAN, STRONG, CLEAN]})
    listed = strong_language.hidden(frame)
    assert listed["loss"].tolist() == [3.0, 2.0, 1.0]
    assert listed["text"].tolist()[:2] == [strong_language.HIDDEN, CLEAN]
    assert listed["text_pair"].tolist() == [CLEAN, strong_language.HIDDEN, CLEAN]
    assert strong_language.count(frame) == 2
    assert frame["text"].iloc[0] == STRONG, "the frame itself is not changed"


@given(st.lists(st.sampled_from([STRONG, CLEAN, DELICATE, "fine", ""]), max_size=12))
def test_those_that_can_be_shown_come_first_and_none_is_lost(texts: list[str]) -> None:
    frame = pd.DataFrame({"text": pd.Series(texts, dtype=object)})
    rows = strong_language.presentable_first(frame)
    order = [2 if strong_language.is_strong(text) else int("jeggings" in text) for text in rows["text"]]
    assert order == sorted(order), "neutral texts, delicate ones, hidden ones"
    assert sorted(rows.index) == list(range(len(texts)))
    for part in range(3):
        places = [place for place, one in zip(rows.index, order, strict=True) if one == part]
        assert places == sorted(places), "equals stay in their order"


def test_a_frame_without_texts_is_left_alone() -> None:
    frame = pd.DataFrame({"step": [1, 2]})
    assert strong_language.count(frame) == 0
    assert strong_language.hidden(frame).equals(frame)
    assert strong_language.presentable_first(frame).equals(frame)


def test_what_the_pointer_shows_is_hidden_too() -> None:
    points = pd.DataFrame(
        {"text": [STRONG, CLEAN], "group": ["a", "a"], "x": [0.0, 1.0], "y": [0.0, 1.0], "loss": [1.0, 2.0]}
    )
    drawn = inputs_figures.probe_scatter(points, "group", LIGHT, ["a"], chosen=[], title="group", axes=("a", "b"))
    text = str(drawn.to_plotly_json())
    assert "shit" not in text
    assert "Scunthorpe" in text


def test_a_report_folds_them() -> None:
    table = document.Table("Examples", pd.DataFrame({"loss": [1.5], "text": [STRONG]}))
    html = page(document.Document("t", "a", {}, [document.Part("Results", [table])], []))
    assert b"<details><summary>Show text</summary>What a crock of shit!</details>" in html


def test_the_tokens_of_a_hidden_text_are_hidden_with_it() -> None:
    frame = pd.DataFrame({"text": [STRONG, CLEAN], "model input": ["[CLS] sh ##it [SEP]", "[CLS] an [SEP]"]})
    rows = cost_model.presentable(frame)
    assert rows["model input"].tolist() == [strong_language.HIDDEN, "[CLS] an [SEP]"]
    assert rows["text"].tolist() == [strong_language.HIDDEN, CLEAN]
    assert strong_language.count(pd.DataFrame({"body": [STRONG]}), ["body"]) == 1
