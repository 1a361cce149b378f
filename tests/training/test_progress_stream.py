"""Nobody reading the progress bar is no reason to stop training."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from dynlora.config import parse_config
from dynlora.training import run
from dynlora.training.progress_stream import QuietStream
from tests.tiny import tiny_values


class BrokenPipe(io.StringIO):
    """Takes one text, then its reader is gone."""

    def write(self, text: str) -> int:
        if self.getvalue():
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def test_it_passes_text_on_until_nobody_reads() -> None:
    pipe = BrokenPipe()
    stream = QuietStream(pipe)
    assert [stream.write("one"), stream.write("two")] == [3, 3]
    stream.flush()
    assert pipe.getvalue() == "one"


def test_a_run_goes_on_when_the_progress_bar_has_no_reader(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(tiny_values(tiny_bert, tiny_data, train__steps=5))
    monkeypatch.setattr(sys, "stderr", BrokenPipe())
    outcome = run.train(config, runs_dir, progress=True)
    assert (outcome.state, outcome.error) == ("finished", None)
