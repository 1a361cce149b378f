"""What the Playground reads of files and computes of answers, by hand."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.errors import ConfigError
from dynlora.viz import playground, shifts, theme, token_view

MODULES = pd.DataFrame(
    {"position": [1, 0], "short": ["key 0", "query 0"], "label": ["key", "query"], "layer": [0, 0]}
)  # fmt: skip


def test_files_of_each_kind() -> None:
    assert playground.texts_of("a.txt", b"one\n\n two \n") == (["one", "two"], None)
    assert playground.texts_of("a.CSV", b'label,text\n1,one\n0,"t,wo"\n') == (["one", "t,wo"], None)
    pairs = playground.texts_of("a.jsonl", b'{"sentence1": "a", "sentence2": "b"}\n')
    assert pairs == (["a"], ["b"])
    assert len(playground.texts_of("a.txt", b"x\n" * 900)[0]) == playground.MOST_ROWS


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.txt", b"\xff\xfe", "UTF-8"),
        ("a.txt", b"\n \n", "holds no text"),
        ("a.csv", b"words\nx\n", "needs a column text"),
        ("a.jsonl", b"{", "is no JSONL"),
        ("a.jsonl", b"[1]", "no JSON object"),
        ("a.txt", b"x" * (playground.MAX_FILE_BYTES + 1), "at most"),
    ],
)
def test_files_that_cannot_be_read_say_why(name: str, data: bytes, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        playground.texts_of(name, data)


@given(st.sampled_from(["a.csv", "a.jsonl", "a.txt"]), st.binary(max_size=200))
def test_any_file_is_read_or_refused(name: str, data: bytes) -> None:
    try:
        texts, pairs = playground.texts_of(name, data)
    except ConfigError:
        return
    assert texts
    assert pairs is None or len(pairs) == len(texts)


def test_who_agrees() -> None:
    yes = {"prediction": "good", "probabilities": {"bad": 0.25, "good": 0.75}}
    no = {"prediction": "bad", "probabilities": {"bad": 0.9, "good": 0.1}}
    frame = playground.side_by_side({"adapter": yes, "base": no})
    assert playground.answers_sentence(frame) == "adapter says good (75.0 %); base says bad (90.0 %). They disagree."
    numbers = playground.side_by_side({"adapter": {"prediction": 0.5}})
    assert playground.answers_sentence(numbers) == "adapter: 0.500."


def test_modules_that_carry_an_answer() -> None:
    found = {"margin": 2.0, "without": [1.5, -1.0], "flipped": [False, True]}
    frame = playground.without_modules(found, MODULES)
    assert frame["adds"].tolist() == [3.0, 0.5]
    assert frame["flips"].tolist() == [True, False]
    assert "Without key 0 the answer is another (1 module)" in playground.modules_sentence(frame, "log-odds")


def test_tokens_wear_their_numbers_and_never_markup() -> None:
    tokens = [{"text": "<b>", "part": 0}, {"text": "[CLS]", "part": None}]
    html = token_view.sentence_html(tokens, {"a<b": [0.5, None]}, theme.LIGHT)
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert "a&lt;b" in html
    assert html.count("background:") == 1


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK])
def test_words_can_be_read_on_every_colour(colours: theme.Palette) -> None:
    for step in range(-10, 11):
        for back in (theme.diverging(colours, step / 10), theme.shade(colours, abs(step) / 10)):
            assert contrast(theme.ink_on(colours, back), back) >= 3.0


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours as WCAG defines it."""
    light = sorted((luminance(first), luminance(second)))
    return (light[1] + 0.05) / (light[0] + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_metrics_of_two_states_and_their_change() -> None:
    states = {"a": {"metrics": {"loss": 1.0}}, "b": {"metrics": {"loss": 1.5, "accuracy": None}}}
    frame = shifts.metric_table(states)
    assert frame["metric"].tolist() == ["loss", "accuracy"]
    assert frame["change"].iloc[0] == 0.5
    assert shifts.gate_distance({"gate": [1.0, None]}, {"gate": [1.5, 1.0]}) == 0.5
    assert shifts.gate_distance({"gate": None}, {"gate": [1.0]}) is None
