"""The errors a user can meet; each message names the argument, its value, the rule and the remedy.

`explain` builds that message for every setting, those of the config and those of a method alike: both are checked by
pydantic, and a person sees one kind of sentence.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import typing
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from dynlora.text import as_text, clean_text, is_text

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class DynloraError(Exception):
    """Base of every error dynlora raises on purpose; its text is shown to the user as it is.

    What cannot be encoded in values that it quotes, and no page could show, is replaced.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(clean_text(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigError(DynloraError, ValueError):
    """A setting cannot be used: wrong key, type, range or combination."""


class UnknownStrategyError(ConfigError):
    """No strategy is registered under that name."""


class RunRoleError(ConfigError):
    """A run cannot play the role that settings of another run give it; the sentence begins with the role."""


class AssetError(DynloraError):
    """A model or data set could not be found, fetched or verified."""


class DataError(DynloraError, ValueError):
    """The data cannot be read or does not fit the task."""


class RunNotFoundError(DynloraError, KeyError):
    """No run with that id is in the runs folder."""

    def __str__(self) -> str:
        """Return the message as written; `KeyError` would show its repr."""
        return str(self.args[0]) if self.args else ""


class CorruptRunError(DynloraError):
    """A run folder holds something that cannot be read, or was not written by dynlora."""


class RunBusyError(DynloraError):
    """Another process is writing this run."""


class StorageError(DynloraError):
    """What has to be kept cannot be written: the disk is full, read-only, or the folder is gone."""


class RemoteError(DynloraError):
    """A place beyond this disk cannot be reached, read or written, or holds no such run."""


class NotMergeableError(DynloraError):
    """This adapter cannot be folded into the base weights."""


class AdapterError(DynloraError, ValueError):
    """A folder holds no PEFT adapter that can be read, or is not what it says it is."""


class TrainingDiverged(DynloraError):
    """The loss is no number any more."""


class DivergedAtStart(TrainingDiverged):
    """The loss, or an output, is no number before anything was learned: no learning rate is to blame."""


class NotRecordedError(DynloraError, LookupError):
    """A figure needs something that a run has not recorded, or that nobody has measured yet."""


M = TypeVar("M", bound="BaseModel")


def first_line(error: BaseException, text: str | None = None) -> str:
    """Return the kind of an error that is not ours and the first line of its text, at most 200 characters of it.

    Args:
        error: that was raised.
        text: of the error, where not all of it may be shown; None for what it says itself.
    """
    message = ((str(error) if text is None else text).strip().splitlines() or [""])[0][:200].rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


_NO_ROOM = "free some space, or give a path on another disk"
_NOT_ALLOWED = "check the permissions of the folder, or give another path"

_REMEDIES: Mapping[int, str] = {
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "give a shorter one",
    errno.ELOOP: "give a path without links",
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: "give a path on a disk that can be written",
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,
    errno.EIO: "check the disk, or give a path on another one",
    errno.ECONNREFUSED: "check the address",
    errno.EADDRINUSE: "give another port",
}
"""What to do about what a system refuses, by errno."""

_OF_SQLITE: Mapping[int, int] = {8: errno.EROFS, 10: errno.EIO, 13: errno.ENOSPC, 14: errno.EACCES}
"""What the system said, by SQLite's primary result code: READONLY, IOERR, FULL, CANTOPEN."""

_OF_RUST = re.compile(r"\(os error (\d+)\)")
"""How Rust writes the errno of an io::Error: all that safetensors and tokenizers hand on of it."""

_MOST_OF_A_PATH = 120  # characters of a path in a message


def system_error(error: BaseException) -> OSError | None:
    """Return what the system refused, also where a library made an error of its own of it; None for any other error."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, DynloraError):
        return None
    number = _OF_SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if (match := _OF_RUST.search(str(error))) is not None:
        number = int(match[1])
    return None if number is None else OSError(number, os.strerror(number))


def system_message(error: OSError, what: str = "") -> str:
    """Return what a system refused in one sentence: the path, the reason and the remedy.

    Args:
        error: of the system.
        what: name of what was refused, where the error names no file.
    """
    path: Any = error.filename
    name = what if path is None or isinstance(path, int) else os.fsdecode(path)
    if not name and error.errno == errno.ENOENT and not _has_working_directory():
        return "the working directory does not exist any more; change to another one and try again"
    if len(name) > _MOST_OF_A_PATH:
        name = f"{name[: _MOST_OF_A_PATH // 2]}…{name[-_MOST_OF_A_PATH // 2 :]}"
    return f"{f'{name}: ' if name else ''}{system_reason(error)}"


def system_reason(error: OSError) -> str:
    """Return why a system refused something, and the remedy."""
    reason = error.strerror or first_line(error)
    return f"{reason}; {_remedy(error)}" if error.errno else reason


def _remedy(error: OSError) -> str:
    return _REMEDIES.get(error.errno or 0, "give another path")


def _has_working_directory() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


@contextmanager
def storing(what: str) -> Generator[None]:
    """A `with` block in which what the disk refuses is one sentence.

    Raises:
        StorageError: for an OSError, and for what a library makes of one.
    """
    try:
        yield
    except Exception as error:
        if (refused := system_error(error)) is None:
            raise
        raise StorageError(f"{what} cannot be written ({refused.strerror or refused}); {_remedy(refused)}") from None


_SHOWN = 64  # characters of a search around the place of a mistake


class SearchError(ConfigError):
    """A search cannot be read, or names a field that no run has.

    Attributes:
        column: where, counted from 1; one past the last character when something is missing there.
        picture: the search and, below, a caret at the column; two lines.
    """

    def __init__(self, text: str, column: int, problem: str) -> None:
        super().__init__(f"search, column {column}: {problem}")
        self.column = column
        self.picture = _picture(text, column - 1)


def _picture(text: str, place: int) -> str:
    """Return the part of a text around a place, and a caret below it."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    start = max(0, place - _SHOWN // 2)
    before, after = "…" if start else "", "…" if len(text) > start + _SHOWN else ""
    return f"{before}{printable[start : start + _SHOWN]}{after}\n{' ' * (len(before) + place - start)}^"


RULES = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_type": "text",
    "string_unicode": "valid text, without half of a surrogate pair",
    "string_too_short": "text that is not empty",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text without a NUL character",
    "tuple_type": "a list, such as [query, value]",
    "too_short": "a list that is not empty",
    "literal_error": "one of {expected}",
}
"""What each kind of pydantic's errors asks for."""

TYPE_PARTS = ("[key]", "constrained-", "float", "literal[")
"""How parts of pydantic's place of an error begin that name no key: the key of a mapping, a type of several."""


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Turn the first pydantic error into one sentence: key, value, rule, remedy.

    Args:
        error: what pydantic found.
        model: that was being filled.
        prefix: of its keys, such as `strategy.`.
    """
    first = error.errors(include_url=False)[0]
    kind, value = first["type"], first.get("input")
    key = ".".join(part for part in first["loc"] if isinstance(part, str) and not part.startswith(TYPE_PARTS))
    name = prefix + key
    subject = f"{name}: " if isinstance(value, Mapping) else f"{name}={_short(value)}: "
    if kind == "extra_forbidden":
        return f"{subject}unknown key; {nearest(key, keys_of(model), prefix)}"
    if kind == "value_error":
        return str(first.get("ctx", {}).get("error", first["msg"]))
    if (section := section_in(model, key)) is not None:
        return f"{subject}{name} is a section; set its keys, such as {name}.{next(iter(section.model_fields))}"
    if isinstance(value, Mapping):
        return f"{name}: must be a value, not a section; {meaning_of(model, key, prefix)}"
    return f"{subject}must be {_rule(kind, first.get('ctx', {}), first['msg'])}; {meaning_of(model, key, prefix)}"


def checked(model: type[M], values: Mapping[str, Any], prefix: str = "") -> M:
    """Check plain values, of a file or of a function's arguments, and return them as a model.

    Args:
        model: whose fields they are.
        values: by name; single numbers of numpy and torch count as plain ones.
        prefix: of the names in a message, such as `strategy.`.

    Raises:
        ConfigError: for the first thing wrong: one sentence with name, value, rule and remedy.
    """
    from pydantic import ValidationError

    given = {name: _plain_number(value) for name, value in values.items()}
    _refuse_broken_text(given, prefix)
    _refuse_booleans(given, model, prefix)
    try:
        made = model.model_validate(given)
    except ValidationError as error:
        raise ConfigError(explain(error, model, prefix)) from None
    _refuse_huge(made, prefix)
    return made


def _refuse_huge(made: BaseModel, prefix: str) -> None:
    """Refuse whole numbers of more than 64 bits, which neither the store nor a library takes."""
    from pydantic import BaseModel

    for key in type(made).model_fields:
        value: object = getattr(made, key)
        if isinstance(value, BaseModel):
            _refuse_huge(value, f"{prefix}{key}.")
        elif isinstance(value, int) and abs(value) >= 2**63:
            rule = f"must be {RULES['int_parsing_size']}; {meaning_of(type(made), key, prefix)}"
            raise ConfigError(f"{prefix}{key}={_short(value)}: {rule}")


def _plain_number(value: Any) -> Any:
    """Return a number of numpy or torch as Python's, also in a section; anything else as it is."""
    if isinstance(value, Mapping):
        return {key: _plain_scalar(item) for key, item in cast(Mapping[str, Any], value).items()}
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _refuse_booleans(values: Mapping[str, Any], model: type[BaseModel], prefix: str) -> None:
    """Refuse true and false where a setting is no switch: pydantic would read them as 1 and 0."""
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is None:
            continue
        section = section_in(model, key)
        if section is not None and isinstance(value, Mapping):
            _refuse_booleans(cast(Mapping[str, Any], value), section, f"{prefix}{key}.")
        is_switch = field.annotation is bool or typing.get_origin(field.annotation) is Literal
        if isinstance(value, bool) and not is_switch:
            raise ConfigError(f"{prefix}{key}={value}: must not be true or false; {meaning_of(model, key, prefix)}")


def _refuse_broken_text(values: Mapping[Any, Any], prefix: str) -> None:
    """Refuse names of settings that are no text, text that cannot be encoded, and numbers too long to be written.

    They are looked for in keys, values and lists of values.
    """
    for key, value in values.items():
        if not isinstance(key, str) and prefix.count(".") < 2:  # below, a repair maps classes, which may be numbers
            raise ConfigError(f"{prefix}{_short(key)}: the key must be text, the name of a setting; correct it")
        items = cast(Sequence[Any], value) if isinstance(value, list | tuple) else [value]
        if any(isinstance(text, bytes) or not is_text(text) for text in (key, *items) if isinstance(text, str | bytes)):
            raise ConfigError(f"{prefix}{_short(key)}={_short(value)}: must be {RULES['string_unicode']}; correct it")
        if any(isinstance(item, int) and item.bit_length() > MAX_BITS for item in items):
            rule = RULES["int_parsing_size"]
            raise ConfigError(f"{prefix}{_short(key)}={_short(value)}: must be {rule}; correct it")
        for item in items:
            if isinstance(item, Mapping) and prefix.count(".") < _MAX_DEPTH:
                _refuse_broken_text(cast(Mapping[str, Any], item), f"{prefix}{_short(key)}.")


MAX_BITS = 512
"""Of a whole number; one of thousands of digits cannot even be written."""

_MAX_DEPTH = 8
"""Of nested settings; none is so deep."""


def section_in(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the section of that name, or None when the name is that of a plain value or of nothing."""
    field = model.model_fields.get(name)
    kind = None if field is None else field.annotation
    return kind if isinstance(kind, type) and hasattr(kind, "model_fields") else None  # pyright: ignore


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return every dotted key that a model holds."""
    keys: list[str] = []
    for name in model.model_fields:
        section = section_in(model, name)
        keys += [name] if section is None else [f"{name}.{key}" for key in section.model_fields]
    return keys


def nearest(key: str, options: Iterable[str], prefix: str = "") -> str:
    """Return "did you mean ...?" with the nearest valid key, or the list of keys when none is near."""
    options = list(options)
    near = difflib.get_close_matches(key, options, n=1, cutoff=0.6)
    if "." not in key:
        near = difflib.get_close_matches(key, {option.partition(".")[0]: 0 for option in options}, n=1) or near
    if near:
        return f"did you mean {prefix}{near[0]}?"
    return "valid keys: " + ", ".join(prefix + option for option in _in_sections(options))


MOST_LISTED = 30
"""Keys that a message lists; of more, those of a section are named by the section."""


def _in_sections(options: list[str]) -> list[str]:
    """Return keys for a message: all, or where they are many `data.*` in the place of a section's."""
    if len(options) <= MOST_LISTED:
        return options
    return list(dict.fromkeys(f"{one.partition('.')[0]}.*" if "." in one else one for one in options))


def meaning_of(model: type[BaseModel], key: str, prefix: str = "") -> str:
    """Return what a key means, its unit and its default, for the end of an error's sentence."""
    name, _, rest = key.partition(".")
    section = section_in(model, name)
    field = model.model_fields.get(name) if section is None else section.model_fields.get(rest)
    if field is None:
        return nearest(key, keys_of(model), prefix)
    meaning = (field.description or "see the reference").rstrip(".")
    default = "empty" if field.default is None else field.default
    return meaning if field.is_required() else f"{meaning} (default {default})"


def _rule(kind: str, context: Mapping[str, Any], message: str) -> str:
    """Return what a value must be."""
    if kind not in RULES:
        return message.removeprefix("Input should be ")
    words = {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in context.items()}
    return RULES[kind].format(**words).replace("'", "")


def _short(value: Any) -> str:
    """Return a value for a message, cut after 80 characters."""
    text = "empty" if value is None else as_text(value)
    return text if len(text) <= 80 else text[:77] + "..."
