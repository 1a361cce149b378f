"""Where an adapter comes from: a small file beside it, and what a run that starts from it keeps of that.

As little trusted as the rest of a run: what cannot be read counts as unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dynlora.errors import ConfigError
from dynlora.plain_text import printable
from dynlora.safe_files import write_text
from dynlora.store.meta import table
from dynlora.store.plain_values import count, number, read_checked
from dynlora.store.schema import check_run_id

ORIGIN_NAME = "dynlora_origin.json"
FORMAT = 1
MAX_BYTES = 65_536


@dataclass(frozen=True)
class Origin:
    """Where an adapter comes from.

    Attributes:
        run: id of the run that trained it; None for an adapter of another tool.
        name: of that run, or of the adapter's folder.
        which: last or best adapter of the run.
        step: optimizer steps that it had behind it.
        parameters: that were kept.
        of: parameters of the whole adapter; None where that is not known.
    """

    run: str | None
    name: str
    which: str = "last"
    step: int = 0
    parameters: int | None = None
    of: int | None = None

    @property
    def share(self) -> float | None:
        """The share of the whole adapter's parameters that was kept, 0 to 1; None where that is not known."""
        return self.parameters / self.of if self.parameters is not None and self.of else None


def write_origin(folder: Path, origin: Origin) -> None:
    """Write where an adapter comes from into its folder.

    Raises:
        OSError: when it cannot be written.
    """
    write_text(folder / ORIGIN_NAME, json.dumps({"format": FORMAT, **asdict(origin)}, indent=1) + "\n")


def read_origin(folder: Path) -> Origin:
    """Return where the adapter of a folder comes from; without such a file its name is all that is known."""
    return read_checked(folder / ORIGIN_NAME, MAX_BYTES, checked) or Origin(None, printable(folder.name))


def checked(found: Mapping[str, Any]) -> Origin:
    """Return the content of the file, each value of its kind.

    Raises:
        ValueError, KeyError: when one is not.
    """
    run = found["run"]
    if found["format"] != FORMAT or not (run is None or isinstance(run, str)):
        raise ValueError("another format")
    try:
        run = None if run is None else check_run_id(run)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    parameters, of = (None if found[key] is None else count(found[key]) for key in ("parameters", "of"))
    which = "best" if found["which"] == "best" else "last"
    return Origin(run, printable(found["name"], 200), which, count(found["step"]), parameters, of)


def origin_meta(origin: Origin) -> dict[str, Any]:
    """Return what a run keeps of the adapter that it starts from, as JSON values."""
    return {**asdict(origin), "share": origin.share}


def origin_of(value: Any) -> dict[str, Any] | None:
    """Return what a run says of where it starts from, as `origin_meta` made it; None where it says nothing of use."""
    found = table(value)
    try:
        kept = checked({"format": FORMAT, **found})
        share = None if found.get("share") is None else number(found["share"])
    except (ValueError, KeyError, TypeError):
        return None
    return {**asdict(kept), "share": share if share is not None and 0 <= share <= 1 else None}
