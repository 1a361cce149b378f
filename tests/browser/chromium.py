"""Find a Chromium for the browser tests, or install one where that is allowed.

`python -m tests.browser.chromium` is run by `make test`; the tests themselves only look.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
INSTALL_TIMEOUT_S = 600


def find_chromium() -> str | None:
    """The path of a Chromium: `$CHROMIUM`, one on the PATH, or Playwright's own."""
    if (named := os.environ.get("CHROMIUM")) and shutil.which(named):
        return shutil.which(named)
    for name in NAMES:
        if (path := shutil.which(name)) and _starts(path):
            return path
    return _playwright_chromium()


def _starts(path: str) -> bool:
    """Whether it is a browser; Ubuntu's `chromium-browser` may be a script that only asks for a snap."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and any(char.isdigit() for char in done.stdout)


def _playwright_chromium() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def install_chromium() -> str | None:
    """Install Debian's Chromium as root, else Playwright's; return its path, or None when neither is to be had."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _run(["apt-get", "update", "-qq"], environment)
        packages = ["chromium", "fonts-dejavu-core"]
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], environment)
        if path := find_chromium():
            return path
    _run([sys.executable, "-m", "playwright", "install", "chromium"], dict(os.environ))
    return find_chromium()


def _run(command: list[str], environment: dict[str, str]) -> None:
    try:
        subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{' '.join(command)}: {error}\n")


def main() -> int:
    """Say which browser the tests will use; exit 1 when there is none and `CI` is set."""
    path = find_chromium() or install_chromium()
    if path:
        sys.stderr.write(f"browser tests use {path}\n")
        return 0
    sys.stderr.write(
        "\n*** No Chromium found and none could be installed: THE BROWSER TESTS WILL BE SKIPPED. ***\n"
        "*** Install chromium, or name one in the variable CHROMIUM. ***\n\n"
    )
    return 1 if os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
