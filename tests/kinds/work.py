"""A run of any kind, made and worked on to its end in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora.jobs import kinds as jobs
from dynlora.kinds.registry import registry
from dynlora.kinds.settings import KindSettings


def work(settings: KindSettings, runs_dir: Path) -> Any:
    """Make a run and return its outcome."""
    return registry()[settings.kind].resume(jobs.create(settings, runs_dir, "running"), is_new=True)
