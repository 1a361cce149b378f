"""Marks of the tests that kill processes."""

from __future__ import annotations

import os

import pytest

NOT_ON_WINDOWS = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
"""Children share memory with the one they were forked from, which Windows cannot do."""
