"""The Methods page with the real strategies: each one's documentation whole, and its names as code."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dynlora import strategies
from dynlora.jobs import launch
from dynlora.text import documentation_text
from dynlora.viz import methods as methods_model
from tests.pages.app import open_page, plain, words

ANCHORS = {
    "adalora": "ada-lo-ra",
    "aslora": "as-lo-ra",
    "beamlora": "beam-lo-ra",
    "diffora": "diffo-ra",
    "dynamic": "dynamic-lo-ra",
    "elalora": "ela-lo-ra",
    "eva": "eva",
    "gelora": "ge-lo-ra",
    "glora": "g-lo-ra",
    "gora": "go-ra",
    "l1ra": "l1-ra",
    "lora": "lo-ra",
    "lora_ensemble": "lo-ra-ensemble",
    "lora_sp": "lo-ra-sp",
    "sora": "so-ra",
    "xgblora": "xgb-lo-ra",
}
"""What streamlit made of the titles when the page left it to it: links by these keep working."""


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The real strategies, which the page shows."""
    methods = [strategies.describe(name) for name in strategies.registry()]
    monkeypatch.setattr(launch, "catalog", lambda: {"strategies": methods})
    return methods


def anchors(app: AppTest) -> list[str]:
    """Return the names in the anchors of the sections."""
    return [str(heading.anchor) for heading in app.subheader]


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ({"moves": "never", "fidelity": "reconstruction"}, []),
        ({"cost": "extra", "memory": "less", "task": "regression"}, ["lora_sp"]),
        ({"fidelity": "<b>"}, list(ANCHORS)),
    ],
)
def test_a_link_restores_the_filters(
    address: dict[str, str], names: list[str], described: list[dict[str, Any]]
) -> None:
    assert len(described) == len(ANCHORS)
    app = open_page("methods", **address)
    assert anchors(app) == [ANCHORS[name] for name in names]
    assert names or "No method fits all filters" in words(app)


def test_a_method_says_which_tasks_it_refuses(described: list[dict[str, Any]]) -> None:
    by_name = {one["name"]: one for one in described}
    assert methods_model.refused_tasks(by_name["lora_ensemble"]) == ["language modelling", "planted ranks"]
    assert methods_model.refused_tasks(by_name["lora"]) == []
    writing = anchors(open_page("methods", task="causal_lm"))
    assert writing == [ANCHORS[name] for name in ANCHORS if name != "lora_ensemble"]


def test_methods_that_miss_the_planted_ranks_are_shown_missing_them(described: list[dict[str, Any]]) -> None:
    board = methods_model.leaderboard()
    assert set(board["method"]) == {one["name"] for one in described} - {"lora_ensemble"} | {"planted ranks"}
    assert board["error"].is_monotonic_increasing
    sentence = methods_model.leaders(board.assign(recovered=[1, 0.5, 0.25, *[0] * (len(board) - 3)]))
    assert "dynamic recovers 0.50 of the headroom" in sentence
    assert "The next, adalora, recovers 0.25" in sentence
    assert methods_model.leaders(board) in plain(open_page("methods"))


def test_every_method_is_explained_whole_under_the_anchor_that_links_name(described: list[dict[str, Any]]) -> None:
    assert {one["name"]: methods_model.anchor(one) for one in described} == ANCHORS
    app = open_page("methods")
    assert anchors(app) == list(ANCHORS.values())
    captions = [caption.value for caption in app.caption]
    assert not [text for text in captions if text.endswith("…")], "nothing is cut"
    assert not [text for text in captions if "\\`" in text], "what stands in backticks is code"
    for strategy in described:
        for paragraph in methods_model.how(strategy):
            assert documentation_text(paragraph) in captions
        departs = methods_model.departs(strategy)
        assert not departs or any(text.endswith(documentation_text(departs)) for text in captions)
