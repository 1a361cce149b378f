"""A decode that is ready to start: its roles loaded, its problems read, its points listed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynlora import assets
from dynlora.assets.cache import sha256_of
from dynlora.blocks import Blocks, parse_blocks
from dynlora.config import RunConfig, parse_config
from dynlora.engine.loop.checkpoint import find_checkpoint
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError, RunRoleError
from dynlora.kinds.decode.settings import OWN, REWARDS, DecodeSettings
from dynlora.kinds.decode.work.points import plain, points_of
from dynlora.kinds.decode.work.problems import Problem, problems_of
from dynlora.kinds.decode.work.roles import Judge, cast_of
from dynlora.kinds.decode.work.solve import DRAFT, TARGET, Cast, Limits, Point
from dynlora.kinds.named_runs import ADAPTERS, NamedRun
from dynlora.store.meta import section, text, whole
from dynlora.training.inputs import read_data

LINE, BLANK_LINE = "\n", "\n\n"
"""What ends a step in the built-in data, and elsewhere, as published."""


@dataclass(frozen=True)
class Plan:
    """A decode that is ready to start.

    Attributes:
        cast: the roles.
        problems: held-out problems.
        points: each role alone, then the rules.
        limits: of each solution.
        seed: of what is drawn.
        meta: what the store keeps under `decode`.
        diagnosed: folder of the run whose nested ranks are measured, None where they are not.
    """

    cast: Cast
    problems: list[Problem]
    points: list[Point]
    limits: Limits
    seed: int
    meta: dict[str, Any]
    diagnosed: Path | None = None

    @property
    def total(self) -> int:
        """Solutions to be written."""
        return len(self.points) * len(self.problems)


def planned(settings: DecodeSettings, runs_dir: Path, function: Any = None) -> Plan:
    """Load the runs and the problems of a decode.

    Args:
        settings: of the decode.
        runs_dir: where its runs are looked for.
        function: the reward, where it is a function of one's own.

    Raises:
        DynloraError: one sentence that says what cannot be used.
    """
    draft, target = settings.writers(runs_dir)
    judge = settings.judge(runs_dir)
    if settings.reward == OWN and function is None:
        raise ConfigError(
            "reward callable: is a function, which only Python can give; call dynlora.speculate(reward=...) again"
        )
    config = _problem_config(settings, target)
    step_string = settings.step_string or _usual_step(config)
    reward: Judge = judge.folder if judge is not None else function or settings.reward
    cast = cast_of(draft.folder, target.folder, reward, step_string)
    data = read_data(config)
    problems = problems_of(data.held_out, cast.roles, _places(len(data.held_out), settings.limit, settings.seed))
    limits = Limits(settings.new_tokens, settings.step_tokens, settings.max_steps)
    points = points_of(settings.accept, settings.values, settings.control, ends=settings.ends)
    meta = {
        "points": [{"key": point.key, "accept": point.accept, "value": plain(point.value)} for point in points],
        "roles": {
            DRAFT: _described(draft, cast.draft.size.parameters),
            TARGET: _described(target, cast.target.size.parameters),
            "reward": {
                "kind": settings.reward if settings.reward in REWARDS else "classifier",
                "run": None if judge is None else judge.id,
                "name": None if judge is None else judge.name,
            },
        },
        "roles_saved": roles_saved({DRAFT: draft, TARGET: target, "reward": judge}),
        "data": config.data.source,
        "digest": data.digest,
        "split": "validation",
        "problems": len(problems),
        "limits": asdict(limits),
        "step_string": step_string,
        "same_tokens": cast.same_tokens,
    }
    return Plan(cast, problems, points, limits, settings.seed, meta, target.folder if settings.nested_ranks else None)


def _problem_config(settings: DecodeSettings, target: NamedRun) -> RunConfig:
    """Return the target's settings with the data of the decode: all its held-out examples.

    The seed is the target's, and so is all that it says of its own data, also where the decode names that data again:
    together they say which rows were held out of its training.
    """
    values = dict(target.config)
    data = section(values, "data")
    if settings.data is not None and not _is_of(data, settings.data):
        keep = {key: data[key] for key in ("prompt", "completion", "messages", "answer", "text") if data.get(key)}
        source = "path" if Path(os.path.expanduser(settings.data)).exists() else "name"
        known = settings.data in assets.DATASETS
        data = {source: settings.data, "task": "causal_lm", **({} if known else keep)}
    seed = whole(values.get("seed")) or 0
    return parse_config({"seed": seed, "model": values.get("model"), "data": {**data, "max_eval": None}})


def _is_of(data: Mapping[str, Any], named: str) -> bool:
    """Say whether a name or path is that of a run's data, in whatever way the path is written."""
    path, given = text(data.get("path")), Path(os.path.expanduser(named))
    if path is None or not given.exists():
        return path is None and not given.exists() and named == data.get("name")
    known = Path(os.path.expanduser(path))
    return known.exists() and known.samefile(given)


def _usual_step(config: RunConfig) -> str:
    return LINE if config.data.path is None and config.data.name in assets.DATASETS else BLANK_LINE


def _places(rows: int, limit: int | None, seed: int) -> list[int]:
    """Return which rows are decoded: all, or a sample by key, in order."""
    drawn = np.random.default_rng(stream_seed(seed, "decode problems")).permutation(rows)[:limit]
    return sorted(int(row) for row in drawn)


def _blocks(value: object) -> Blocks | None:
    try:
        return parse_blocks(value)
    except ConfigError:  # of a config that somebody wrote
        return None


def _described(run: NamedRun, parameters: int) -> dict[str, Any]:
    model = section(run.config, "model")
    return {
        "run": run.id,
        "name": run.name,
        "model": text(model.get("name")),
        "layers": _blocks(model.get("layers")),
        "parameters": parameters,
    }


def roles_saved(runs: Mapping[str, NamedRun | None]) -> dict[str, str]:
    """Return the digest of what each run trained, by role; a role that is no run has none.

    Raises:
        RunRoleError: when a file has gone; one sentence.
    """
    return {role: _digest(run) for role, run in runs.items() if run is not None}


def _digest(run: NamedRun) -> str:
    try:
        return sha256_of(_adapter_folder(run.folder) / "tensors.safetensors")
    except OSError as error:
        raise RunRoleError(f"{run.role} {run.id}: its adapter cannot be read ({error.strerror}); try again") from None


def _adapter_folder(folder: Path) -> Path:
    """Return where the last adapter of a run is."""
    places = (find_checkpoint(folder / name) for name in ADAPTERS)
    return next((path for path in places if path is not None), folder / ADAPTERS[0])


def changed_role(before: Mapping[str, Any], now: Mapping[str, str]) -> str | None:
    """Return the first role that has another adapter than before; None where none has, or nothing was recorded."""
    return next((role for role, digest in now.items() if before.get(role, digest) != digest), None)
