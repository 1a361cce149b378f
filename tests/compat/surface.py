"""What scripts, links and files of others rely on: commands, settings, keys of `--json`, pages and their addresses.

`python -m tests.compat.surface` adds what is new to `surface.json`; nothing is ever taken out of it by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from dynlora.config import RunConfig
from dynlora.errors import keys_of
from dynlora.renamed_settings import GONE, RENAMED
from dynlora.store import queries
from dynlora.strategies import registry

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("surface.json")
SAMPLES = ROOT / "sample_runs"

_ADDRESS = re.compile(
    r"""query_params(?:\.get(?:_all)?\(|\[)"(\w+)"|(?:from_address|segmented|choose|slide|chosen_step)\(\s*"(\w+)"|Choice\(\s*"(\w+)"|to_address\((\w+)="""
)


def commands(group: click.Command | None = None, prefix: str = "") -> list[str]:
    """Return every command with each of its options and arguments: `export --format`, `export RUN_ID`."""
    if group is None:
        from dynlora.cli.main import main as group  # it imports every command
    assert group is not None
    lines = [f"{prefix} {name}".strip() for parameter in group.params for name in _names(parameter)]
    for name, command in getattr(group, "commands", {}).items():
        path = f"{prefix} {name}".strip()
        lines += [path, *commands(command, path)]
    return lines


def _names(parameter: click.Parameter) -> list[str]:
    """Return what a person types for an option, or the name of an argument."""
    if isinstance(parameter, click.Option):
        return [*parameter.opts, *parameter.secondary_opts]
    return [str(parameter.name).upper()]


def settings() -> list[str]:
    """Return every key of a configuration, and every field of each method."""
    keys = keys_of(RunConfig)
    for name, method in registry().items():
        fields = getattr(method, "__dataclass_fields__", {})
        keys += [f"strategy[{name}].{field}" for field, known in fields.items() if known.init]
    return keys


def old_names() -> list[str]:
    """Return every old name of a setting that is accepted."""
    old_spellings = [f"{method}.{old}" for method, names in RENAMED.items() for old in names]
    old_spellings += [f"{method}.{old}" for method, names in GONE.items() for old in names]
    return old_spellings


def summary_keys() -> list[str]:
    """Return the keys of `show --json` of the sample runs, as paths; names of modules and metrics stand as `*`."""
    return sorted({path for folder in sample_folders() for path in paths(dict(queries.run_summary(folder)))})


OPEN = ("ranks", "scaling", "metrics", "best", "config", "own_signals", "task_facts", "machine", "results", "time")
"""Keys whose own keys depend on the run, or are held elsewhere."""


def paths(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the key paths of a JSON object."""
    for key, value in document.items():
        yield prefix + key
        if isinstance(value, Mapping) and key not in OPEN:
            yield from paths(value, f"{prefix}{key}.")


def sample_folders() -> list[Path]:
    """Return the folders of the sample runs."""
    return sorted(path.parent for path in SAMPLES.glob("*/run.db"))


def pages() -> list[str]:
    """Return the pages by their address."""
    return sorted(path.stem for path in (ROOT / "pages").glob("*.py"))


def addresses() -> list[str]:
    """Return the names that an address of the dashboard may hold."""
    sources = [*ROOT.glob("dynlora/viz/**/*.py"), *ROOT.glob("dynlora/kinds/**/*.py"), *ROOT.glob("pages/*.py")]
    matches = (match for path in sources for match in _ADDRESS.finditer(path.read_text("utf-8")))
    return sorted({next(filter(None, match.groups())) for match in matches})


def surface() -> dict[str, list[str]]:
    """Return all of it."""
    return {
        "commands": sorted(set(commands())),
        "settings": sorted(settings()),
        "old names": sorted(old_names()),
        "show --json": summary_keys(),
        "runs --json": sorted(queries.RUN_COLUMNS),
        "pages": pages(),
        "addresses": addresses(),
    }


def main() -> None:
    """Add what is new to the file."""
    known = json.loads(GOLDEN.read_text("utf-8")) if GOLDEN.exists() else {}
    merged = {name: sorted({*known.get(name, []), *lines}) for name, lines in surface().items()}
    GOLDEN.write_text(json.dumps(merged, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
