"""One probe example in every run: found by its content, told with seed, prediction and loss."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dynlora.analysis.seed_groups import Group
from dynlora.viz.compare import cards

SUMMARIES = {run: {"seed": i, "labels": ["bad", "good"]} for i, run in enumerate("abc")}
GROUPS = [Group("dynamic", ("b",)), Group("lora", ("a", "c"))]


def frame(losses: list[float], predictions: list[float], texts: tuple[str, ...] = ("x", "y")) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": texts,
            "text_pair": None,
            "label": ["good", "bad"][: len(losses)],
            "loss": losses,
            "prediction": predictions,
            "probability": [0.75, np.nan][: len(losses)],
        }
    )


def test_only_runs_with_the_same_probe_set_are_set_side_by_side() -> None:
    frames = {"a": frame([1, 2], [1, 0]), "b": frame([1, 2], [1, 0], ("x", "z")), "c": frame([3, 2], [0, 0])}
    assert list(cards.shared_examples(frames)) == ["a", "c"]
    assert cards.shared_examples({"a": frame([], [], ()).iloc[:0]}) == {}


def test_an_example_is_told_by_configuration_and_seed() -> None:
    frames = {"a": frame([0.1, 2], [1, 0]), "b": frame([0.5, 2], [0, np.nan]), "c": frame([0.3, 2], [1, 0])}
    assert cards.most_disputed(frames) == 0
    rows = cards.in_every_run(frames, 0, GROUPS, SUMMARIES)
    assert rows.to_numpy().tolist() == [
        ["dynamic", 1, "bad", "no", 0.75, 0.5],
        ["lora", 0, "good", "yes", 0.75, 0.1],
        ["lora", 2, "good", "yes", 0.75, 0.3],
    ]
    caption = cards.sentence(rows)
    assert caption == "2 of 3 runs predict its label. Its loss runs from 0.1 (lora) to 0.5 (dynamic)."
    alike = cards.in_every_run(frames, 1, GROUPS, SUMMARIES)
    assert alike["right"].fillna("–").tolist() == ["–", "yes", "yes"]
    assert " in every run." in cards.sentence(alike)


def test_what_was_never_evaluated_says_so() -> None:
    frames = {run: frame([np.nan, np.nan], [np.nan, np.nan]) for run in "ab"}
    assert cards.most_disputed(frames) == 0
    assert "have not recorded" in cards.sentence(cards.in_every_run(frames, 0, GROUPS, SUMMARIES))
