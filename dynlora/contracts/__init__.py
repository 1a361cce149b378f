"""What every method, task, kind of run and figure must hold: `pytest --pyargs dynlora.contracts`.

The suites try whatever is registered, that of installed plug-ins too; `-k NAME` tries one, and `-m "not torture"`
leaves out the full products. They train tiny random models on the processor and need no network; `pip install
"dynlora[contracts]"` brings pytest and PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def overridden(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with others in their place; `train__lr=1` sets train.lr, `seed=3` sets seed."""
    for key, value in overrides.items():
        section, _, last = key.partition("__")
        if last:
            values.setdefault(section, {})[last] = value
        else:
            values[section] = value
    return values
