"""What a child process inherits from the one that starts it."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from dynlora.errors import ConfigError
from dynlora.text import printable

_PREFIXES = {
    "files of models and packages": ("HF_", "PIP_", "UV_", "SSL_CERT_", "XDG_"),
    "language and dynlora": ("LC_", "DYNLORA_"),
    "threads": ("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "NUMEXPR_"),
    "torch": ("TORCH_", "PYTORCH_", "TRANSFORMERS_", "TOKENIZERS_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_"),
    "trackers": ("MLFLOW_", "TRACKIO_", "WANDB_"),
}
_NAMES = {
    "user": ("HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ"),
    "folders": ("PATH", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH"),
    "Python": ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING"),
    "network": ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "FTP_PROXY"),
    "certificates": ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    "trackers": ("AIM_REPO", "DO_NOT_TRACK", "TENSORBOARD_LOGGING_DIR"),
    "Windows": (
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "COMSPEC",
        "PATHEXT",
        "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
    ),
    "Windows folders": ("APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES"),
    "Windows user": ("USERNAME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH"),
}
"""Variables that a child process inherits, by what they are for."""

_KEPT_PREFIXES = tuple(prefix for group in _PREFIXES.values() for prefix in group)
_KEPT = frozenset(name for group in _NAMES.values() for name in group)

TOKEN_VARIABLE = "DYNLORA_TOKEN"

WARM_VARIABLE = "DYNLORA_WARM"
"""Variable that must be 1 for a warm spare to be kept: `dynlora ui` sets it where the user has not."""

MIRROR_VARIABLE = "DYNLORA_MIRROR_OF"
"""Variable with the address of the runs that a dashboard shows a copy of, without what is secret of it."""

JOB_VARIABLE = "DYNLORA_JOB"
"""Variable with the path of the record that a helper process writes, see `helper_job`."""

QUEUE_VARIABLE = "DYNLORA_QUEUE"
"""Variable that is 0 in a process that starts no queued run after its own: a cluster decides what runs where."""

TIED_VARIABLE = "DYNLORA_TIED"
"""Variable that is set where the server of the dashboard ends with the command whose pipe is its standard input."""

_DROPPED = frozenset((TOKEN_VARIABLE, WARM_VARIABLE, MIRROR_VARIABLE, JOB_VARIABLE, TIED_VARIABLE))


def process_number(variable: str, default: int) -> int:
    """Return what `RANK` or `WORLD_SIZE` says of several processes that train one run together.

    Raises:
        ConfigError: when it is no whole number.
    """
    value = os.environ.get(variable, str(default))
    if not value.isascii() or not value.isdecimal() or len(value) > 6:
        raise ConfigError(
            f"{variable}={printable(value)}: must be a whole number; start several processes with "
            "`accelerate launch -m dynlora train`, or unset it"
        )
    return int(value)


def starts_others() -> bool:
    """Say whether this process starts the next queued run of the folder when its own has ended."""
    return os.environ.get(QUEUE_VARIABLE) != "0"


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command of a child that runs a module; modules of the current folder are not imported.

    That folder may be a download, or hold a `queue.py` of its own.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def import_path(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that let a child, and its own children, find dynlora but nothing in the current folder.

    A checkout that is not installed may be on this process's path only because it is the current folder.
    """
    home, path = str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")
    is_on_path = home in [*sys.path[1:], *path.split(os.pathsep)]
    located = {} if is_on_path else {"PYTHONPATH": os.pathsep.join(filter(None, (home, path)))}
    return {"PYTHONSAFEPATH": "1", **located}


def child_environment(environment: Mapping[str, str] | None = None, job: Path | None = None) -> dict[str, str]:
    """Return what a child inherits: models, packages, trackers, proxies, threads, devices; the rest is dropped.

    Args:
        environment: to choose from; None: that of this process.
        job: the record that a helper process is given.
    """
    source = os.environ if environment is None else environment
    variables = {
        name: value
        for name, value in source.items()
        if name.upper() in _KEPT or (name.upper().startswith(_KEPT_PREFIXES) and name.upper() not in _DROPPED)
    }
    own = {"PYTHONUNBUFFERED": "1"} if job is None else {"PYTHONUNBUFFERED": "1", JOB_VARIABLE: str(job)}
    telemetry = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    return telemetry | variables | import_path(source) | own


WHILE_IMPORTING = (100_000, 50, 100)
"""Thresholds of the collector until the imports are done: they make objects that stay."""

NO_BARS = "HF_DATASETS_DISABLE_PROGRESS_BARS"
"""The variable that `datasets` looks at when it is imported."""

_state = {"is_own": False}
_usual: tuple[int, int, int] = gc.get_threshold()


def begin() -> None:
    """Say that this process is dynlora's own, before it imports anything large."""
    _state["is_own"] = True
    os.environ.setdefault(NO_BARS, "1")
    os.environ.update(import_path(os.environ))
    gc.set_threshold(*WHILE_IMPORTING)
    atexit.register(_leave)  # registered first, so called last: what is left then goes with the process


def _leave() -> None:
    """Spare the collector what is left, unless Triton is loaded: its bindings print a line for each object that stays.

    PyPI's torch for Linux brings Triton; CPU builds do not.
    """
    gc.unfreeze() if "triton" in sys.modules else gc.freeze()


def imported() -> None:
    """Leave what is there alone from here on, and collect as usual what is made after it: imports are done."""
    if _state["is_own"]:
        gc.freeze()
        gc.set_threshold(*_usual)
