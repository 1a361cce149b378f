"""Ranks that were found before: of a run, of an adapter that PEFT wrote, or of a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dynlora.engine.loop.adapter_state import MOST_RANK
from dynlora.errors import AdapterError, ConfigError, CorruptRunError
from dynlora.peft_adapter.adapter_config import CONFIG_NAME
from dynlora.peft_adapter.read import read_adapter
from dynlora.safe_files import read_plain
from dynlora.store import jsontext, queries
from dynlora.store.schema import DB_NAME

MAX_BYTES = 16_000_000


def read_ranks(source: str) -> dict[str, int]:
    """Return ranks by module name.

    Args:
        source: a run's folder (the last ranks it recorded), a folder of PEFT's, or a JSON file: an object of ranks by
            module, what `dynlora compress --json` or `dynlora advise --json` prints, or an `adapter_config.json` with a
            rank for every module.

    Raises:
        ConfigError: when there is no such thing, or it says no ranks.
    """
    path = Path(os.path.expanduser(source))
    try:
        if (path / DB_NAME).is_file():
            return _of_run(source, path)
        if (path / CONFIG_NAME).is_file():
            return {module.name: module.rank for module in read_adapter(path).modules}
    except (AdapterError, CorruptRunError) as error:
        raise ConfigError(f"strategy.ranks_from={source}: {error}") from None
    return _of_file(source, path)


def _of_run(source: str, folder: Path) -> dict[str, int]:
    """Return the last ranks of a run."""
    found = queries.run_summary(folder)
    if found["ranks_are_sums"]:
        raise ConfigError(
            f"strategy.ranks_from={source}: an imported run whose ranks are sums over layers or families of modules; "
            "give a run that recorded each module"
        )
    return dict(found["ranks"])


def _of_file(source: str, path: Path) -> dict[str, int]:
    """Return the ranks of a JSON file."""
    text = read_plain(os.fspath(path), MAX_BYTES)
    if text is None:
        raise ConfigError(
            f"strategy.ranks_from={source}: no run, PEFT folder or JSON file of ranks; `dynlora runs` lists the runs"
        )
    try:
        found: Any = jsontext.load_object(text)
    except CorruptRunError:
        found = {"": None}  # no rank
    chosen = found.get("chosen")
    ranks: Any = (
        chosen.get("ranks") if isinstance(chosen, dict) else found.get("ranks", found.get("rank_pattern", found))
    )
    if not isinstance(ranks, dict) or not all(_is_rank(rank) for rank in cast(Mapping[str, Any], ranks).values()):
        raise ConfigError(
            f"strategy.ranks_from={source}: is not a JSON object of ranks by module, each 0 to {MOST_RANK}; write "
            '{"module": rank}'
        )
    return {name.removeprefix("^").replace("\\.", "."): rank for name, rank in cast(dict[str, int], ranks).items()}


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_RANK
