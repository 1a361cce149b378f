"""The fields of a benchmark's settings as options of its command."""

from __future__ import annotations

import argparse
from typing import Any, TypeVar

S = TypeVar("S")


def add_fields(parser: argparse.ArgumentParser, usual: Any) -> None:
    """Add an option for each field: `teacher_steps` as `--teacher-steps`, its usual value the default."""
    for name, value in vars(usual).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)


def given(arguments: argparse.Namespace, usual: S) -> S:
    """Return settings of the same class with the values that were given."""
    return type(usual)(**{name: getattr(arguments, name) for name in vars(usual)})
