"""Runs that play the roles: loaded, checked, and on one backbone with its weights in memory once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.evaluation.step_writing import cache_name
from dynlora.errors import ConfigError
from dynlora.inference.load import load_run
from dynlora.inference.writing import total_tokens
from dynlora.kinds.decode.work.rewards import BY_NAME, ClassifierReward, OwnReward, Reward
from dynlora.kinds.decode.work.solve import Cast
from dynlora.kinds.decode.work.writer import Role, StepEnd
from dynlora.tasks import WritingTask

CROPPABLE = ("full_attention", "sliding_attention", "chunked_attention")
"""Kinds of blocks whose keys and values can be taken back."""

Judge = Path | str | Callable[[str, str, str], float]
"""A reward: the folder of a run, a name of `BY_NAME`, or a function of question, solution so far, and step."""


def cast_of(draft: Path, target: Path, reward: Judge | None, step_string: str) -> Cast:
    """Load the runs that play the roles.

    Args:
        draft: folder of a run that learned to write.
        target: of another one, or the same.
        reward: of the steps.
        step_string: ends a step.

    Raises:
        ConfigError: when a run cannot play its role; one sentence.
    """
    models = {name: load_run(folder) for name, folder in (("draft", draft), ("target", target))}
    judge = reward_of(reward)
    loaded = [*models.values(), *([judge.model] if isinstance(judge, ClassifierReward) else [])]
    share_weights([model.base.model for model in loaded])
    roles = {name: role_of(name, model, step_string) for name, model in models.items()}
    same = same_tokenizer(models["draft"], models["target"])
    return Cast(roles["draft"], roles["target"], judge, same)


def role_of(name: str, model: AdaptedModel, step_string: str) -> Role:
    """Return a model as one that writes steps.

    Raises:
        ConfigError: when it writes no texts, or cannot take back what it has read.
    """
    if not isinstance(model.task, WritingTask):
        raise ConfigError(f"--{name}: is a run of {model.task.name}, which writes no texts; give one of causal_lm")
    try:
        cache_name(model.base.model)
    except ValueError as error:
        raise ConfigError(f"--{name}: {error}; give a run of another model") from None
    kinds = getattr(model.base.model.config.get_text_config(), "layer_types", None) or []
    if other := next((kind for kind in kinds if kind not in CROPPABLE), None):
        raise ConfigError(f"--{name}: its model has blocks of {other}, which cannot take back a step; give another run")
    return Role(name, model, StepEnd(model.base.tokenizer, step_string, name), total_tokens(model))


def reward_of(reward: Judge | None) -> Reward | None:
    """Return a reward by its name, of a run's folder or of a function.

    Raises:
        ConfigError: when the run cannot judge.
    """
    if reward is None:
        return None
    if isinstance(reward, Path):
        return ClassifierReward(load_run(reward), reward.name)
    return BY_NAME[reward]() if isinstance(reward, str) else OwnReward(reward)


def same_tokenizer(one: AdaptedModel, other: AdaptedModel) -> bool:
    """Say whether two models have the same tokenizer: the same words, in the same way."""
    first, second = (_written_down(model.base.tokenizer) for model in (one, other))
    return first == second


def _written_down(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend.to_str() if backend is not None else (type(tokenizer), tokenizer.get_vocab())


@torch.no_grad()
def share_weights(models: Sequence[nn.Module]) -> int:
    """Let frozen tensors of models that are equal, by name and value, be one tensor in memory; return the bytes saved.

    Adapters and trained heads stay each model's own. A model of some blocks shares those, whatever their numbers are.
    """
    known: dict[str, list[nn.Parameter]] = {}
    saved, seen = 0, set[int]()
    for model in models:
        for name, tensor in model.named_parameters():
            if tensor.requires_grad or id(tensor) in seen or "lora_" in name:
                continue
            seen.add(id(tensor))
            others = known.setdefault(re.sub(r"\.\d+\.", ".*.", name.replace(".base_layer", "")), [])
            twin = next((other for other in others if _equal(other, tensor)), None)
            if twin is None:
                others.append(tensor)
            elif twin.data_ptr() != tensor.data_ptr():
                saved += tensor.numel() * tensor.element_size()
                tensor.data = twin.data
    return saved


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one[:1], other[:1]) and torch.equal(one, other)  # most blocks differ at once
