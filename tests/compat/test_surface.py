"""Nothing that scripts, links and files rely on is lost; `python -m tests.compat.surface` adds what is new."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynlora.config import parse_config
from dynlora.config_files import read_run_config
from dynlora.renamed_settings import GONE, RENAMED
from dynlora.strategies import registry
from tests.compat import surface

KNOWN: dict[str, list[str]] = json.loads(surface.GOLDEN.read_text("utf-8"))


@pytest.fixture(scope="module")
def current() -> dict[str, list[str]]:
    """What there is now."""
    return surface.surface()


@pytest.mark.parametrize("part", list(KNOWN))
def test_nothing_is_lost(part: str, current: dict[str, list[str]]) -> None:
    assert sorted(set(KNOWN[part]) - set(current[part])) == []


@pytest.mark.parametrize("part", list(KNOWN))
def test_what_is_new_is_held_too(part: str, current: dict[str, list[str]]) -> None:
    assert sorted(set(current[part]) - set(KNOWN[part])) == [], "run python -m tests.compat.surface"


TRAINED = [each for each in surface.sample_folders() if "kind:" not in (each / "config.yaml").read_text("utf-8")]


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_the_config_of_a_sample_run_is_read(folder: Path) -> None:
    assert read_run_config(folder).strategy.name in registry()


@pytest.mark.parametrize(
    ("method", "old"),
    [(method, old) for table in (RENAMED, GONE) for method, names in table.items() if method for old in names],
)
def test_an_old_name_of_a_setting_is_accepted(method: str, old: str) -> None:
    gone = GONE.get(method, {})
    new = RENAMED.get(method, {}).get(old, old)
    value = gone[old] if old in gone else registry()[method].__dataclass_fields__[new].default
    if old in ("gain_scope", "promises"):
        value = "gains"
    parse_config({"strategy": {"name": method, old: value}})
