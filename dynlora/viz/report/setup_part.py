"""The part of a report that says how a run was made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from dynlora.analysis import run_summary
from dynlora.analysis.config_fields import by_name
from dynlora.analysis.run_reading import machine
from dynlora.config_files import yaml_text
from dynlora.text import number
from dynlora.viz.report.document import Part, Table, Text


def setup_part(summary: Mapping[str, Any]) -> Part:
    """Return how the run was made: its configuration, and the versions and machine it was made with."""
    created = summary.get("created")
    facts = {"id": summary["id"], "strategy": run_summary.format_strategy(summary)}
    if isinstance(created, int | float) and 0 <= created < 4e9:
        facts["created"] = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts |= {
        f"parameters, {name}": number(value) for name, value in summary["params"].items() if isinstance(value, int)
    }
    return Part(
        "Setup",
        [
            Text("Configuration", yaml_text(by_name(summary["config"]))),
            Table("Versions, machine and size", facts_frame(facts | machine(summary))),
        ],
    )


def facts_frame(facts: Mapping[str, str]) -> pd.DataFrame:
    """Return facts as a table of two columns."""
    return pd.DataFrame({"what": list(facts), "value": list(facts.values())}, dtype=object)
