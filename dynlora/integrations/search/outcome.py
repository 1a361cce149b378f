"""What a study found, as plain values: its trials, the best one, and which settings mattered."""

from __future__ import annotations

from typing import Any

from dynlora.integrations.search.driver import best_trial
from dynlora.integrations.search.study import optuna

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
    found = optuna()
    done = study.get_trials(deepcopy=False, states=(found.trial.TrialState.COMPLETE,))
    varying = {key for trial in done for key in trial.params if len({str(one.params.get(key)) for one in done}) > 1}
    if len(done) < ENOUGH_TRIALS or not varying or len({trial.value for trial in done}) < 2:
        return {}
    evaluator = found.importance.FanovaImportanceEvaluator(seed=0)
    shares = found.importance.get_param_importances(study, evaluator=evaluator, params=sorted(varying))
    return {key: round(float(share), 4) for key, share in shares.items()}
