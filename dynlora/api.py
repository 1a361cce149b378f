"""Three lines of Python: train a run, or attach a strategy to a training loop of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dynlora.config import RunConfig, parse_config
from dynlora.config_files import with_run_folder
from dynlora.custom_loop.attach import attach
from dynlora.custom_loop.attached import Attached
from dynlora.notebook.run import Run, open_run
from dynlora.safe_files import path_of

__all__ = ["Attached", "attach", "load", "speculate", "train"]


def train(config: RunConfig | Mapping[str, Any], runs_dir: str | Path = "runs", *, progress: bool = True) -> Run:
    """Train a run to its end and return it.

    Args:
        config: a `RunConfig`, or plain values such as {"strategy": {"name": "dynamic"}}.
        runs_dir: folder that holds the runs.
        progress: show a progress bar.

    Raises:
        DynloraError: when something the config names cannot be used, or the run fails.

    Examples:
        >>> data = {"path": "reviews", "max_length": 16}
        >>> run = dynlora.train({"model": {"name": "my-bert"}, "data": data, "train": {"steps": 4}}, progress=False)
        >>> run.status
        'finished'
    """
    from dynlora.training import run as training_run

    folder = path_of("runs_dir", runs_dir)
    settings = with_run_folder(config if isinstance(config, RunConfig) else parse_config(config), folder)
    outcome = training_run.train(settings, folder, progress=progress)
    if outcome.state == "failed":
        raise training_run.RunFailedError(f"run {outcome.folder.name} failed: {outcome.error}")
    return open_run(outcome.folder)


def load(folder: str | Path, base: Any = None) -> Any:
    """Return a transformers model with an exported adapter and its gates on it, in eval mode.

    It works under a forward, `generate`, `pipeline` and `Trainer.predict`.

    Args:
        folder: that `dynlora export ID --format gated` wrote.
        base: a transformers model to put it on, whose linear modules are replaced in place; None loads the one that the
            folder names.

    Raises:
        AdapterError: when the folder holds no such adapter, or it belongs to another base model.
        AssetError: when the base model cannot be loaded.

    Examples:
        >>> model = dynlora.load("gated")  # of `dynlora export ID --format gated --out gated`
        >>> type(model).__name__, model.training
        ('BertForSequenceClassification', False)
    """
    from dynlora.inference.gated_adapter import load_gated

    return load_gated(folder, base)


def speculate(
    draft: str | Path | Run,
    target: str | Path | Run,
    reward: str | Path | Run | Callable[[str, str, str], float] = "target-likelihood",
    *,
    data: str | Path | None = None,
    threshold: float | Sequence[float] = 0.7,
    accept: str = "threshold",
    runs_dir: str | Path = "runs",
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Decode with a draft that writes steps, a reward that judges them, and a target that rewrites poor ones.

    Args:
        draft: run that writes each step first: its id, its folder, or what `train` returned.
        target: run that rewrites the steps that score too low.
        reward: a classification run, a name (oracle, target-likelihood, target-token), or a function of the question,
            the solution so far and the step that returns a number.
        data: built-in data, a hub id or a file; None takes the target's.
        threshold: rewards from which a step is kept, one point each.
        accept: threshold, constant (a probability instead of a reward), clip or sigmoid.
        runs_dir: folder that holds the runs.
        progress: show a progress bar.
        settings: further fields of `DecodeSettings`: control, limit, seed, step_string, step_tokens, new_tokens,
            max_steps, name.

    Returns:
        The decode, a run of its own: `.summary["results"]` holds points, draft_alone and target_alone, and
        `.events("problem")` each solution.

    Raises:
        DynloraError: when something that is named cannot be used, or the decode fails.

    Examples:
        >>> decode = dynlora.speculate("draft", "target", "target-token", limit=1, new_tokens=4, progress=False)
        >>> [point["threshold"] for point in decode.summary["results"]["points"]]
        [0.7]
    """
    from dynlora.kinds.decode.settings import OWN, DecodeSettings
    from dynlora.kinds.decode.work.run import decode
    from dynlora.training.folder_work import RunFailedError

    function = reward if callable(reward) else None
    values = list(threshold) if isinstance(threshold, Iterable) and not isinstance(threshold, str) else [threshold]
    parsed = DecodeSettings.parse(
        {
            "draft": _place("draft", draft),
            "target": _place("target", target),
            "accept": accept,
            "values": values,
            "reward": OWN if function is not None else _place("reward", reward),
            "data": None if data is None else _data(data),
            **settings,
        }
    )
    outcome = decode(parsed, path_of("runs_dir", runs_dir), progress=progress, function=function)
    if outcome.state == "failed":
        raise RunFailedError(f"run {outcome.folder.name} failed: {outcome.error}")
    return open_run(outcome.folder)


def _place(role: str, run: Any) -> str:
    """Return the folder of a run as an absolute path, from wherever the decode continues; an id or a name as it is."""
    place = run.folder if isinstance(run, Run) else run
    path = Path(os.path.expanduser(path_of(role, place)))
    is_name = isinstance(place, str) and place == Path(place).name
    return str(place) if is_name or not path.is_dir() else os.path.abspath(path)


def _data(data: str | Path) -> str:
    """Return a file or folder of data as an absolute path; the name of built-in data or a hub id as it is."""
    path = Path(os.path.expanduser(path_of("data", data)))
    return os.path.abspath(path) if path.exists() else str(data)
