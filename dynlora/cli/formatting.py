"""What the command line says of a run, in a line or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynlora.kinds.registry import registry


def format_method(row: Mapping[str, Any]) -> str:
    """Return a run's strategy with its fidelity, which belongs wherever methods stand side by side."""
    name = row["strategy"] or "?"
    return f"{name} ({row['fidelity']})" if row["fidelity"] else name


def format_summary(document: Mapping[str, Any]) -> str:
    """Return a run in a few lines, as its kind words them."""
    kind = registry().get(document["kind"])
    standing = f"{document['status']} at step {document['step']}/{document['max_steps']}, of an unknown kind"
    return f"{document['id']}  {document['name']}\n{standing if kind is None else kind.standing(document)}"
