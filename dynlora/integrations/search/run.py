"""Studies run to their end, then confirmed: best and default are trained on seeds that chose nothing."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dynlora.config import parse_config
from dynlora.config_files import parse_value, set_key, split_override
from dynlora.errors import ConfigError
from dynlora.integrations.search.driver import (
    Choice,
    Driver,
    Range,
    Say,
    Search,
    Space,
    best_trial,
    optuna,
    space_of,
)
from dynlora.jobs.spawn import Folder, locked, own_folder, runs_root
from dynlora.jobs.sweep import NAME, STUDIES_DIR, Request
from dynlora.tasks import registry

ENOUGH_TRIALS = 6
"""Finished trials from which on it is said which settings mattered."""


def found_by(study: Any) -> dict[str, Any]:
    """Return a study as plain values: trials, best, importance.

    `importance` is the part of the objective's variance over the space that a setting explains (fANOVA), by key; empty
    for few trials.
    """
    best = best_trial(study)
    return {
        "study": study.study_name,
        "objective": study.user_attrs.get("objective"),
        "direction": study.direction.name.lower(),
        "trials": [_plain(trial) for trial in study.get_trials(deepcopy=False)],
        "best": None if best is None else _plain(best),
        "importance": _importance(study),
    }


def _plain(trial: Any) -> dict[str, Any]:
    """Return a trial as plain values."""
    steps = trial.intermediate_values
    last = steps[max(steps)] if steps else None
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "status": trial.user_attrs.get("status"),
        "value": trial.value if trial.state.is_finished() else None,
        "last": last,
        "run": trial.user_attrs.get("run"),
        "values": dict(trial.params),
    }


def _importance(study: Any) -> dict[str, float]:
    """Return what part of the variance each setting explains, the largest first."""
    package = optuna()
    done = study.get_trials(deepcopy=False, states=(package.trial.TrialState.COMPLETE,))
    varying = {key for trial in done for key in trial.params if len({str(one.params.get(key)) for one in done}) > 1}
    if len(done) < ENOUGH_TRIALS or not varying or len({trial.value for trial in done}) < 2:
        return {}
    evaluator = package.importance.FanovaImportanceEvaluator(seed=0)
    shares = package.importance.get_param_importances(study, evaluator=evaluator, params=sorted(varying))
    return {key: round(float(share), 4) for key, share in shares.items()}


def study_file(runs_dir: Folder, name: str) -> Path:
    """Return the file of a study."""
    return runs_root(runs_dir) / STUDIES_DIR / f"{name}.jsonl"


def run_all(searches: Sequence[Search], runs_dir: Folder, confirm: int, say: Say) -> list[dict[str, Any]]:
    """Run studies, continuing those that exist, and return what each found.

    Each holds what `found_by` returns, `default` {run, value}, and `seeds` [{seed, best, default}]: the runs that
    confirm, by id.

    Args:
        searches: the studies.
        runs_dir: folder of the runs; made when missing.
        confirm: new seeds on which best and default are trained.
        say: told a line for each run.

    Raises:
        ConfigError: when Optuna is missing, a study has another objective, or the default values cannot be used.
        CorruptRunError: when the file of a study cannot be read.
        RunBusyError: when another process searches in the same study.
    """
    root = runs_root(runs_dir, make=True)
    folder = own_folder(root, STUDIES_DIR)
    documents = []
    for search in searches:
        with locked(folder / f"{search.name}.lock", 0.5):
            documents.append(_run(Driver(search, root, study_file(root, search.name), say), confirm))
    return documents


def _run(driver: Driver, confirm: int) -> dict[str, Any]:
    """Run one study and confirm its best trial."""
    objective = driver.search.request.objective
    default = driver.other({}, "default")
    if default.status == "failed":
        raise ConfigError(f"run {default.run} with the default values failed: {default.why or 'see its log'}")
    if default.status == "finished" and default.value is None:
        raise ConfigError(
            f"--objective {objective}: run {default.run} with the default values records "
            f"{', '.join(sorted(default.metrics)) or 'no metric'}; name one of these"
        )
    value = default.status if default.value is None else f"{objective} {default.value:.4f}"
    driver.tell(f"default: {value}")
    driver.run()
    best = best_trial(driver.study)
    seeds = [] if best is None else _confirmed(driver, best.params, confirm)
    return {**found_by(driver.study), "default": {"run": default.run, "value": default.value}, "seeds": seeds}


def _confirmed(driver: Driver, values: Mapping[str, Any], confirm: int) -> list[dict[str, Any]]:
    """Train the best values and the default on new seeds."""
    first = int(driver.search.base.get("seed") or 0) + 1
    rows = []
    for seed in range(first, first + confirm):
        ends = {
            "best": driver.other(values, f"best seed {seed}", seed),
            "default": driver.other({}, f"default seed {seed}", seed),
        }
        losses = [f"{name} {'–' if end.value is None else f'{end.value:.4f}'}" for name, end in ends.items()]
        driver.tell(f"seed {seed}: {driver.search.request.objective} {', '.join(losses)}")
        if all(end.status == "finished" for end in ends.values()):
            rows.append({"seed": seed, **{name: end.run for name, end in ends.items()}})
    return rows


RATES = "5e-4..3e-2:log"
"""Learning rates of the preset `--rates`: wide enough for adapters of any rank on the embedded models."""

MOST_STUDIES = 16
LOOKS = 8
"""Evaluations of a run that a pruner may stop, where the configuration does not say."""


def searches(request: Request, base: Mapping[str, Any], listed: Mapping[str, str]) -> list[Search]:
    """Return the studies.

    Args:
        request: what is asked for.
        base: configuration of every run, as plain values.
        listed: values by dotted key, as text.

    Raises:
        ConfigError: when a name, a number, a range or the configuration breaks a rule.
    """
    preset = {"train.lr": RATES} if request.rates and "train.lr" not in listed else {}
    space = space_of({**listed, **preset})
    fixed = {key: one.values[0] for key, one in space.items() if isinstance(one, Choice) and len(one.values) == 1}
    varying = {key: one for key, one in space.items() if key not in fixed}
    direction = "maximize" if is_higher_better(request.objective) else "minimize"
    return [
        _search(request, base, varying, name, {**fixed, **values}, direction)
        for name, values in _studies(request).items()
    ]


def _search(
    request: Request, base: Mapping[str, Any], space: Space, name: str, fixed: Mapping[str, Any], direction: str
) -> Search:
    """Return one study after a look at the configuration that all its runs share, and at each end of each range."""
    made = Search(name, base, space, direction, request).config(fixed, "")
    config = parse_config(made)
    for key, value in ends(space):
        tried = copy.deepcopy(made)
        set_key(tried, key, value)
        parse_config(tried)
    if request.pruner != "none" and config.log.eval_every is None and config.train.epochs is None:
        set_key(made, "log.eval_every", max(1, (config.train.steps or 400) // LOOKS))
    return Search(name, made, space, direction, request)


def ends(space: Space) -> Iterator[tuple[str, Any]]:
    """Yield each setting with both ends of its range, or each of its values."""
    for key, one in space.items():
        kind = int if isinstance(one, Range) and one.whole else float
        for value in one.values if isinstance(one, Choice) else (kind(one.low), kind(one.high)):
            yield key, value


def is_higher_better(objective: str) -> bool:
    """Say whether more of a metric is better.

    Raises:
        ConfigError: when no task has it.
    """
    known = {"loss": False}
    for task in registry().values():
        known |= dict(task.metrics)
    if objective not in known:
        raise ConfigError(f"--objective {objective[:60]}: must be one of {', '.join(sorted(known))}; name one of them")
    return known[objective]


def _studies(request: Request) -> dict[str, dict[str, Any]]:
    """Return the studies by name, and what each of them sets."""
    if not request.each:
        return {request.study: {}}
    key, _ = split_override(request.each)
    values = [parse_value(part.strip()) for part in request.each.partition("=")[2].split(",")]
    studies = {f"{request.study}-{re.sub(r'[^A-Za-z0-9_.-]', '_', str(value))}": {key: value} for value in values}
    if len(studies) > MOST_STUDIES or any(not NAME.fullmatch(name) for name in studies):
        raise ConfigError(
            f"--each {request.each[:60]}: must be at most {MOST_STUDIES} short values, such as "
            "strategy.name=lora,dynamic"
        )
    return studies
