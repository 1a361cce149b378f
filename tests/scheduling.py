"""Which tests share a worker: those that share something made once, so that it is made once.

A file's tests stay together; browser tests that are no journeys share one browser and one dashboard; the contract's
tests of one method read one trained run. What takes longest begins first, so that no worker is left alone with it at
the end. Journeys come in every worker one after the other, so each worker has one browser for all of its own.
"""

from __future__ import annotations

import re

FIRST = (
    "tests/browser/",
    "tests/faults/",
    "tests/inference/",
    "tests/training/",
    "tests/pages/test_model_trouble.py",
    "tests/docs/",
    "dynlora/contracts/",
    "tests/assets/",
    "tests/cli/",
    "tests/jobs/",
    "tests/pages/",
    "tests/strategies/",
    "tests/attack/",
    "tests/viz/",
    "tests/engine/",
)
"""Files and folders in the order in which they begin, the longest first; all else comes last."""

BROWSER, JOURNEYS = "tests/browser/", "_journey.py"
"""Folder of the browser tests, and how the names of files end that hold long ones alone."""

BY_METHOD = "dynlora/contracts/test_strategies.py"
"""Its tests of one method share one run."""

ALONE = (
    "tests/browser/test_buttons_journey.py",
    "tests/pages/test_pages.py",
    "tests/pages/test_states.py",
    "tests/strategies/test_dynamic.py",
    "tests/inference/test_inference_child.py",
    "tests/training/test_survival.py",
)
"""Long files whose tests share nothing: each goes to whoever is free."""


def rank(nodeid: str) -> int:
    """Return the place of a test in the order of beginning."""
    return next((place for place, start in enumerate(FIRST) if nodeid.startswith(start)), len(FIRST))


def kinship(nodeid: str) -> str:
    """Return what a test shares with others; those with the same run in one worker, one after the other."""
    file, _, test = nodeid.partition("::")
    if file.startswith(BROWSER) and not file.endswith(JOURNEYS):
        return BROWSER
    if file == BY_METHOD and (match := re.search(r"\[(\w+)", test)):
        return f"{file}[{match[1]}"
    return nodeid if file in ALONE else file
