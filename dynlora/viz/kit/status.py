"""Words for the states of a run."""

from __future__ import annotations

STATUS_WORDS = {"corrupt": "unreadable"}
"""Statuses that are said otherwise: a run of a newer dynlora cannot be read either, and is not corrupt."""
