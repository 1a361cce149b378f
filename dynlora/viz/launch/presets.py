"""What a launch form starts from: a preset, or another run's configuration and its baselines at an equal budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynlora.analysis.config_fields import flat
from dynlora.config import StrategyConfig
from dynlora.text import one_line

PRESETS: dict[str, dict[str, Any]] = {
    "Quick look": {"train.steps": 100, "adapter.rank": 4, "data.max_eval": 500},
    "Teaching": {
        "train.steps": 80,
        "train.batch_size": 16,
        "train.lr": 2e-3,
        "adapter.rank": 4,
        "data.max_length": 48,
        "data.max_train": 2000,
        "data.max_eval": 200,
        "log.eval_every": 10,
        "log.every": 2,
        "strategy.warmup_steps": 10,
        "strategy.final_steps": 20,
        "strategy.allocate_every": 7,
        "strategy.moves": 12,
        "strategy.gates": "module",
    },
    "Instruction tuning": {
        "model.name": "smollm2-135m",
        "data.name": "arithmetic",
        "data.max_length": 256,
        "data.max_eval": 200,
        "train.steps": 200,
        "train.batch_size": 8,
        "train.lr": 5e-4,
        "adapter.rank": 8,
        "log.eval_every": 50,
        "log.generate_rows": 16,
        "log.generate_max": 96,
    },
    "Language modelling": {
        "model.name": "smollm2-135m",
        "data.name": "sentiment4-text",
        "data.max_length": 64,
        "data.max_eval": 400,
        "train.steps": 200,
        "train.batch_size": 8,
        "train.lr": 5e-4,
        "adapter.rank": 8,
        "log.eval_every": 50,
        "log.generate_rows": 8,
        "log.generate_max": 32,
    },
    "Quality": {"train.steps": 1500, "adapter.rank": 8, "train.lr": 5e-4},
    "Defaults": {},
}
"""Starting values of the form, by the name of the preset; a field that a strategy lacks is left out there."""

PRESET_WORDS = {
    "Quick look": "100 steps, to check that everything works.",
    "Teaching": "A tiny run for learning: frequent rank transfers, gates that see the input, many evaluations.",
    "Instruction tuning": "A language model learns to answer: prompts with completions, or conversations. "
    "Built-in word problems, or a file of your own.",
    "Language modelling": "A language model learns to continue plain text.",
    "Quality": "Long enough to compare methods.",
    "Defaults": "The default settings of `dynlora train`.",
}
"""What each preset is for."""

TWINS = {
    "same": "Same settings",
    "uniform": "Uniform baseline",
    "random": "Random control",
    "default": "Default method",
}
"""Name in the address and words of what can be made of another run."""

TWIN_WORDS = {
    "same": "The settings of the other run, for changes.",
    "uniform": "The same rank, seed, data and steps, with one rank for all modules: the baseline for dynamic ranks.",
    "random": "The same number of moves, chosen at random: the control for importance-based moves.",
    "default": "The same rank, seed, data and steps, with the default method, which moves rank.",
}
"""What each baseline is for."""

UNIFORM = "lora"
"""The strategy in which every module keeps the same rank: the control at an equal budget."""

DEFAULT = StrategyConfig().name  # pyright: ignore[reportCallIssue]
"""The method of a run whose configuration names none."""

CONTROL = ("allocation", "random")
"""The field, and its value, by which a strategy offers random moves."""


def twins(config: Mapping[str, Any], strategies: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the starting values of each baseline that a run has, by its name in the address.

    Args:
        config: the run's configuration; it may come from someone else's run.
        strategies: what the catalogue says of each strategy, by name.
    """
    values = {key: value for key, value in flat(config).items() if value is not None}
    title = one_line(values.get("name") or "a run", 80)
    configs = {"same": values}
    uniform = _by_method(UNIFORM, values, strategies)
    if uniform is not None:
        configs["uniform"] = uniform | {"name": f"uniform baseline of {title}"}
    key, value = f"strategy.{CONTROL[0]}", CONTROL[1]
    if has_control(strategies.get(str(values.get("strategy.name")), {})) and values.get(key) != value:
        configs["random"] = values | {key: value, "name": f"random control of {title}"}
    usual = None if values.get("strategy.name") == DEFAULT else _by_method(DEFAULT, values, strategies)
    if usual is not None:
        configs["default"] = usual | {"name": f"{DEFAULT} like {title}"}
    return configs


def _by_method(
    name: str, values: Mapping[str, Any], strategies: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return the values with another method and those of its fields that were set; None where they are the same."""
    if name not in strategies:
        return None
    settings = {f"strategy.{row['name']}" for row in strategies[name].get("fields", [])}
    changed = {key: value for key, value in values.items() if not key.startswith("strategy.") or key in settings}
    changed["strategy.name"] = name
    return None if changed == dict(values) else changed


def has_control(strategy: Mapping[str, Any]) -> bool:
    """Say whether a strategy offers random moves, the control for those by importance."""
    return any(row["name"] == CONTROL[0] and CONTROL[1] in row.get("choices", ()) for row in strategy.get("fields", []))
