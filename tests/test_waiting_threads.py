"""Threads of torch that wait go to sleep soon, in every process of dynlora's, unless the user has chosen otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import dynlora
from dynlora.jobs.environment import child_environment

SAYS = "import dynlora, os; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in __import__('sys').modules)"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, dynlora.SPIN_COUNT),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "None"),
    ],
)
def test_a_users_own_choice_stays(given: dict[str, str], expected: str) -> None:
    kept = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", SAYS], env={**kept, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [expected, "False"], "set before torch is imported"


def test_children_get_it() -> None:
    given = {"GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": "PASSIVE"}
    assert given.items() <= child_environment(given).items()
    assert child_environment().get("GOMP_SPINCOUNT") == os.environ.get("GOMP_SPINCOUNT")
