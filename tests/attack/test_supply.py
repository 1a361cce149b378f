"""Licences and advisories: what `make supply` says of packages, from what pip-licenses and pip-audit report."""

from __future__ import annotations

import pytest

from tools import supply


def package(name: str, licence: str) -> dict[str, str]:
    return {"Name": name, "Version": "1.0", "License": licence}


@pytest.mark.parametrize(
    "licence",
    [
        "MIT",
        "Apache Software License",
        "MPL-2.0 AND MIT",
        "Apache-2.0 OR BSD-2-Clause",
        "GPL-2.0 OR MIT",
        "GNU General Public License (GPL); MIT License",
        "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
    ],
)
def test_a_licence_that_asks_for_its_notice_only_is_allowed(licence: str) -> None:
    assert supply.unknown_licences([package("one", licence)]) == []


@pytest.mark.parametrize("licence", ["GPL-3.0", "AGPL-3.0-only", "UNKNOWN", "MIT AND GPL-3.0", "Proprietary", ""])
def test_any_other_licence_is_named_with_its_package(licence: str) -> None:
    (sentence,) = supply.unknown_licences([package("fine", "MIT"), package("stranger", licence)])
    assert sentence.startswith(f"stranger 1.0: licence {licence!r}")
    assert "tools/supply.py" in sentence


def test_gpu_libraries_of_their_maker_are_left_to_their_maker() -> None:
    assert supply.unknown_licences([package("nvidia-cublas-cu12", "LicenseRef-NVIDIA-Proprietary")]) == []


def test_a_vulnerable_package_is_named_with_its_remedy_and_one_not_looked_up_is_no_good_news() -> None:
    report = [
        {"name": "Known_Bad", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}]},
        {"name": "fine", "version": "1.0", "vulns": []},
        {"name": "mirrored", "skip_reason": "not found on PyPI"},
        {"name": "of-a-developer", "version": "1.0", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]},
    ]
    known, silent = supply.read_report(report, {"known-bad", "fine", "mirrored", "unheard"})
    assert known == ["Known_Bad 1.0: PYSEC-1, fixed in 1.1, 2.0; upgrade it"]
    assert sorted(silent) == ["mirrored", "unheard"]


def test_a_plain_installation_is_found_with_all_it_requires_and_without_the_tools() -> None:
    plain = supply.closure("dynlora")
    assert {"dynlora", "torch", "streamlit", "jinja2", "pyyaml"} <= plain
    assert not {"pytest", "hypothesis", "playwright", "ruff"} & plain
    assert "pytest" in supply.closure("dynlora", {"test"})


def test_the_lists_that_are_kept_name_what_pyproject_asks_for() -> None:
    constraints = supply.CONSTRAINTS.read_text("utf-8")
    licences = supply.LICENCES.read_text("utf-8")
    for name in ("torch", "transformers", "datasets", "streamlit", "plotly", "pandas", "safetensors"):
        assert f"\n{name}==" in constraints, name
        assert f"\n| {name} | " in licences, name
