"""The Methods page with the real strategies: each one's documentation whole, and its names as code."""

from __future__ import annotations

import pytest

from dynlora import strategies
from dynlora.jobs import launch
from dynlora.viz.kit.text import documentation_text
from dynlora.viz.methods import model as methods_model
from tests.pages.app import open_page


def test_every_method_is_explained_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    described = [strategies.describe(name) for name in strategies.registry()]
    monkeypatch.setattr(launch, "catalog", lambda: {"strategies": described})
    shown = [caption.value for caption in open_page("methods").caption]
    assert not [text for text in shown if text.endswith("…")], "nothing is cut"
    assert not [text for text in shown if "\\`" in text], "what stands in backticks is code"
    for strategy in described:
        for paragraph in methods_model.how(strategy):
            assert documentation_text(paragraph) in shown
        departs = methods_model.departs(strategy)
        assert not departs or any(text.endswith(documentation_text(departs)) for text in shown)
