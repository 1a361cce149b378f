"""Whether a run can continue, and with which settings. Nothing here needs torch: a refusal is quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynlora.config import RunConfig, parse_config
from dynlora.config_files import as_made
from dynlora.errors import ConfigError
from dynlora.renamed_settings import gone_values
from dynlora.store.meta import TRAIN, kind_of, table
from dynlora.store.writer import RunWriter

FIXED = ("seed", "model", "data", "adapter", "strategy", "train.batch_size", "train.grad_accum", "log.eval_rows")
"""What a run keeps: its state fits no other model, data, adapters, method or order of the examples. Its best
adapter is the best on one sample of the held-out examples."""

MOVED = ("model.name", "data.name", "data.path")
"""Places, which may have changed: a digest says whether the data are the same, a checkpoint whether the model fits."""

DEFAULT = "its default"
"""Stands for a field of a method that is not set."""

Changes = Mapping[str, tuple[Any, Any]]
"""Old and new value of each setting that was changed, by dotted key."""


def check_resumable(run_id: str, status: Any, force: bool) -> None:
    """Refuse to continue a run that is finished, running, or may be running elsewhere.

    Raises:
        ConfigError: one sentence that says what to do instead.
    """
    if status.status == "finished":
        raise ConfigError(f"resume {run_id}: the run is finished; start a new run with more train.steps")
    if status.is_running and status.other_host and not force:
        raise ConfigError(
            f"resume {run_id}: the run was last written on host {status.host}, {status.heartbeat_age_s:.0f} s ago; "
            "make sure it has ended there, then add --force"
        )
    if status.is_running and not status.other_host:
        raise ConfigError(f"resume {run_id}: the run is running (process {status.pid}); stop it first")


def check_own(run_id: str, meta: Mapping[str, Any]) -> None:
    """Refuse to train a run of another kind, and one that another program trained and that was only recorded.

    Raises:
        ConfigError: one sentence that says what to do instead.
    """
    if (kind := kind_of(meta)) != TRAIN:
        raise ConfigError(f"resume {run_id}: is a {kind} run and not trained; the command resume continues it")
    if meta.get("imported"):
        by = meta.get("recorded_by")
        raise ConfigError(f"resume {run_id}: the run was imported from {by!s:.40}; continue it where it was trained")
    if by := meta.get("recorded_by"):
        raise ConfigError(f"resume {run_id}: the run was trained by a script with {by!s:.40}; continue it there")


def check_method(run_id: str, stored: Any) -> None:
    """Refuse to continue a run whose method had a value that no method has now; its pages and its adapter stay.

    Args:
        run_id: of the run.
        stored: the settings in the store.

    Raises:
        ConfigError: one sentence that says what to do instead.
    """
    for key, value in gone_values(table(table(stored).get("strategy"))).items():
        raise ConfigError(
            f"resume {run_id}: strategy.{key}={value!s:.40} is no longer a setting, and a run keeps its method; start "
            "a new run without it"
        )


def changed_settings(run_id: str, stored: Any, config: RunConfig) -> Changes:
    """Return what differs between the settings a run began with and its config.yaml; length, rates and log may.

    Args:
        run_id: of the run.
        stored: the settings in the store; those of runs that kept none cannot be compared.
        config: what config.yaml says now.

    Raises:
        ConfigError: when something of `FIXED` was changed.
    """
    try:
        before = _flat(parse_config(as_made(stored))) if isinstance(stored, Mapping) else {}
    except ConfigError:
        return {}  # of another version: what it says cannot be read any more
    now = _flat(config)
    keys = [key for key in {**before, **now} if key in before or before and key.startswith("strategy.")]
    pairs = {key: (before.get(key, DEFAULT), now.get(key, DEFAULT)) for key in keys}
    changed = {key: values for key, values in pairs.items() if values[0] != values[1]}
    fixed = [key for key in changed if not {key, key.partition(".")[0]}.isdisjoint(FIXED) and key not in MOVED]
    if fixed:
        old, new = changed[fixed[0]]
        raise ConfigError(
            f"resume {run_id}: {fixed[0]} was changed in config.yaml from {old} to {new}, and a run keeps its method, "
            "data, adapters and evaluations; restore it, or start a new run"
        )
    return changed


def record_changes(writer: RunWriter, step: int, config: RunConfig, total: int, changed: Changes) -> None:
    """Write changed settings to the store: an event, a line of the log, and the settings as they are now."""
    if not changed:
        return
    writer.event(step, "settings", [], {"changed": {key: list(values) for key, values in changed.items()}})
    changes = ", ".join(f"{key} from {old} to {new}" for key, (old, new) in changed.items())
    writer.log("warning", f"config.yaml was changed before step {step} was continued: {changes}")
    for key, value in (
        ("config", config.stored()),
        ("model", config.model.name),
        ("data", config.data.source),
    ):
        writer.set_meta(key, value)
    writer.update_max_steps(total)


def _flat(config: RunConfig) -> dict[str, Any]:
    """Return settings by dotted key; the name of a run is no setting."""
    flat: dict[str, Any] = {}
    for section, value in config.model_dump(mode="json").items():
        if isinstance(value, dict):
            flat |= {f"{section}.{key}": item for key, item in value.items()}
        elif section != "name":
            flat[section] = value
    return flat
