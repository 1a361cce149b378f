"""What the Playground reads of files and computes of answers, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.errors import ConfigError, DynloraError
from dynlora.kinds.train.panels.effects import effect_maps
from dynlora.viz.kit import theme
from dynlora.viz.playground import figures
from dynlora.viz.playground import model as kit_task
from dynlora.viz.playground import model as playground_model
from tests.summaries import summary_with
from tests.viz.drawn import layout_of, traces_of

MODULES = pd.DataFrame({"position": [1, 0], "short": ["key 0", "query 0"], "label": ["key", "query"], "layer": [0, 0]})


def test_files_of_each_kind() -> None:
    assert playground_model.texts_of("a.txt", b"one\n\n two \n") == playground_model.Texts(["one", "two"], None, 2)
    assert playground_model.texts_of("a.CSV", b'label,text\n1,one\n0,"t,wo"\n') == playground_model.Texts(
        ["one", "t,wo"], None, 2
    )
    pairs = playground_model.texts_of("a.jsonl", b'{"sentence1": "a", "sentence2": "b"}\n', paired=True)
    assert pairs == playground_model.Texts(["a"], ["b"], 1)
    assert pairs.words == "1 row."


def test_a_file_of_more_rows_says_how_many_are_left_out() -> None:
    texts = playground_model.texts_of("a.txt", b"x\n" * 900)
    assert len(texts.texts) == playground_model.MOST_ROWS
    assert texts.words.startswith("The first 200 of 900 rows")


def test_pairs_and_single_texts_are_not_taken_for_one_another() -> None:
    both = b"sentence1,sentence2\na,b\n"
    with pytest.raises(ConfigError, match=r"has second texts \(sentence2\), but this run reads single texts"):
        playground_model.texts_of("a.csv", both)
    for name, data in (("a.txt", b"one\n"), ("a.csv", b"text\none\n")):
        with pytest.raises(ConfigError, match="this run reads pairs of texts"):
            playground_model.texts_of(name, data, paired=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"c,", "row 2 has no second text"),
        (b",d", "row 2 has no text"),
        (b"c," + b"d" * 20_001, "the second text of row 2 has 20,001 characters"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(row: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        playground_model.texts_of("a.csv", b"sentence1,sentence2\na,b\n" + row + b"\n", paired=True)


OWN = "\ufeffticket_id;message;queue\n1;the door; it jams;2\n".replace("the door; it jams", '"the door; it jams"')


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_file_that_a_run_learned_from_is_read_by_the_runs_own_column(encoding: str) -> None:
    own = playground_model.own_columns(summary_with({"config": {"data": {"text": "message"}}}))
    texts = playground_model.texts_of("a.csv", OWN.encode(encoding), own=own)
    assert texts == playground_model.Texts(["the door; it jams"], None, 1)
    message = "needs a column message or text or sentence or sentence1; it has id and body; rename .* to message"
    with pytest.raises(ConfigError, match=message):
        playground_model.texts_of("a.csv", b"id,body\n1,x\n", own=own)
    both = playground_model.texts_of("a.csv", b"message;text;sentence2\none;two;three\n", own=own)
    assert both.texts == ["one"], "a second text stood in the training file, too"
    assert playground_model.holds(own, paired=False) == "One text per line, or a column message"


def test_pairs_are_found_by_the_runs_own_columns_or_as_training_finds_them() -> None:
    own = playground_model.own_columns(summary_with({"config": {"data": {"text": "a", "text_pair": "b"}}}))
    texts = playground_model.texts_of("a.csv", b"text;b;a\n1;two;one\n", paired=True, own=own)
    assert (texts.texts, texts.pairs) == (["one"], ["two"])
    texts = playground_model.texts_of("a.csv", b"hypothesis,premise\ntwo,one\n", paired=True)
    assert (texts.texts, texts.pairs) == (["one"], ["two"])
    with pytest.raises(ConfigError, match=r"reads pairs of texts; it has a and c; give the columns a and b"):
        playground_model.texts_of("a.csv", b"a,c\n1,2\n", paired=True, own=own)
    assert playground_model.holds(own, paired=True) == "Columns a and b"
    assert playground_model.own_columns(summary_with({"config": {"data": {"text": ["a"]}}})) == (None, None)


def test_everyone_has_a_column_in_the_table_of_a_file() -> None:
    yes = {"text": "a", "prediction": "good", "probabilities": {"bad": 0.25, "good": 0.75}}
    frame = playground_model.answer_table({"adapter": [yes], "base model with head": [{**yes, "prediction": "bad"}]})
    assert frame.to_dict("records") == [
        {"text": "a", "prediction": "good", "certainty": 0.75, "base model with head": "bad"}
    ]
    numbers = playground_model.answer_table({"adapter": [{"text": "a", "prediction": 0.5}]})
    assert numbers["prediction"].tolist() == [0.5]


def task(**more: Any) -> kit_task.Task:
    """Return the task of a run."""
    examples = pd.DataFrame({"text_pair": [None]})
    return playground_model.task_of(
        summary_with({"task": "classification", "labels": ["good", "bad"], "config": {}} | more), examples
    )


def test_answers_are_compared_where_the_task_is_the_same() -> None:
    own = task()
    assert task(labels=["bad", "good"]) == own, "the order is the model's own affair"
    for other in (
        task(labels=["negative", "positive"]),
        task(task="regression", labels=[]),
        task(config={"data": {"text_pair": "question2"}}),
    ):
        assert other != own
    assert "with the labels negative and positive" in playground_model.not_comparable(
        own, task(labels=["negative", "positive"])
    )
    assert "cannot be read" in playground_model.not_comparable(own, None)
    assert task(task=None).kind == "classification", "runs of earlier versions"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"\xff\xfe\x00", "save it as UTF-8"),
        ("a.txt", b"\n \n", "has no text"),
        ("a.csv", b"words\nx\n", "needs a column text"),
        ("a.jsonl", b"{", "line 1: is not JSON"),
        ("a.txt", b"x" * (playground_model.MAX_FILE_BYTES + 1), "at most"),
    ],
)
def test_files_that_cannot_be_read_say_why(name: str, data: bytes, message: str) -> None:
    with pytest.raises(DynloraError, match=message):
        playground_model.texts_of(name, data)


@given(st.sampled_from(["a.csv", "a.jsonl", "a.txt"]), st.binary(max_size=200), st.booleans())
def test_any_file_is_read_or_refused(name: str, data: bytes, paired: bool) -> None:
    try:
        texts = playground_model.texts_of(name, data, paired=paired)
    except DynloraError:
        return
    assert texts.texts
    assert (texts.pairs is not None) == paired
    assert texts.pairs is None or len(texts.pairs) == len(texts.texts)


def test_modules_that_carry_an_answer() -> None:
    modules = {"margin": 2.0, "without": [1.5, -1.0], "flipped": [False, True]}
    frame = playground_model.without_modules(modules, MODULES)
    assert frame["adds"].tolist() == [3.0, 0.5]
    assert frame["flips"].tolist() == [True, False]
    caption = playground_model.modules_caption(frame, "log-odds")
    assert "Without key 0 the prediction changes (1 module, in orange)" in caption
    drawn: Any = figures.module_bars(frame, "log-odds", theme.LIGHT)
    assert {bars.name: (list(bars.x), list(bars.y)) for bars in drawn.data} == {
        "Prediction does not change without it": ([1], [0.5]),
        "Prediction changes without it": ([0], [3.0]),
    }


def test_a_text_is_drawn_beside_the_probe_examples_on_one_scale() -> None:
    more = pd.DataFrame(
        {
            "position": [3, 1, 0, 2],
            "label": ["key", "key", "query", "query"],
            "layer": [1, 0, 0, 1],
            "short": ["key 1", "key 0", "query 0", "query 1"],
        }
    )
    effects = {"This text": playground_model.numbers_of([0.1, 0.2, None, 0.4]), "Probe": np.full(4, 0.8)}
    drawn = effect_maps(effects, more, theme.LIGHT)
    text, probe = (np.asarray(trace.z, float) for trace in traces_of(drawn))
    assert text[0].tolist() == [0.2, 0.4]
    assert text[1, 0] == 0.1
    assert np.isnan(text[1, 1])
    assert (probe == 0.8).all()
    assert layout_of(drawn).coloraxis.cmax == 0.8
    words = playground_model.effects_caption(*effects.values(), modules=more)
    assert "by 23.3 % on this text, 80.0 % on the probe examples, most in key 1" in words


@pytest.mark.parametrize(("n", "most", "count"), [(30, 12, 12), (13, 12, 12), (12, 12, 12), (1, 12, 1), (0, 12, 0)])
def test_the_first_and_the_last_layer_are_always_shown(n: int, most: int, count: int) -> None:
    layers = {f"layer {index}": [float(index)] for index in range(n)}
    layers_kept = list(figures.thinned(layers, most))
    assert len(layers_kept) == count
    assert layers_kept[:1] == list(layers)[:1]
    assert layers_kept[-1:] == list(layers)[-1:]


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
