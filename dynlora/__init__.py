"""dynlora: LoRA fine-tuning whose rank moves to the modules that matter, and the dashboard that shows it.

The public functions are loaded when they are first used: importing dynlora loads neither torch nor streamlit.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynlora.api import attach, load, speculate, train
    from dynlora.config_files import load_config
    from dynlora.notebook.comparison import compare
    from dynlora.notebook.run import open_run

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read once, when the hub's client is imported
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")  # else datasets tells a server of each file it reads
os.environ.setdefault("USE_HUB_KERNELS", "NO")  # else transformers fetches and runs code of the hub for some models

SPIN_COUNT = "10000"
"""Turns that a thread of torch's OpenMP (libgomp) waits awake before it sleeps; libgomp's own value is 300,000.

Threads that wait awake for milliseconds keep a second process from the cores they wait on, and each step waits often.
"""

if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT  # read once, when torch is imported; a user's own choice stays

__version__ = "0.2.0"
__all__ = ["attach", "compare", "load", "load_config", "open_run", "speculate", "train"]

_HOMES = {
    "attach": "api",
    "compare": "notebook.comparison",
    "load": "api",
    "load_config": "config_files",
    "open_run": "notebook.run",
    "speculate": "api",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    """Load a public function on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dynlora' has no attribute {name!r}")
    return getattr(import_module(f"dynlora.{_HOMES[name]}"), name)
