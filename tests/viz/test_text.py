"""Sentences, labels and numbers as people read them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora import text as kit_text
from dynlora.analysis import run_summary, seed_groups
from dynlora.analysis.frames import csv_text, number_format
from dynlora.errors import ConfigError
from dynlora.viz.kit.charts import axis_within, limits
from dynlora.viz.launch import form_model


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (165888, "165,888"),
        (0.743, "0.743"),
        (1.79e-5, "1.79e-05"),
        (0, "0"),
        (1e308, "1.00e+308"),
        (10**18, "1.00e+18"),
    ],
)
def test_numbers(value: float | None, words: str) -> None:
    assert kit_text.number(value) == words


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("bert.encoder.layer.10.attention.self.query", "10.attention.self.query"),
        ("transformer.h.3.mlp.experts.7.up_proj", "3.mlp.experts.7.up_proj"),
        ("layer.0.query", "layer.0.query"),
        ("a heading of a column with 1.5 times as much", "a heading of a column with 1.5 times as much"),
    ],
)
def test_the_head_of_a_column_has_the_end_of_a_long_path(name: str, short: str) -> None:
    assert kit_text.short_path(name) == short


def test_small_words() -> None:
    assert kit_text.spans([5, 0, 1, 2, 2]) == "0\N{EN DASH}2, 5"
    assert kit_text.listed(["a", "b", "c", "d"], limit=2) == "a, b and 2 more"
    assert kit_text.listed([]) == "none"
    assert kit_text.duration(3725) == "1 h 2 min"
    assert kit_text.percent(0.9949) == "99.5 %"


def test_long_names_stay_distinct() -> None:
    alike = ["target for decoding, 160 steps", "target for decoding, 500 steps", "short"]
    assert kit_text.short_names(alike, 22) == ["target for…160 steps", "target for…500 steps", "short"]
    assert kit_text.short_names(["a very long name that is alone", "b"], 10) == ["a very lo…", "b"]
    inside = ["a name that differs in 1 of its middle parts only", "a name that differs in 2 of its middle parts only"]
    assert kit_text.short_names(inside, 20) == ["a name that dif… (1)", "a name that dif… (2)"]
    assert kit_text.short_names(["the same name"] * 2, 6) == ["the s…", "the s…"]
    assert all(len(name) <= 20 for name in kit_text.short_names([*inside, *alike], 20))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "5 s"),
        (38, "40 s"),
        (58, "1 min"),
        (1951, "33 min"),
        (3590, "1 h"),
        (6700, "2 h"),
        (5300, "1.5 h"),
        (90_000, "25 h"),
        (None, "–"),
    ],
)
def test_an_estimate_of_time_has_few_digits(seconds: float | None, words: str) -> None:
    assert kit_text.rough_duration(seconds) == words


def test_kinds_get_short_and_distinct_words() -> None:
    kinds = ["attention.self.query", "attention.output.dense", "output.dense", "mlp.down_proj", "strange.thing"]
    assert list(kit_text.kind_labels(kinds).values()) == [
        "query",
        "attn out",
        "output.dense",
        "mlp.down_proj",
        "strange.thing",
    ]
    assert kit_text.kind_labels(["attention.output.dense", "output.dense"])["output.dense"] == "ff out"


@pytest.mark.parametrize(
    ("text", "first", "rest"),
    [
        ("Loss fell. It rose again. Then it ended.", "Loss fell.", "It rose again. Then it ended."),
        ("Loss fell.", "Loss fell.", ""),
        ("Best for Dr. Who (0.900, n = 40). 1 is neutral.", "Best for Dr. Who (0.900, n = 40).", "1 is neutral."),
        ("Worst for Acme Inc. Reviews.", "Worst for Acme Inc. Reviews.", ""),
        ("J. Smith vs. others, 0.5. Éloge helps.", "J. Smith vs. others, 0.5.", "Éloge helps."),
        ("", "", ""),
    ],
)
def test_the_first_sentence_ends_at_no_abbreviation_of_a_name(text: str, first: str, rest: str) -> None:
    assert kit_text.first_sentence(text) == (first, rest)


def test_hostile_text() -> None:
    assert "<" not in kit_text.plotly_text("<b>$x$%{y}</b>").replace("&lt;", "")
    assert "$" not in kit_text.plotly_text("$x$")
    assert ":material/" not in kit_text.markdown_text(":material/home:")
    assert "\n" not in kit_text.markdown_text("a\nb\u202ec")
    assert len(kit_text.one_line("x" * 500, 50)) == 50
    assert "<b>" not in kit_text.plotly_lines("<b>" * 40, 20).replace("<br>", "")


def test_documentation_shows_names_as_code_and_nothing_else_of_markdown() -> None:
    documentation = "λ is 0 (8e-4: `travel` 4/3); `schedule: fixed` is *published*, `<b>` and `:red[x]` are not"
    markdown = kit_text.documentation_text(documentation)
    assert "`travel` 4/3" in markdown
    assert "`schedule: fixed` is " in markdown
    assert kit_text.markdown_text("*published*, `<b>` and `:red[x]` are not") in markdown
    assert kit_text.documentation_text("x" * 3000).endswith("xxx"), "whole, not cut"


def test_csv_holds_no_formula() -> None:
    text = csv_text(pd.DataFrame({"=a": ["=cmd()", "+1", "fine"], "n": [-1, 2, 3]}))
    assert text.splitlines() == ["'=a,n", "'=cmd(),-1", "'+1,2", "fine,3"]


def test_progress_says_what_a_run_does_and_how_long_it_still_takes() -> None:
    summary = {"status": "running", "step": 5, "max_steps": 20}
    assert run_summary.format_progress(summary) == "step 5 of 20"
    assert run_summary.format_progress(summary, "Adding the adapters") == "step 5 of 20: Adding the adapters"
    busy = {"phase": "evaluating: answer 5 of 16", "remaining_s": 130.0}
    expected = "step 5 of 20: evaluating: answer 5 of 16, about 2 min remaining"
    assert run_summary.format_progress({**summary, "activity": busy}) == expected


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"confusion": [[1]], "labels": ["a", "b"]},
        {"confusion": "x", "labels": []},
        {"confusion": [["a", 1], [1, 2]], "labels": ["a", "b"]},
    ],
)
def test_a_broken_confusion_matrix_is_none(payload: dict) -> None:
    assert run_summary.confusion(payload) is None


def test_worst_examples_survive_nonsense() -> None:
    assert run_summary.worst({"worst": [1, {"text": 5, "loss": "x"}]})["text"].tolist() == ["5"]
    assert run_summary.worst({}).empty
    numbers = run_summary.worst({"worst": [{"label": 12345.678, "prediction": 1.06723952293396, "text": "a"}]})
    assert numbers[["label", "prediction"]].to_numpy().tolist() == [["12,346", "1.067"]]


@pytest.mark.parametrize(("text", "seeds"), [("0", [0]), ("0-2", [0, 1, 2]), ("0..2", [0, 1, 2]), ("3, 1,1", [1, 3])])
def test_seeds(text: str, seeds: list[int]) -> None:
    assert form_model.seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "-1", "1-", "0-999999999", "5-2", "1,,2", "²"])
def test_wrong_seeds_are_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match="seed"):
        form_model.seeds(text)


def test_fields_come_from_the_schema() -> None:
    lr = form_model.config_field("train.lr")
    assert (lr.type, lr.default, lr.gt, lr.le, lr.optional) == ("float", 2.5e-3, 0, 10, False)
    head = form_model.config_field("train.head_lr")
    assert (head.type, head.default, head.choices, head.optional) == ("str", "auto", (), True)
    steps = form_model.config_field("train.steps")
    assert (steps.type, steps.default, steps.optional) == ("int", None, True)
    assert form_model.config_field("train.schedule").choices == ("linear", "cosine", "constant")


def test_one_form_has_one_key() -> None:
    config = form_model.nested({"seed": 0})
    assert seed_groups.launch_key("a", config) == seed_groups.launch_key("a", dict(config))
    assert seed_groups.launch_key("a", config) != seed_groups.launch_key("a", {"seed": 1})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("minilm", "minilm"),
        ("nyu-mll/glue:sst2", "nyu-mll/glue:sst2"),
        ("/data/my rows.csv", "my rows.csv"),
        ("./rows/", "rows"),
        ("C:\\data\\rows.csv", "rows.csv"),
        ("/", "/"),
        ("?", "?"),
    ],
)
def test_a_path_is_called_by_its_last_part(source: str, name: str) -> None:
    assert kit_text.source_name(source) == name


@given(values=st.lists(st.floats(0.02, 1e6), min_size=1))
def test_a_format_shows_every_value_to_four_places_or_exactly(values: list[float]) -> None:
    column_format = number_format(pd.Series(values))
    written = [f"{value:,.0f}" if column_format == "localized" else column_format % value for value in values]
    back = [float(text.replace(",", "")) for text in written]
    assert np.allclose(back, values, rtol=0, atol=0.6e-4)


def test_an_axis_stays_within_what_its_metric_can_be() -> None:
    assert axis_within("accuracy") == {"autorangeoptions": {"clipmin": 0.0, "clipmax": 1.0}}
    assert axis_within("Accuracy (held-out)") == axis_within("f1")
    assert axis_within("accuracy", "matthews")["autorangeoptions"] == {"clipmin": -1.0, "clipmax": 1.0}
    assert axis_within("loss (nats)") == {"autorangeoptions": {"clipmin": 0.0}}
    assert axis_within("a number of a method") == axis_within() == axis_within("accuracy", "own") == {}
    assert limits("mse") == (0.0, None)
