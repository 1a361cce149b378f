"""Benchmarks that take long continue where they were stopped, and a search is counted right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import compress, search
from benchmarks.kept_runs import KeptRuns


def test_what_compress_has_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def one(data: str, seed: int, *_: Any) -> dict[str, Any]:
        asked.append((data, seed))
        return {"full": {"parameters": 8, "loss": [0.25, 0.5]}}

    monkeypatch.setattr(compress, "one", one)
    setting, kept = compress.Setting(40, 200), KeptRuns.below(tmp_path)
    first = compress.kept("/data/sst2", 0, setting, tmp_path, kept)
    assert compress.kept("/elsewhere/sst2", 0, setting, tmp_path, kept) == first
    compress.kept("/data/sst2", 1, setting, tmp_path, kept)
    compress.kept("/data/sst2", 0, compress.Setting(80, 200), tmp_path, kept)
    assert asked == [("/data/sst2", 0), ("/data/sst2", 1), ("/data/sst2", 0)]


def test_the_interval_over_seeds_is_that_of_students_t() -> None:
    mean, low, high = search.over_seeds(np.array([-0.03, -0.05, -0.01]))
    assert mean == pytest.approx(-0.03)
    assert (high - low) / 2 == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)
