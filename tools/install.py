"""Install the project into .venv and say what is happening; needs nothing but Python.

`python tools/install.py [extra]`. uv does it where it is on the path and nobody told pip where to look: uv reads
none of pip's configuration, so behind a mirror it would ask the wrong index. Otherwise pip does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
EVERY_S = 10.0
"""Seconds between lines where the output is no terminal."""

_STEP = re.compile(r"^\s*(?:Collecting|Downloading|Preparing|Installing|Building|Using cached|Resolved|Prepared)\b.*")


def pip_is_configured(environment: dict[str, str] | None = None) -> bool:
    """Say whether pip was told where packages are: by its variables, or by a configuration file."""
    environment = dict(os.environ) if environment is None else environment
    if any(name.startswith("PIP_") and "INDEX" in name or name == "PIP_FIND_LINKS" for name in environment):
        return True
    listed = subprocess.run(
        [str(PYTHON), "-m", "pip", "config", "list", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=False,
    )
    return any(word in listed.stdout for word in ("index-url", "find-links", "constraint", "no-index"))


def command(extra: str, uv: str | None, constraints: str) -> list[str]:
    """Return the command that installs the project with an extra.

    Args:
        extra: of pyproject.toml, or empty.
        uv: its program, or None for pip.
        constraints: file of versions, or empty.
    """
    target = f"{ROOT}[{extra}]" if extra else str(ROOT)
    limit = ["--constraint", constraints] if constraints else []
    if uv:
        return [uv, "pip", "install", "--python", str(PYTHON), *limit, "--editable", target]
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off"]
    return [*pip, *limit, "--editable", target]


def progress_lines(lines: Iterator[str], clock: Iterator[float]) -> Iterator[str]:
    """Yield what to show after each line of an installer: the step it is at, and for how long it has been going."""
    packages = 0
    start = next(clock)
    for line in lines:
        if line.startswith("Collecting "):
            packages += 1
        if _STEP.match(line):
            step = re.sub(r"\s*\(from .*|\s*--.*", "", line.strip())
            step = "Installing all of them" if step.startswith("Installing collected") else step[:60]
            yield f"{next(clock) - start:4.0f} s, {packages} packages looked up: {step}"


def seconds() -> Iterator[float]:
    """Yield the time."""
    while True:
        yield time.monotonic()


CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def what_takes_long(platform: str, is_configured: bool) -> str:
    """Return what most of the time goes into, and how there would be less of it.

    Args:
        platform: `sys.platform`.
        is_configured: whether pip was told where packages are, such as a CPU build of torch.
    """
    if platform == "linux" and not is_configured:
        return (
            "most of the time goes into torch's CUDA libraries, 2.5 GB to fetch; "
            f"without a GPU, PIP_EXTRA_INDEX_URL={CPU_INDEX} does without them"
        )
    return "one to two minutes the first time, most of it for torch"


def install(extra: str, constraints: str) -> int:
    """Install and show progress on standard error; return the installer's exit code, its last words on failure."""
    is_configured = pip_is_configured()
    uv = None if is_configured else shutil.which("uv")
    print(
        f"installing dynlora{f'[{extra}]' if extra else ''} into .venv with {'uv' if uv else 'pip'}; "
        + what_takes_long(sys.platform, is_configured),
        file=sys.stderr,
    )
    process = subprocess.Popen(
        command(extra, uv, constraints), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    output: list[str] = []
    is_terminal, last = sys.stderr.isatty(), time.monotonic()

    def lines() -> Iterator[str]:
        for line in process.stdout or ():
            output.append(line)
            yield line

    for progress in progress_lines(lines(), seconds()):
        if is_terminal:
            print(f"\r\x1b[K{progress[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            print(progress, file=sys.stderr, flush=True)
    code = process.wait()
    print(("\r\x1b[K" if is_terminal else "") + ("installed" if code == 0 else "".join(output[-30:])), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(install(sys.argv[1] if len(sys.argv) > 1 else "", os.environ.get("CONSTRAINTS", "")))
