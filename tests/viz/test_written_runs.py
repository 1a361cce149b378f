"""Figures, tables and sentences of runs that learn to write: perplexity is better when lower, and has its own scale."""

from __future__ import annotations

import pandas as pd
import pytest

from dynlora.analysis import results, run_summary
from dynlora.kinds.train.panels import training
from dynlora.store import search
from dynlora.viz.kit.charts import limits
from dynlora.viz.kit.theme import LIGHT
from dynlora.viz.run import result_figures
from tests.viz.drawn import layout_of, traces_of


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
    assert (layout["yaxis"]["title"]["text"], layout["yaxis2"]["title"]["text"]) == ("Perplexity", "Score")
    assert layout["yaxis"]["type"] == "log"
    assert {"20", "50", "100", "200"} <= set(layout["yaxis"]["ticktext"]), "every tick can be read alone"
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1], "the panels do not overlap"
    assert layout["xaxis"]["anchor"] == "y2"


def test_the_legend_has_the_names_of_the_metrics() -> None:
    drawn = training.metric_lines(
        metrics(brier=[0.3], ece=[0.1], macro_f1=[0.4], matthews=[0.2], exact_match=[1]), LIGHT
    )
    assert [trace["name"] for trace in traces_of(drawn)] == [
        "Brier score",
        "Calibration error (ECE)",
        "Macro F1",
        "Matthews correlation",
        "Exact match",
    ]


def test_fractions_alone_keep_one_panel() -> None:
    layout = layout_of(training.metric_lines(metrics(accuracy=[0.5, 0.7], macro_f1=[0.4, 0.6]), LIGHT))
    assert "yaxis2" not in layout
    assert layout["yaxis"]["title"]["text"] == "Score"


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
    with_counts = run_summary.with_rows(metrics(perplexity=[9.0, 8.0], exact_match=[0.1, 0.2]), summary)
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


def test_without_classes_no_example_is_called_wrong() -> None:
    named = pd.DataFrame(
        {"first_loss": [5.0], "last_loss": [2.0], "first": ["0"], "last": ["8"], "label": ["9 tokens"], "text": ["x"]}
    )
    drawn = result_figures.before_after(named, "Before", "After", "nats", LIGHT, has_classes=False)
    assert [trace["name"] for trace in traces_of(drawn)] == ["No change", "Example"]


def test_the_best_perplexity_can_be_searched_for() -> None:
    rows = [{"id": "a", "best": {"perplexity": 9.0}}, {"id": "b", "best": {"perplexity": 20.0}}]
    assert search.fits("best.perplexity<10", rows) == [True, False]
