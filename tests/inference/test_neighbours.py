"""Places in the plane of texts that the frozen model finds alike, with a stub in the place of umap-learn."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dynlora.errors import ConfigError
from dynlora.inference.session import LEAST_NEIGHBOURS, MAX_TEXTS, Examined
from tests.tiny import tiny_rows

TEXTS = [row["text"] for row in tiny_rows(40, seed=5)]


class StubUMAP:
    """Keeps what it was asked for, and returns the first two columns of what it was given."""

    settings: dict[str, Any]
    given: np.ndarray

    def __init__(self, **arguments: Any) -> None:
        """Keep the arguments."""
        type(self).settings = arguments

    def fit_transform(self, values: np.ndarray) -> np.ndarray:
        """Return (n, 2)."""
        type(self).given = np.asarray(values)
        return type(self).given[:, :2]


@pytest.fixture(scope="module")
def examined(trained_run: Path) -> Examined:
    """The trained run under examination."""
    return Examined(trained_run)


@pytest.fixture
def umap(monkeypatch: pytest.MonkeyPatch) -> type[StubUMAP]:
    """A module umap that is not umap-learn."""
    module = ModuleType("umap")
    module.UMAP = StubUMAP  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "umap", module)
    return StubUMAP


@pytest.mark.parametrize(("n", "near"), [(LEAST_NEIGHBOURS, 7), (15, 14), (16, 15), (40, 15)])
def test_each_text_has_a_place_near_to_its_neighbours(
    n: int, near: int, umap: type[StubUMAP], examined: Examined
) -> None:
    places = examined.neighbours(TEXTS[:n], None)
    assert umap.settings == {"n_neighbors": near, "random_state": examined.config.seed, "n_jobs": 1}
    assert np.array(places).shape == (n, 2)
    assert places == umap.given[:, :2].tolist()


def test_places_are_those_of_the_frozen_model(umap: type[StubUMAP], examined: Examined) -> None:
    examined.neighbours(TEXTS, None)
    frozen = umap.given
    assert frozen.shape[0] == len(TEXTS)
    assert np.ptp(frozen, axis=0).max() > 0, "texts must be told apart"
    with examined.model.adapters.disabled():
        examined.neighbours(TEXTS, None)
    assert umap.given == pytest.approx(frozen)
    assert all(module.enabled for module in examined.model.adapters)


def test_pairs_are_placed_by_both_texts(umap: type[StubUMAP], examined: Examined) -> None:
    examined.neighbours(TEXTS[:10], TEXTS[10:20])
    paired = umap.given
    examined.neighbours(TEXTS[:10], None)
    assert not np.allclose(umap.given, paired)


def test_what_is_no_number_is_nothing(
    umap: type[StubUMAP], examined: Examined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umap, "fit_transform", lambda _, values: np.full((len(values), 2), np.nan))
    assert examined.neighbours(TEXTS[:9], None) == [[None, None]] * 9


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (LEAST_NEIGHBOURS - 1, f"UMAP: 7 texts are too few; give at least {LEAST_NEIGHBOURS}"),
        (0, "give 1 to 500"),
        (MAX_TEXTS + 1, "501 given"),
    ],
)
def test_too_few_and_too_many_texts_are_refused(n: int, words: str, umap: type[StubUMAP], examined: Examined) -> None:
    with pytest.raises(ConfigError, match=words):
        examined.neighbours((TEXTS * 13)[:n], None)


def test_without_umap_it_says_how_to_get_it(examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match=r"umap-learn is not installed; pip install 'dynlora\[umap\]'"):
        examined.neighbours(TEXTS, None)
