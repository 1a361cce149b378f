"""What a search is asked for on the command line, made into one study or several with the same budget of trials."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dynlora.config import parse_config
from dynlora.config_files import parse_value, set_key, split_override
from dynlora.errors import ConfigError
from dynlora.integrations.search.driver import Search
from dynlora.integrations.search.space import Choice, Range, Space, space_of
from dynlora.jobs.search import MOST_SEEDS, MOST_TRIALS, NAME
from dynlora.tasks import registry

RATES = "5e-4..3e-2:log"
"""Learning rates of the preset `--rates`: wide enough for adapters of any rank on the embedded models."""

MOST_STUDIES = 16
LOOKS = 8
"""Evaluations of a run that a pruner may stop, where the configuration does not say."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        study: name of the study, or of the first part of the names.
        trials: of each study.
        objective: metric, or loss.
        sampler: one of `study.SAMPLERS`.
        pruner: one of `study.PRUNERS`.
        each: KEY=A,B,C: a study for each value; empty for one study.
        rates: whether the learning rate is searched over `RATES` where no range is given.
        confirm: new seeds on which the best of each study and the default are trained.
    """

    study: str
    trials: int = 20
    objective: str = "loss"
    sampler: str = "tpe"
    pruner: str = "median"
    each: str = ""
    rates: bool = False
    confirm: int = 3


def searches(request: Request, base: Mapping[str, Any], listed: Mapping[str, str]) -> list[Search]:
    """Return the studies.

    Args:
        request: what is asked for.
        base: configuration of every run, as plain values.
        listed: values by dotted key, as text.

    Raises:
        ConfigError: when a name, a number, a range or the configuration breaks a rule.
    """
    _check(request)
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
    made = Search(
        name, base, space, request.trials, request.objective, direction, request.sampler, request.pruner
    ).config(fixed, "")
    config = parse_config(made)
    for key, value in ends(space):
        tried = copy.deepcopy(made)
        set_key(tried, key, value)
        parse_config(tried)
    if request.pruner != "none" and config.log.eval_every is None and config.train.epochs is None:
        set_key(made, "log.eval_every", max(1, (config.train.steps or 400) // LOOKS))
    return Search(name, made, space, request.trials, request.objective, direction, request.sampler, request.pruner)


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
    found = {f"{request.study}-{re.sub(r'[^A-Za-z0-9_.-]', '_', str(value))}": {key: value} for value in values}
    if len(found) > MOST_STUDIES or any(not NAME.fullmatch(name) for name in found):
        raise ConfigError(
            f"--each {request.each[:60]}: must be at most {MOST_STUDIES} short values, such as "
            "strategy.name=lora,dynamic"
        )
    return found


def _check(request: Request) -> None:
    """Refuse numbers and names that break a rule.

    Raises:
        ConfigError: for the first one.
    """
    if not NAME.fullmatch(request.study):
        raise ConfigError(f"--study {request.study[:60]}: must be 1 to 40 letters, digits and _ . -, such as rates-1")
    for name, value, low, most in (
        ("trials", request.trials, 1, MOST_TRIALS),
        ("confirm", request.confirm, 0, MOST_SEEDS),
    ):
        if not low <= value <= most:
            raise ConfigError(f"--{name} {value}: must be from {low} to {most}; change it")
