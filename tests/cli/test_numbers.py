"""Numbers at the edge: of the command line, of settings and of functions; finite, within bounds, and soon refused."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from dynlora import strategies
from dynlora.cli.main import main
from dynlora.cli.options import Real, Whole
from dynlora.config import config_keys, parse_config
from dynlora.config_files import load_config
from dynlora.custom_loop.attach import Arguments as Attached
from dynlora.engine.fields import settings_model
from dynlora.errors import ConfigError, checked
from dynlora.integrations.transformers import Arguments as Recorded
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.kinds.distil.settings import DistilSettings
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.text import is_text

LONGEST = 900
"""Characters of a message: what a number has more is not repeated."""

NUMBERS = (
    st.floats(width=64)
    | st.integers()
    | st.booleans()
    | st.none()
    | st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -0.0, 5e-324, 10**400, 16**5_000, -(10**5_000), 2**63])
    | st.sampled_from([np.float32(0.5), np.int64(3), np.float64(math.nan), np.array(2)])
)
SPELLED = st.one_of(
    st.floats().map(str),
    st.integers().map(str),
    st.integers(1, 6_000).map(lambda n: "9" * n),
    st.sampled_from(["nan", "-nan", "inf", "1e400", "0x" + "f" * 50_000, "1_0", "\u0663", "1:30", ".nan", "1e-400"]),
    st.text(max_size=4),
)


def parameters(command: click.Command = main, path: str = "dynlora") -> Iterator[tuple[str, click.Parameter]]:
    """Yield every option and argument of a command and of those below it, with the command's name."""
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield from parameters(below, f"{path} {name}")
    yield from ((path, parameter) for parameter in command.params)


NAMES = ("integer", "float", "integer range", "float range")
NUMERIC = [(path, each) for path, each in parameters() if each.type.name in NAMES]


def test_every_number_of_the_command_line_is_of_one_type_and_bounded() -> None:
    assert len(NUMERIC) > 30
    wrong = [
        f"{path} {each.opts}"
        for path, each in NUMERIC
        if not isinstance(each.type, Whole | Real)
        or each.type.min is None
        or each.type.max is None
        or not (math.isfinite(each.type.min) and math.isfinite(each.type.max))
    ]
    assert wrong == []


def check_option(option: click.Parameter, text: str) -> None:
    """Check that an option takes a number within its bounds or refuses it in a short sentence."""
    kind = option.type
    assert isinstance(kind, Whole | Real)
    number, message = kind.min, ""
    try:
        number = kind.convert(text, option, None)
    except click.BadParameter as error:
        message = error.format_message()
    assert len(message) < LONGEST
    assert math.isfinite(number or 0)
    assert (kind.min or 0) <= (number or 0) <= (kind.max or 0)


def known_models() -> dict[str, type[BaseModel]]:
    """Return everything whose numbers a person or a program gives, by name."""
    methods = {f"strategy {name}": settings_model(strategies.strategy_class(name)) for name in strategies.registry()}
    return {
        "attach": Attached,
        "record": Recorded,
        "decode": DecodeSettings,
        "recycle": RecycleSettings,
        "distil": DistilSettings,
        "merge": MergeSettings,
        **methods,
    }


MODELS = known_models()
FIELDS = [(name, field) for name, model in MODELS.items() for field in model.model_fields]
KEYS = [("config", key) for key in config_keys()]


def check_setting(model: str, field: str, value: Any) -> None:
    """Check that a setting takes a value as finite numbers, or refuses it in a short sentence."""
    try:
        if model == "config":
            section, _, key = field.rpartition(".")
            made: BaseModel = parse_config({section: {key: value}} if section else {key: value})
        else:
            needed = {"steps": 5} if model == "attach" else {}
            needed |= {"draft": "a", "target": "b"} if model == "decode" else {}
            needed |= {"teachers": ["a", "b"]} if model in ("recycle", "distil") else {}
            needed |= {"sources": ["a", "b"], "method": "ties"} if model == "merge" else {}
            made = checked(MODELS[model], {**needed, field: value})
    except ConfigError as error:
        message = str(error)
        assert field.rpartition(".")[2] in message
        assert len(message) < LONGEST
        assert is_text(message)
        assert "Input should be" not in message
        return
    for number in _numbers(made.model_dump()):
        assert abs(number) < 2**63 if isinstance(number, int) else math.isfinite(number)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value


@given(option=st.sampled_from([option for _, option in NUMERIC]), text=SPELLED)
def test_options_refuse_what_is_no_number_of_theirs(option: click.Parameter, text: str) -> None:
    check_option(option, text)


@settings(max_examples=150)
@given(setting=st.sampled_from(KEYS + FIELDS), value=NUMBERS | SPELLED)
def test_settings_and_arguments_take_finite_numbers_only(setting: tuple[str, str], value: Any) -> None:
    check_setting(*setting, value)


@pytest.mark.torture
@settings(max_examples=10_000)
@given(option=st.sampled_from([option for _, option in NUMERIC]), text=SPELLED)
def test_options_refuse_what_is_no_number_of_theirs_in_full(option: click.Parameter, text: str) -> None:
    check_option(option, text)


@pytest.mark.torture
@settings(max_examples=10_000)
@given(setting=st.sampled_from(KEYS + FIELDS), value=NUMBERS | SPELLED)
def test_settings_and_arguments_take_finite_numbers_only_in_full(setting: tuple[str, str], value: Any) -> None:
    check_setting(*setting, value)


@pytest.mark.parametrize("digits", ["9" * 50_000, "0x" + "f" * 50_000, "-" + "1" * 50_000])
@pytest.mark.parametrize("key", ["seed", "train.lr", "strategy.moves", "data.repair", "model.layers", "name"])
def test_a_number_of_any_length_is_refused_at_once(key: str, digits: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError) as refused:
        _built(f"{key}={digits}")
    assert len(str(refused.value)) < LONGEST
    assert time.process_time() - start < 1


def _built(override: str) -> None:
    strategy = load_config(None, [override]).strategy
    strategies.build(strategy.name, strategy.fields)


def test_numbers_of_numpy_count_as_plain_ones() -> None:
    arguments = checked(Attached, {"steps": np.int64(7), "lr": np.float32(0.5), "alpha": np.array(2.0)})
    assert (arguments.steps, arguments.lr, arguments.alpha) == (7, 0.5, 2.0)
    assert parse_config({"seed": np.int64(3)}) == parse_config({"seed": 3})
