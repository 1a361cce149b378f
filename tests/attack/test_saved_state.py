"""A saved adapter of a stranger's: whatever its state.json says, loading ends in a model or in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynlora.engine.loop.adapter_state import saved_sizes
from dynlora.errors import CorruptRunError, DynloraError
from dynlora.inference.session import load_run
from dynlora.store.lifecycle import annotate
from dynlora.training import run

Place = tuple[Any, ...]
GONE = "gone"
VALUES: list[Any] = [GONE, 10**12, -1, "a text", None, {"list": []}, {"dict": []}, True, 0.5, 1e308, {"tensor": "no"}]


def places(packed: Any, here: Place = (), depth: int = 0) -> Iterator[Place]:
    """Yield where each value of a packed state lies, of lists of modules the first module's only."""
    if not isinstance(packed, dict) or "dict" not in packed or depth > 4:
        return
    entries = packed["dict"]
    for number, (_, value) in enumerate(entries[:1] if here[-1:] == ("modules",) else entries):
        place = (*here, entries[number][0])
        yield place
        yield from places(value, place, depth + 1)


def spoil(packed: Any, place: Place, value: Any) -> None:
    """Put a value in a place of a packed state, or take what is there away."""
    for key in place[:-1]:
        packed = next(item for name, item in packed["dict"] if name == key)
    packed["dict"] = [
        [name, value if name == place[-1] else item]
        for name, item in packed["dict"]
        if name != place[-1] or value != GONE
    ]


@pytest.fixture
def folder(trained_run: Path, runs_dir: Path) -> Path:
    copy = Path(shutil.copytree(trained_run, runs_dir / trained_run.name))
    shutil.rmtree(copy / "checkpoint")
    return copy


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.torture)])
def test_a_state_that_is_damaged_key_by_key_is_refused_in_a_sentence(every: int, folder: Path) -> None:
    """A missing key left a trace; a rank of 10^12 was asked of the memory."""
    path = folder / "adapter" / "state.json"
    whole = json.loads(path.read_text())
    places_of_state = list(places(whole["state"]))
    assert {place[0] for place in places_of_state} >= {"adapters", "head", "labels", "task", "step", "metrics"}
    assert {place[-1] for place in places_of_state} >= {
        "rank",
        "max_rank",
        "probes",
        "scaling",
        "lora_A",
        "own",
        "gates",
    }
    refused = 0
    for number, place in enumerate(places_of_state[::every]):
        for value in VALUES if number % 6 == 0 else VALUES[:3]:
            spoilt = json.loads(json.dumps(whole))
            spoil(spoilt["state"], place, value)
            path.write_text(json.dumps(spoilt))
            try:
                load_run(folder)
            except DynloraError:
                refused += 1
    assert refused > len(places_of_state[::every])


@pytest.mark.parametrize("size", [10**12, 2**40, -1, None, "8", True])
def test_a_size_is_bounded_before_memory_is_asked_for(size: Any) -> None:
    kept = {"rank": 2, "max_rank": size, "lora_A": None, "lora_B": None}
    with pytest.raises(CorruptRunError, match="invalid"):
        saved_sizes({"modules": {"a": kept}})
    assert saved_sizes({"modules": {"a": {**kept, "max_rank": 8}}}) == {"a": (2, 8)}
    with pytest.raises(CorruptRunError, match="no module b"):
        saved_sizes({"modules": {}})["b"]


@pytest.mark.parametrize("key", ["step", "adapters", "head"])
def test_a_checkpoint_without_a_part_is_not_gone_on_with(key: str, trained_run: Path, runs_dir: Path) -> None:
    folder = Path(shutil.copytree(trained_run, runs_dir / trained_run.name))
    path = folder / "checkpoint" / "state.json"
    spoilt = json.loads(path.read_text())
    spoil(spoilt["state"], (key,), GONE)
    path.write_text(json.dumps(spoilt))
    annotate(folder, state="stopped")
    with pytest.raises(CorruptRunError, match=f"its {key} is missing"):
        run.resume(runs_dir, folder.name)
