"""A run's adapter as one file, made by a child that has torch."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from dynlora.errors import storing
from dynlora.jobs.cli_client import answer_of

TIMEOUT_S = 600.0
"""Seconds that an export may take: it evaluates the held-out examples, twice where there are gates."""


def export_command(folder: Path, out: Path, format: str) -> list[str]:
    """Return the command that writes a run's last adapter.

    Args:
        folder: of the run.
        out: folder or .zip file to write.
        format: peft or merged.
    """
    command = [sys.executable, "-m", "dynlora", "export", folder.name, "--out", str(out), "--format", format, "--json"]
    return [*command, "--runs-dir", str(folder.parent)]


def exported(folder: Path, format: str) -> bytes:
    """Return the .zip file of a run's last adapter, as `dynlora export` writes it.

    Args:
        folder: of the run.
        format: peft or merged.

    Raises:
        ConfigError: when the run has no adapter, or the format cannot hold it; the text is the child's sentence.
        StorageError: when there is no room for the file.
        DynloraError: when the child fails or takes too long.
    """
    with storing("the exported adapter"), tempfile.TemporaryDirectory(prefix="dynlora-export-") as place:
        out = Path(place) / f"{folder.name}-{format}.zip"
        answer_of(export_command(folder, out, format), TIMEOUT_S, "the adapter was not exported")
        return out.read_bytes()


def compressed(folder: Path, share: float, rows: int, weighting: str) -> bytes:
    """Return the .zip file of a run's adapter at a share of its parameters, as `dynlora compress` writes it.

    Args:
        folder: of the run.
        share: of the parameters, 0 to 1.
        rows: held-out examples that its cost is measured on.
        weighting: what a component's effect is measured by.

    Raises:
        ConfigError: when the adapter cannot be taken apart; the text is the child's sentence.
        StorageError: when there is no room for the file.
        DynloraError: when the child fails or takes too long.
    """
    with storing("the compressed adapter"), tempfile.TemporaryDirectory(prefix="dynlora-export-") as place:
        out = Path(place) / f"{folder.name}-small.zip"
        command = [sys.executable, "-m", "dynlora", "compress", folder.name, "--budget", f"{share:g}"]
        command += ["--rows", str(rows), "--weighting", weighting, "--out", str(out), "--json"]
        command += ["--runs-dir", str(folder.parent)]
        answer_of(command, TIMEOUT_S, "the adapter was not compressed")
        return out.read_bytes()
