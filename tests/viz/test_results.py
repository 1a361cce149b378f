"""What the Run page computes and draws of results, progress and the machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from dynlora.analysis import results, run_summary
from dynlora.kinds.train.panels import cost, training
from dynlora.kinds.train.panels import results as group_results
from dynlora.kinds.train.panels.texts import beside_first, by_step, changes, conclusion
from dynlora.viz.kit.charts import limits, score_dots
from dynlora.viz.kit.theme import LIGHT
from tests.summaries import summary_with
from tests.viz.drawn import layout_of, traces_of
from tests.viz.runs import HOSTILE

LABELS = ["negative", "positive"]


def examples() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": ["a", HOSTILE[0], "c", "d"],
            "text_pair": None,
            "label": ["negative", "1", "positive", "negative"],
            "loss": [0.1, 0.2, 0.9, 0.8],
            "prediction": [0.0, 1.0, 0.0, 1.0],
        }
    )


def wide(*rows: list[float]) -> pd.DataFrame:
    frame = pd.DataFrame([row[1:] for row in rows], columns=["0", "1", "2", "3"])
    frame.insert(0, "step", [row[0] for row in rows])
    return frame


def test_class_scores_are_sklearns() -> None:
    counts = [[30, 5, 0], [2, 40, 1], [0, 0, 0]]
    truth = np.repeat([0, 0, 1, 1, 1], [30, 5, 2, 40, 1])
    guess = np.repeat([0, 1, 0, 1, 2], [30, 5, 2, 40, 1])
    wanted = precision_recall_fscore_support(
        truth,
        guess,
        labels=[0, 1, 2],
        zero_division=np.nan,  # pyright: ignore[reportArgumentType] - scikit-learn has no types; its default is a text
    )
    scores = results.class_scores(counts, ["a", "b", "c"])
    for column, values in zip(("precision", "recall", "F1", "examples"), wanted, strict=True):
        assert scores[column].tolist() == pytest.approx(np.asarray(values).tolist(), nan_ok=True)
    caption = group_results.class_scores(scores)
    assert "F1 is highest for b" in caption
    assert "lowest for a" in caption, "class c has no examples: its 0 is no result"


@pytest.mark.parametrize(
    ("counts", "caption"),
    [
        ([[5, 0], [0, 7]], "F1 is 1.000 for all 2 classes."),
        ([[5, 0], [0, 0]], "One class has examples: a, F1 1.000."),
        ([[0, 0], [0, 0]], "No class has an example, so there are no scores."),
    ],
)
def test_class_scores_that_are_equal_or_undefined_are_said_to_be(counts: list[list[int]], caption: str) -> None:
    assert group_results.class_scores(results.class_scores(counts, ["a", "b"])).startswith(caption)


def test_most_changed_examples() -> None:
    ends = results.probe_ends(
        examples(), wide([0, 0.7, 0.7, 0.7, 0.7], [9, 0.1, 0.2, 0.9, 0.8]), wide([0, 0, 0, 1, 1], [9, 0, 1, 0, 1])
    )
    named = results.answer_names(ends, LABELS)
    assert results.changed(named)["loss change"].tolist() == [-0.6, -0.5, 0.2, 0.1]
    assert results.turned(named)["prediction after"].tolist() == ["negative", "positive"]
    assert results.answers(named)["count"].tolist() == [1, 1, 1, 1]
    data = group_results.ProbeEnds(named, LABELS, "nats", writes=False)
    assert "1 predictions became correct, 1 became wrong" in group_results.AnswersSinceFirst().caption(data)


def test_too_few_evaluations_or_other_sizes_are_empty() -> None:
    assert results.probe_ends(examples(), wide([0, 1, 1, 1, 1]), wide([0, 1, 1, 1, 1])).empty
    two = wide([0, 1, 1, 1, 1], [1, 1, 1, 1, 1])
    assert results.probe_ends(examples().head(3), two, two).empty
    assert results.base_ends(examples(), None, np.zeros(4)).empty
    assert results.base_ends(examples(), np.zeros(3), np.zeros(4)).empty


def test_base_against_adapted() -> None:
    named = results.answer_names(results.base_ends(examples(), np.full(4, 0.7), np.zeros(4)), LABELS)
    assert results.answers(named)["count"].tolist() == [1, 1, 1, 1]
    assert results.is_right(examples(), LABELS).tolist() == [1, 1, 0, 0]


def test_numbers_of_a_regression_stay_numbers() -> None:
    named = results.answer_names(pd.DataFrame({"label": ["2.5"], "first": [1.2345], "last": [np.nan]}), [])
    assert named.iloc[0].tolist() == ["2.5", "1.23", None]


def test_figures_hold_what_they_are_given() -> None:
    ends = results.base_ends(examples(), np.array([0.7, 0.6, 0.5, np.nan]), np.zeros(4))
    data = group_results.ProbeEnds(results.answer_names(ends, LABELS), LABELS, "nats", writes=False)
    scores = results.class_scores([[3, 1], [0, 4]], ["a", "b"])
    (dots, *_) = traces_of(score_dots(scores, "class", ["precision", "F1"], "score", LIGHT))
    assert list(dots.x)[0] == 1.0
    totals = pd.DataFrame({"step": [0, 1], "query": [4, 3], "key": [4, 5]})
    assert [list(trace.y) for trace in traces_of(cost.ranks_by_kind(totals, LIGHT))] == [[4, 3], [4, 5]]
    drawn = traces_of(group_results.AdapterLosses().figure(data, LIGHT))
    assert sum(len(trace.x) for trace in drawn[1:]) == 4


def test_components_by_kind() -> None:
    modules = pd.DataFrame({"label": ["query", "query", "key"], "position": [0, 2, 1]})
    ranks = pd.DataFrame([[4, 3], [4, 6], [4, 3]], columns=[0, 10])
    totals = cost.components_by_kind(ranks, modules)
    assert totals.to_dict("list") == {"step": [0, 10], "query": [8, 6], "key": [4, 6]}
    assert cost.components_by_kind(ranks.head(2), modules).empty


def metrics(**values: list[float]) -> pd.DataFrame:
    rows = [(name, 10 * step, value) for name, every in values.items() for step, value in enumerate(every)]
    return pd.DataFrame(rows, columns=["name", "step", "value"])


def test_perplexity_and_fractions_have_a_panel_each() -> None:
    drawn = training.metric_lines(
        metrics(perplexity=[280.0, 20.0], token_accuracy=[0, 0.7], exact_match=[0, 0.5]), LIGHT
    )
    axes = {trace["name"]: trace["yaxis"] for trace in traces_of(drawn)}
    assert axes == {"Perplexity": "y", "Token accuracy": "y2", "Exact match": "y2"}
    layout = layout_of(drawn)
    assert layout["yaxis"]["type"] == "log"
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1], "the panels do not overlap"


@pytest.mark.parametrize(("name", "word"), [("perplexity", "lowest"), ("token_accuracy", "highest")])
def test_the_best_value_is_the_lowest_where_lower_is_better(name: str, word: str) -> None:
    series = pd.DataFrame({"step": [0, 10, 20], "value": [30.0, 10.0, 20.0]})
    best = {"lowest": "10.000 at step 10", "highest": "30.000 at step 0"}[word]
    assert f"the {word} value is {best}" in training.metric(series, name)
    assert limits(name)[0] == {"lowest": 1.0, "highest": 0.0}[word]


def test_how_much_was_judged_is_no_metric() -> None:
    scalars = metrics(perplexity=[9.0], tokens=[4000.0], loss=[2.0]).assign(split="validation")
    assert run_summary.held_out(scalars)["name"].tolist() == ["perplexity"]


def test_generated_texts_are_counted_by_their_prompts() -> None:
    summary = {
        "config": {"log": {"eval_rows": 256, "generate_rows": 32}},
        "data_size": {"held_out": 480},
        "max_steps": 10,
    }
    with_counts = run_summary.with_rows(metrics(perplexity=[9.0, 8.0], exact_match=[0.1, 0.2]), summary_with(summary))
    assert with_counts["examples"].tolist() == [256, 480, 32, 32]


def test_examples_are_prompt_completion_and_right_tokens() -> None:
    worst = pd.DataFrame(
        {"loss": [2.9], "label": ["10 tokens"], "prediction": ["8 tokens"], "text": ["a2:"], "text_pair": ["aa"]}
    )
    rows = results.as_written(worst)
    assert rows.to_dict("records") == [{"loss": 2.9, "right tokens": "8 of 10", "prompt": "a2:", "completion": "aa"}]
    changed = pd.DataFrame({"true": ["9 tokens"], "prediction before": ["0"], "prediction after": ["8"], "text": ["x"]})
    records = results.as_written(changed).to_dict("records")
    assert records == [{"right tokens before": "0 of 9", "right tokens after": "8 of 9", "text": "x"}]


def events(*steps: tuple[int, list[dict[str, Any]]]) -> pd.DataFrame:
    return pd.DataFrame({"step": [step for step, _ in steps], "payload": [{"rows": rows} for _, rows in steps]})


def row(place: int, text: str, right: bool | None = None) -> dict[str, Any]:
    return {"row": place, "group": "a", "prompt": "p", "expected": "e", "text": text, "ended": True, "right": right}


@given(st.text("ab \n", max_size=30), st.text("ab \n", max_size=30))
def test_the_pieces_of_a_text_are_the_text(before: str, after: str) -> None:
    pieces = changes(before, after)
    assert "".join(piece for piece, _ in pieces) == after
    assert any(new for _, new in pieces) <= (before != after)
    if before == after:
        assert not any(new for _, new in pieces)


@pytest.mark.parametrize(
    ("steps", "caption"),
    [
        (
            [(0, [row(1, "x", False)] * 4), (9, [row(1, "y", True)] * 2 + [row(2, "z", False)] * 2)],
            "At step 9, 2 of 4 answers are correct (95 % CI 15 % to 85 %); at step 0, 0 of 4.",
        ),
        ([(0, [row(1, "x")]), (3, [row(1, "y")])], "1 of 1 texts are other ones at step 3 than at step 0."),
        ([(0, [row(1, "x")])], "The model continued 1 prompts at step 0."),
    ],
)
def test_the_conclusion_counts(steps: list[tuple[int, list[dict[str, Any]]]], caption: str) -> None:
    assert conclusion(by_step(events(*steps))) == caption


def test_what_is_no_text_is_left_out() -> None:
    texts = by_step(pd.DataFrame({"step": [3, 1, 2], "payload": [{"rows": [row(0, "a"), 7]}, "x", {"rows": 3}]}))
    assert list(texts) == [3]
    assert [text.text for text in texts[3]] == ["a"]
    assert by_step(events((0, [{"text": None, "row": "no", "right": 1}])))[0][0].right is None


def test_texts_are_beside_those_of_the_first_evaluation() -> None:
    steps = by_step(events((0, [row(5, "old")]), (2, [row(5, "new", False), row(6, "more")])))
    table = beside_first(steps[2], steps[0])
    assert table[["at first", "now", "correct"]].to_numpy().tolist() == [["old", "new", "no"], ["", "more", "–"]]
