"""`make demo` and `make test` say what they install; uv where it is there and pip was not told where to look."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tools import install

PIP_SAYS = [
    "Obtaining file:///somewhere",
    "  Installing build dependencies: started",
    "Collecting accelerate>=1.1 (from dynlora)",
    "  Downloading accelerate-1.15.0-py3-none-any.whl (3 kB)",
    "Requirement already satisfied: x",
    "Collecting torch>=2.6 (from dynlora==0.1.0)",
    "Installing collected packages: a, b, c, d",
]


def test_a_line_says_where_it_is() -> None:
    lines = list(install.progress_lines(iter(PIP_SAYS), iter(itertools.count(0.0, 2.0))))
    assert lines[-1].endswith("2 packages looked up: Installing all of them")
    assert any("Collecting torch" in line and "from" not in line for line in lines)
    assert [float(line.split()[0]) for line in lines] == sorted(float(line.split()[0]) for line in lines)


@pytest.mark.parametrize(
    ("extra", "target"), [("", install.ROOT.as_posix()), ("test", f"{install.ROOT.as_posix()}[test]")]
)
def test_the_same_is_installed_by_either(extra: str, target: str) -> None:
    for uv in (None, "/usr/bin/uv"):
        arguments = install.command(extra, uv, "constraints.txt")
        assert arguments[-2:] == ["--editable", target]
        assert arguments[arguments.index("--constraint") + 1] == "constraints.txt"
    assert "--constraint" not in install.command(extra, None, "")


def test_it_says_what_takes_the_time_and_how_to_do_without() -> None:
    assert install.CPU_INDEX in install.what_takes_long("linux", is_configured=False)
    for platform, is_configured in (("linux", True), ("darwin", False)):
        assert "CUDA" not in install.what_takes_long(platform, is_configured)


def test_where_pip_was_told_to_look_pip_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(install, "PYTHON", tmp_path / "no-python")
    assert install.pip_is_configured({"PIP_INDEX_URL": "https://mirror"})
    assert install.pip_is_configured({"PIP_FIND_LINKS": "/wheels"})
