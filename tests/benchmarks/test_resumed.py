"""Benchmarks that take long continue where they were stopped, and a search is counted right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import compress, results, search
from benchmarks.kept_runs import KeptRuns


def test_what_compress_has_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measurements: list[tuple[str, int]] = []

    def one(data: str, seed: int, *_: Any) -> dict[str, Any]:
        measurements.append((data, seed))
        return {"full": {"parameters": 8, "loss": [0.25, 0.5]}}

    monkeypatch.setattr(compress, "one", one)
    setting, kept = compress.Setting(40, 200), KeptRuns.below(tmp_path)
    first = compress.kept("/data/sst2", 0, setting, tmp_path, kept)
    assert compress.kept("/elsewhere/sst2", 0, setting, tmp_path, kept) == first
    compress.kept("/data/sst2", 1, setting, tmp_path, kept)
    compress.kept("/data/sst2", 0, compress.Setting(80, 200), tmp_path, kept)
    assert measurements == [("/data/sst2", 0), ("/data/sst2", 1), ("/data/sst2", 0)]


def test_the_interval_over_seeds_is_that_of_students_t() -> None:
    mean, low, high = search.over_seeds(np.array([-0.03, -0.05, -0.01]))
    assert mean == pytest.approx(-0.03)
    assert (high - low) / 2 == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)


def test_the_results_of_a_search_are_written_in_the_form_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = json.loads((results.RESULTS / "search.json").read_text("utf-8"))
    trial = {"run": "a", "state": "complete"}
    seeds = [{"best": "a", "default": "b"}] * 3
    study = {"trials": [trial], "seeds": seeds, "default": {}, "best": {}, "importance": {}}
    monkeypatch.setattr(search, "list_runs", lambda folder: ["a", "b"])
    monkeypatch.setattr(search, "run_summary", lambda folder: {"metrics": {"loss": 0.5}})
    figures = search.figures_of({"studies": [study], "comparisons": [{}]}, tmp_path, search.Size(1, 1, 40, 9), 1)
    assert list(figures) == list(committed["figures"])
    assert figures["seeds"] == committed["figures"]["seeds"] == 3
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    for where in ([], ["--runs-dir", str(tmp_path / "runs")], [f"--runs-dir={tmp_path}"]):
        monkeypatch.setattr("sys.argv", ["search", *where])
        written = json.loads(results.write("search", figures, search.MODULE, search.PLACES).read_text("utf-8"))
        assert (list(written), written["command"]) == (list(committed), committed["command"])
    monkeypatch.setattr("sys.argv", ["search", "--runs-dir", str(tmp_path), "--trials", "4"])
    path = results.write("search", figures, search.MODULE, search.PLACES)
    assert json.loads(path.read_text("utf-8"))["command"] == "python -m benchmarks.search --trials 4"
