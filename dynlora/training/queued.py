"""The whole check of a run that was put into the queue unchecked, while another run trains."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from dynlora.config_files import read_run_config
from dynlora.errors import DynloraError
from dynlora.jobs.queue import refuse
from dynlora.jobs.start_files import kept_start
from dynlora.store.schema import run_folder
from dynlora.training.plan import plan

NICE = 5
"""How far the priority is lowered: the run can wait, another one is training."""


def check_queued(runs_dir: Path, run_id: str) -> str | None:
    """Check a queued run whole; one that cannot be trained has failed then, unless it was begun meanwhile.

    Returns:
        Why it cannot be trained, in a sentence; None when it can.
    """
    folder = run_folder(runs_dir, run_id)
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(NICE)
    try:
        plan(read_run_config(folder), kept_start(folder))
    except DynloraError as error:
        refuse(folder, str(error))
        return str(error)
    return None
