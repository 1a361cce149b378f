"""What a plain installation brings along: its licences, its known vulnerabilities, and versions that worked together.

python -m tools.supply check         refuse other licences than those allowed here, and packages known to be vulnerable
python -m tools.supply write         write docs/LICENCES.md and constraints.txt from this environment

Licences are read by pip-licenses from the installed packages. Vulnerabilities come from PyPI's advisories through
pip-audit; behind a firewall or a mirror without them nothing can be said about a package, and that is said instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LICENCES = ROOT / "docs" / "LICENCES.md"
CONSTRAINTS = ROOT / "constraints.txt"

ALLOWED = (
    "Apache",
    "BSD",
    "MIT",
    "ISC",
    "MPL",
    "Mozilla",
    "PSF",
    "Python Software Foundation",
    "BSL-1.0",
    "Zlib",
    "CC0",
    "CNRI-Python",
    "LLVM-exception",
    "Unlicense",
    "HPND",
)
"""Words by which a licence is known that asks nothing of those who use the package unchanged but to keep its notice."""

GPU_LIBRARIES = ("nvidia-", "cuda-", "triton")
"""Packages that PyPI's torch brings on Linux under a licence of their maker: no part of dynlora."""


def closure(name: str, extras: Iterable[str] = ()) -> set[str]:
    """Return the canonical names of a distribution and of all that it requires here.

    Raises:
        PackageNotFoundError: when a required distribution is not installed.
    """
    names: set[str] = set()
    waiting = [(name, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        current, wanted = waiting.pop()
        if (current, wanted) in seen:
            continue
        seen.add((current, wanted))
        names.add(canonicalize_name(current))
        for text in metadata.requires(current) or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted or {""}):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return names


def of_makers(name: str) -> bool:
    """Return whether a package is a GPU library of its maker."""
    return canonicalize_name(name).startswith(GPU_LIBRARIES)


def unknown_licences(packages: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a sentence for every package with a licence, or a part of one joined by AND, that is not allowed."""
    return [
        f"{package['Name']} {package['Version']}: licence {package['License']!r} is not among those allowed; "
        "read it, then allow it in tools/supply.py or leave the package out"
        for package in packages
        if not of_makers(package["Name"])
        and not all(
            any(word in part for word in ALLOWED) for part in package["License"].replace("; ", " OR ").split(" AND ")
        )
    ]


def installed() -> list[dict[str, str]]:
    """Return Name, Version and License of what a plain installation brings, dynlora left out, by name."""
    plain = closure("dynlora") - {"dynlora"}
    listed = _asked("piplicenses", "--format=json", "--from=mixed", "--with-system")
    mine = [package for package in listed if canonicalize_name(package["Name"]) in plain]
    return sorted(mine, key=lambda package: package["Name"].lower())


def advisories() -> tuple[list[str], list[str]]:
    """Return a sentence for each known vulnerability, and the names of packages nothing could be learned about."""
    plain = closure("dynlora") - {"dynlora"}
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", "--timeout=10", "--local"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        return [], sorted(plain)
    return read_report(report, plain)


def read_report(report: Sequence[Mapping[str, Any]], plain: set[str]) -> tuple[list[str], list[str]]:
    """Return what a report of pip-audit says of the packages that count: vulnerable ones, and those not looked up."""
    known, silent = [], sorted(plain - {canonicalize_name(package["name"]) for package in report})
    for package in report:
        if canonicalize_name(package["name"]) not in plain:
            continue
        if "skip_reason" in package:
            silent.append(package["name"])
        for vulnerability in package.get("vulns", ()):
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            known.append(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}; upgrade it")
    return known, silent


def check() -> int:
    """Print what is wrong with what is installed; return the exit code."""
    packages = installed()
    wrong = unknown_licences(packages)
    known, silent = advisories()
    print(f"licences: {len(packages) - len(wrong)} of {len(packages)} packages as allowed")
    print(f"advisories: {len(packages) - len(silent)} of {len(packages)} packages looked up, {len(known)} vulnerable")
    if silent:
        print(f"nothing is known of the other {len(silent)}: PyPI's advisories cannot be reached from here")
    for sentence in (*wrong, *known):
        print(sentence)
    return 1 if wrong or known else 0


def write() -> int:
    """Write the list of licences and the versions of this environment; return the exit code."""
    packages = installed()
    rows = [f"| {package['Name']} | {package['License']} |" for package in packages if not of_makers(package["Name"])]
    LICENCES.write_text("\n".join([LICENCES_HEAD, *rows, ""]), "utf-8")
    frozen = [
        f"{package['Name']}=={package['Version'].partition('+')[0]}"
        for package in packages
        if not of_makers(package["Name"])
    ]
    CONSTRAINTS.write_text("\n".join([CONSTRAINTS_HEAD, *frozen, ""]), "utf-8")
    print(f"written: {LICENCES.name}, {CONSTRAINTS.name}, {len(packages)} packages")
    return 0


LICENCES_HEAD = """# Licences of what dynlora installs

dynlora is under Apache-2.0. A plain installation brings these packages, each under a licence that lets you use it and
pass it on unchanged as long as its notice stays; `make supply` holds to that, and `python -m tools.supply write` makes
this list. PyPI's torch for Linux brings NVIDIA's CUDA libraries too, under NVIDIA's own licence; a CPU build does not.

| package | licence, as the package states it |
|---|---|"""

CONSTRAINTS_HEAD = """# Versions that passed the whole test suite together: pip install -c constraints.txt -e .
# pyproject.toml says what is allowed, this file what was tried. Written by `python -m tools.supply write`."""


def _asked(module: str, *arguments: str) -> list[dict[str, str]]:
    """Return what a tool of this environment prints as JSON."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit({"check": check, "write": write}[sys.argv[1]]())
