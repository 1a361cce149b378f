"""A process that waits makes tokens of what may come: nothing is fetched, and training is the same with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynlora.config import parse_config
from dynlora.engine.data import packing
from dynlora.training import inputs
from dynlora.training.inputs import load_inputs
from tests.tiny import tiny_values

pytestmark = pytest.mark.usefixtures("no_kept_tokens")


@pytest.fixture
def values(tiny_bert: Path, tiny_data: Path) -> dict[str, Any]:
    """What the Launch page says of the tiny model and data."""
    config = tiny_values(tiny_bert, tiny_data)
    return {"model": config["model"], "data": config["data"], "seed": 0}


def test_a_run_takes_the_tokens_that_were_made(
    tiny_bert: Path, tiny_data: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs.make_tokens(values, is_wanted=lambda: True)
    monkeypatch.setattr(packing, "tokenize", None)  # nothing is left to be made
    loaded = load_inputs(parse_config(tiny_values(tiny_bert, tiny_data)))
    assert (len(loaded.encoded("train")), len(loaded.encoded("held_out"))) == (
        len(loaded.data.train),
        len(loaded.data.held_out),
    )


def test_other_data_takes_the_place_of_what_was_made(values: dict[str, Any]) -> None:
    inputs.make_tokens(values, is_wanted=lambda: True)
    assert len(packing._kept) == 2
    first = set(packing._kept)
    inputs.make_tokens({**values, "data": {**values["data"], "max_length": 8}}, is_wanted=lambda: True)
    assert len(packing._kept) == 2
    assert not first & set(packing._kept)


def test_nothing_is_begun_once_the_command_has_come(values: dict[str, Any]) -> None:
    inputs.make_tokens(values, is_wanted=lambda: False)
    assert packing._kept == {}


@pytest.mark.parametrize(
    ("part", "name"),
    [("model", "somebody/on-the-hub"), ("model", "minilm"), ("data", "somebody/rows"), ("data", "sentiment4")],
)
def test_nothing_is_fetched(
    values: dict[str, Any], part: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from the hub, and not what is embedded but not in the cache yet."""
    monkeypatch.setenv("DYNLORA_CACHE", str(tmp_path))

    def fetched(*_: object) -> None:
        raise AssertionError("something is resolved")

    monkeypatch.setattr(inputs, "read_data", fetched)
    monkeypatch.setattr(inputs, "resolve_model", fetched)
    inputs.make_tokens({**values, part: {"name": name}}, is_wanted=lambda: True)
    assert packing._kept == {}


def test_large_data_waits_until_it_is_asked_for(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_BYTES", 100)
    inputs.make_tokens(values, is_wanted=lambda: True)
    assert packing._kept == {}
