"""Where an adapter comes from: a small file beside it, and what a run that starts from it keeps of that.

As little trusted as the rest of a run: what cannot be read counts as unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from dynlora.errors import CorruptRunError
from dynlora.store.meta import finite, table
from dynlora.store.record import Count, Record, Which, one_line
from dynlora.store.schema import check_run_id
from dynlora.text import printable

ORIGIN_NAME = "dynlora_origin.json"


class Origin(Record):
    """Where an adapter comes from.

    Attributes:
        run: id of the run that trained it; None for an adapter of another tool.
        name: of that run, or of the adapter's folder.
        which: last or best adapter of the run.
        step: optimizer steps that it had behind it.
        parameters: that were kept.
        of: parameters of the whole adapter; None where that is not known.
    """

    VERSION: ClassVar[int] = 1

    run: Annotated[str, AfterValidator(check_run_id)] | None
    name: Annotated[str, one_line(200)]
    which: Which = "last"
    step: Count = 0
    parameters: Count | None = None
    of: Count | None = None

    @property
    def share(self) -> float | None:
        """The fraction of the whole adapter's parameters that was kept, 0 to 1; None where that is not known."""
        return self.parameters / self.of if self.parameters is not None and self.of else None


def read_origin(folder: Path) -> Origin:
    """Return where the adapter of a folder comes from; without such a file its name is all that is known."""
    return Origin.read(folder / ORIGIN_NAME) or Origin(run=None, name=printable(folder.name))


def origin_meta(origin: Origin) -> dict[str, Any]:
    """Return what a run keeps of the adapter that it starts from, as JSON values."""
    return {**origin.model_dump(), "share": origin.share}


def origin_of(value: Any) -> dict[str, Any] | None:
    """Return what a run says of where it starts from, as `origin_meta` made it; None where it says nothing of use."""
    try:
        origin = Origin.from_values({"format": Origin.VERSION, **table(value)})
    except CorruptRunError:
        return None
    share = finite(table(value).get("share"))
    return {**origin.model_dump(), "share": share if share is not None and 0 <= share <= 1 else None}
