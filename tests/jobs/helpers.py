"""Real processes that stand where a helper of dynlora's would: each takes up its record and does what it is told."""

from __future__ import annotations

import sys

BEGIN = "from dynlora.errors import *\nfrom dynlora.jobs import helper_job\nhelper_job.attach()\n"


def helper(program: str, *arguments: str) -> list[str]:
    """Return the command of a helper that runs a program."""
    return [sys.executable, "-c", BEGIN + program, *arguments]


def waits(done: int = 3, of: int = 8, phase: str = "looking at gradients") -> list[str]:
    """Return the command of a helper that says how far it is, and goes on."""
    return helper(f"helper_job.tell({done}, {of}, {phase!r})\nimport time; time.sleep(3600)")


def fails(message: str) -> list[str]:
    """Return the command of a helper that is asked for something it cannot do."""
    return helper(f"helper_job.fail(ConfigError({message!r})); raise SystemExit(2)")
