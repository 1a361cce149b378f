"""Trains a run in a process that ends with its parent, at once: `python -m` this module, PID, ID, FOLDER.

A worker of a cluster may be killed, and its task is then given to another. The process that trained must not go on
beside that one, so the kernel is told to kill it when its parent has ended. The process then becomes `dynlora resume`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from dynlora.jobs.environment import python_command
from dynlora.jobs.queue import resume_command
from dynlora.store.schema import check_run_id

PR_SET_PDEATHSIG = 1
"""Of Linux, `man 2 prctl`: the signal that a process gets when its parent ends. It outlives exec."""


def command(run_id: str, runs_dir: Path) -> list[str]:
    """Return the command that trains a run in a child of this very process."""
    return python_command(__name__, str(os.getpid()), run_id, str(runs_dir))


def main(parent: int, run_id: str, runs_dir: Path, *more: str) -> None:
    """Tie this process to its parent, and become the one that trains.

    Args:
        parent: process id of the parent.
        run_id: of the run.
        runs_dir: folder of the runs.
        more: further arguments of `dynlora resume`.

    Raises:
        ConfigError: when the id cannot be one.
        OSError: when the kernel refuses.
    """
    check_run_id(run_id)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(1)  # it ended before the kernel knew
    arguments = [*resume_command(run_id, runs_dir), *more]
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
