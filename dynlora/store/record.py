"""JSON files beside `run.db` and in a runs folder: each is a `Record`, which reads, limits, migrates and writes it.

None of them is trusted: anyone may have written to a folder of runs. A value has the type and the bounds that its field
declares, texts are whole characters, and numbers are finite.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError

from dynlora.errors import CorruptRunError
from dynlora.safe_files import read_plain, write_text
from dynlora.store.jsontext import MAX_WHOLE, load_object
from dynlora.text import clean_text, printable

Item = TypeVar("Item")

Whole = Annotated[int, Field(ge=-MAX_WHOLE, le=MAX_WHOLE)]
"""A whole number that every reader can hold."""

Count = Annotated[int, Field(ge=0, lt=MAX_WHOLE)]
"""A whole number from zero on."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, 0 to 1."""

Moment = Annotated[float, Field(ge=0, le=MAX_WHOLE)]
"""A time in seconds since the epoch."""

Which = Annotated[str, Field(pattern="^(last|best)$")]
"""Last or best adapter of a run."""

Row = Annotated[tuple[Item, ...], Strict(False)]
"""A list of a file, a tuple here; its field says how long it may be."""


def cut(limit: int) -> AfterValidator:
    """Return what keeps the beginning of a text or of a list."""
    return AfterValidator(lambda value: value[:limit])


def one_line(limit: int) -> AfterValidator:
    """Return what makes a text printable, on one line, and cuts it where it is longer."""
    return AfterValidator(lambda text: printable(text, limit))


class Part(BaseModel):
    """Part of a record: strictly typed, finite, unchangeable; keys that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Record(Part):
    """A JSON object in a file of its own.

    Attributes:
        MAX_BYTES: of the file; a larger one is neither read nor written.
        VERSION: of the format, kept under the key `format`; 0 where the file names none.
        KEEPS_REST: what becomes of damage: a field or an item of a list that does not fit is left out and the rest is
            used, or (False) the whole file counts as missing.
    """

    MAX_BYTES: ClassVar[int] = 65_536
    VERSION: ClassVar[int] = 0
    KEEPS_REST: ClassVar[bool] = False

    @classmethod
    def migrate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a file under the names of this version; a class with several versions overrides it.

        Raises:
            ValueError: when the file is of a version that is not known.
        """
        if cls.VERSION and values.get("format") != cls.VERSION:
            raise ValueError("another format")
        return values

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Return the record that values of a JSON object make.

        Raises:
            CorruptRunError: when they do not fit.
        """
        try:
            migrated = cls.migrate(dict(values))
            try:
                return cls.model_validate(migrated)
            except ValidationError as error:
                if not cls.KEEPS_REST:
                    raise
                return cls.model_validate(_without(migrated, error))
        except (ValueError, TypeError, LookupError) as error:
            raise CorruptRunError(f"the values of a {cls.__name__} do not fit ({type(error).__name__})") from None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self | None:
        """Return what a file holds, None where no plain file of its size holds such a record."""
        text = read_plain(os.fspath(path), cls.MAX_BYTES)
        if text is None:
            return None
        try:
            return cls.from_values(load_object(text))
        except CorruptRunError:
            return None

    def write(self, path: Path) -> None:
        """Write the file whole or not at all.

        Raises:
            OSError: when it cannot be written, or would be larger than a reader takes.
            ValueError: when a number was put into a copy of it that is not finite.
        """
        version = {"format": self.VERSION} if self.VERSION else {}
        values = {**version, **self.model_dump()}
        text = clean_text(json.dumps(values, ensure_ascii=False, allow_nan=False)) + "\n"
        if len(text.encode()) > self.MAX_BYTES:
            raise OSError(errno.EFBIG, f"its content is larger than {self.MAX_BYTES:,} bytes", str(path))
        write_text(path, text)


def _without(values: dict[str, Any], error: ValidationError) -> dict[str, Any]:
    """Return values without the fields that do not fit, or without those items of a field that do not."""
    wrong: dict[str, set[int | str]] = {}
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        field, *item = problem["loc"][:2] or ("",)
        wrong.setdefault(str(field), set()).update(item)
        if not item:
            values = {key: value for key, value in values.items() if key != field}
    for field, items in wrong.items():
        value = values.get(field)
        if isinstance(value, list):
            values[field] = [item for place, item in enumerate(value) if place not in items]
        elif isinstance(value, dict) and items:
            values[field] = {key: item for key, item in value.items() if key not in items}
    return values
