"""Benchmarks that take long continue where they were stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import compress
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
