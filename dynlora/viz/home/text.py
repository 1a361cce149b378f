"""The words of the first page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynlora.analysis.run_summary import about, format_progress
from dynlora.text import one_line

TITLE = "dynlora trains LoRA adapters, moves rank to the modules that need it, and shows every step."
"""What dynlora is, in one sentence."""

PLACE = "Data, models and runs stay on this machine."

TOUR = "New here? The tour explains rank, importance and gates on a finished run, in six short stops."


def picture_title(summary: Mapping[str, Any], *, is_live: bool) -> str:
    """Return the title of the picture: which run it is, and how far one that trains has come.

    Args:
        summary: as `queries.run_summary` returns it.
        is_live: whether the run trains now.
    """
    name = one_line(summary["name"], 60)
    return f"Training now: {name}, {format_progress(summary)}" if is_live else f"Rank over training: {name}"


def picture_words(summary: Mapping[str, Any], caption: str) -> str:
    """Return what stands under the picture.

    Args:
        summary: as `queries.run_summary` returns it.
        caption: what the picture shows, computed.
    """
    return f"{about(summary)}. {caption}"
