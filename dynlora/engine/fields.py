"""How the fields of a method are declared: hyper-parameters with meaning, unit and range, and state.

A hyper-parameter is a field of the method's dataclass whose metadata holds a pydantic field; `settings_model` makes of
them the model that checks what a config gives, so that settings of methods and of the config are checked and explained
in one way.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, create_model
from pydantic.fields import FieldInfo

from dynlora.config import Section


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """Declare a hyper-parameter.

    Args:
        default: taken when a config does not set it.
        help: what it does and when to change it.
        unit: of its value.
        ge: least value of a number.
        gt: what a number must exceed.
        le: largest value of a number.
        lt: what a number must stay below.
        choices: values of a text.
    """
    info = Field(default, description=help, ge=ge, gt=gt, le=le, lt=lt, json_schema_extra={"unit": unit})
    return dataclasses.field(default=default, metadata={"info": info, "choices": choices})


def state(factory: Callable[[], Any], *, saved_as: str | None = None) -> Any:
    """Declare a state field: saved with every checkpoint; numbers, tensors, and lists or dicts of them.

    Args:
        factory: makes its value at the start.
        saved_as: its name in checkpoints, where that is another one; checkpoints outlive names in the code.

    Examples:
        >>> from dataclasses import dataclass
        >>> from dynlora.engine.strategy import Strategy, state
        >>> @dataclass
        ... class Counted(Strategy):
        ...     moves: dict[int, int] = state(dict)
        >>> Counted().moves
        {}
    """
    return dataclasses.field(
        init=False, default_factory=factory, repr=False, compare=False, metadata={"saved_as": saved_as}
    )


def saved_name(field: dataclasses.Field[Any]) -> str:
    """Return the name of a state field in checkpoints."""
    return field.metadata.get("saved_as") or field.name


def settings_of(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the hyper-parameters of a method by name, in the order they are declared."""
    return {f.name: f for f in dataclasses.fields(cls) if f.init}


@functools.cache
def settings_model(cls: type) -> type[BaseModel]:
    """Return the pydantic model that checks a method's hyper-parameters."""
    hints = typing.get_type_hints(cls)
    fields: Any = {name: (_checked(hints[name], f), _info(f)) for name, f in settings_of(cls).items()}
    with warnings.catch_warnings():  # a setting may be called as a method of pydantic's is, such as `copy`
        warnings.filterwarnings("ignore", "Field name .* shadows an attribute", UserWarning)
        return create_model(f"{cls.__name__}Settings", __base__=Section, **fields)


def _info(f: dataclasses.Field[Any]) -> FieldInfo:
    """Return the pydantic field of a hyper-parameter; one declared without `setting` has a default and no more."""
    default: Any = f.default
    return f.metadata.get("info") or Field(default)


def _checked(hint: Any, f: dataclasses.Field[Any]) -> Any:
    """Return the annotation that a hyper-parameter is checked by."""
    if choices := f.metadata.get("choices"):
        words = cast(Any, Annotated[Literal[tuple(choices)], BeforeValidator(_format_switch)])
        return words | None if type(None) in typing.get_args(hint) else words
    return StrictBool if hint is bool else hint


def _format_switch(value: Any) -> Any:
    """Return on and off as text: YAML reads them as true and false."""
    return ("on" if value else "off") if isinstance(value, bool) else value
