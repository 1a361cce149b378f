"""What the shift lab computes before it draws, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dynlora.analysis import inputs
from dynlora.errors import DataError
from dynlora.viz import shift
from dynlora.viz.kit import theme
from dynlora.viz.playground import figures as playground_figures
from dynlora.viz.playground.model import Task
from tests.summaries import summary_with

MODULES = pd.DataFrame(
    {"position": [1, 0], "name": ["l.0.key", "l.0.query"], "short": ["key 0", "query 0"], "layer": [0, 0]}
)
GOOD = Task("classification", ("bad", "good"), paired=False)
SUMMARY = {"config": {"data": {"train_groups": ["short"]}}}


def by_group(first: Any, second: Any) -> dict[str, Any]:
    """Return what the child says of two groups with these gates."""
    part = {"rows": 4, "metrics": {"accuracy": 0.5}}
    return {
        "whole": {**part, "gate": first},
        "groups": {"short": part | {"gate": first}, "long": part | {"gate": second}},
    }


def test_metrics_of_two_states_and_their_change() -> None:
    states = {"a": {"metrics": {"loss": 1.0}}, "b": {"metrics": {"loss": 1.5, "accuracy": None}}}
    frame = shift.metric_table(states)
    assert frame["metric"].tolist() == ["loss", "accuracy"]
    assert frame["change"].iloc[0] == 0.5
    assert shift.gate_distance({"gate": [1.0, None]}, {"gate": [1.5, 1.0]}) == 0.5
    assert shift.gate_distance({"gate": None}, {"gate": [1.0]}) is None


def test_gates_of_the_groups_are_drawn_and_the_widest_gap_is_named() -> None:
    gates = shift.group_gates(by_group([1.0, 1.1], [1.02, 0.9]), summary_with(SUMMARY), MODULES)
    assert gates.columns.tolist() == ["l.0.query", "l.0.key"]
    assert gates.index.tolist() == ["short", "long (not trained on)"]
    assert shift.group_gates_caption(gates, MODULES) == (
        "The mean gates of the groups differ most in key 0: short 1.1000, long (not trained on) 0.9000 (1 is neutral)."
    )
    drawn: Any = playground_figures.group_gates(gates, MODULES, theme.LIGHT)
    assert drawn.data[0].z.tolist() == [[1.1, 1.0], [0.9, 1.02]]
    assert shift.group_gates(by_group(None, None), summary_with(SUMMARY), MODULES).empty
    assert shift.group_table(by_group([1], [1]), summary_with(SUMMARY))["group"].tolist() == [
        "all",
        "short",
        "long (not trained on)",
    ]


@pytest.mark.parametrize(
    "config", [None, {}, {"data": None}, {"data": {"train_groups": None}}, {"data": {"train_groups": 3}}]
)
def test_groups_are_marked_only_where_some_were_left_out(config: Any) -> None:
    assert inputs.told_apart(["a", "b"], summary_with({"config": config})) == ["a", "b"]


def shifted(after: str, loss: float, changed: float = 0.0) -> str:
    """Return the sentence under a perturbation that leads from `good film` to `after`."""
    states = {
        "before": {"rows": 8, "metrics": {"loss": 0.5, "accuracy": 1.0}, "gate": None},
        "after": {"rows": 8, "metrics": {"loss": loss, "accuracy": 1.0}, "gate": None},
    }
    examples = [{"before": "good film", "after": after}, {"before": "it", "after": "it"}]
    return shift.shift_caption(
        {**states, "changed": changed, "kind": "upper", "strength": 0.5, "examples": examples}, "accuracy"
    )


def test_capitals_that_move_nothing_may_not_be_seen() -> None:
    note = "the tokenizer may ignore upper case"
    assert note in shifted("GOOD film", 0.5)
    assert note not in shifted("GOOD film", 0.6), "the loss moves: they are seen"
    assert note not in shifted("GOOD film", 0.5, changed=0.1)
    assert note not in shifted("good", 0.5), "cut, not in capitals"
    assert note not in shifted("good film", 0.5), "nothing was in capitals"


def test_embedded_data_is_offered_where_its_labels_fit() -> None:
    fits = Task("classification", ("negative", "positive"), paired=False)
    assert shift.embedded_data(fits, "other.csv") == {"sentiment4": {"name": "sentiment4"}}
    assert shift.embedded_data(Task(None, (), paired=False), None) == {"sentiment4": {"name": "sentiment4"}}
    assert shift.embedded_data(fits, "sentiment4") == {}
    for task in (GOOD, Task("regression", (), paired=False), Task("classification", fits.labels, paired=True)):
        assert shift.embedded_data(task, None) == {}


def test_sources_are_short_unless_two_are_called_the_same() -> None:
    words = shift.source_labels(["/a/reviews.csv", "/b/reviews.csv", "/c/tweets.csv", "nyu-mll/glue:sst2"])
    assert list(words.values()) == ["/a/reviews.csv", "/b/reviews.csv", "tweets.csv", "nyu-mll/glue:sst2"]


def test_a_file_is_read_by_the_columns_of_the_run_or_by_what_they_are_like(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("review,verdict\nthe film was great,good\nthe plot was dull,bad\n")
    section = shift.file_section(path, GOOD, {"text": "review", "label": "verdict"})
    assert section == {
        "path": str(path),
        "text": "review",
        "text_pair": None,
        "label": "verdict",
        "task": "classification",
        "group_by": "none",
        "eval_fraction": 0.5,
    }
    assert shift.file_section(path, GOOD, {"text": None, "label": "label"}) == section


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "does not exist"),
        ("text.md", "words", "is not a CSV"),
        ("empty.csv", "text,label\n", "has a header but no rows"),
        ("broken.jsonl", "{", "line 1: is not JSON"),
        ("single.csv", "text\nwords\n", "has no column for data.label"),
    ],
)
def test_a_file_that_does_not_fit_says_why(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        shift.file_section(path, GOOD, {})
    assert "\n" not in str(caught.value)


def test_pairs_need_a_column_of_second_texts(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2,label\na b,c d,good\n")
    pairs = Task("classification", ("bad", "good"), paired=True)
    assert shift.file_section(path, pairs, {})["text_pair"] == "sentence2"
    path.write_text("text,label\na b,good\n")
    with pytest.raises(DataError, match="no column for data.text_pair"):
        shift.file_section(path, pairs, {})
