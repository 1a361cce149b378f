"""The optimizer: AdamW over the strategy's groups and the head, its rate a pure function of the step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from dynlora.config import TrainConfig
from dynlora.engine.loop.schedule import lr_factor
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.strategy import Strategy

FUSED = {"cpu", "cuda", "xpu", "mps"}
"""Devices with one kernel for all of AdamW: on a processor ten small operations a tensor cost more than their sums."""


def build_optimizer(
    strategy: Strategy,
    adapters: Adapters,
    head: Iterable[nn.Parameter],
    config: TrainConfig,
    hidden: Iterable[nn.Parameter] = (),
) -> Optimizer:
    """Return AdamW over the strategy's groups, and the head at the end.

    Args:
        strategy: of the run.
        adapters: of the model.
        head: what is trained in full, layer by layer.
        config: of the optimisation.
        hidden: the part of the head below its output layer.
    """
    groups: list[dict[str, Any]] = [
        {
            "weight_decay": config.weight_decay,
            "backs_off": True,
            **group,
            "peak_lr": peak_rate(group, config.lr),
        }
        for group in strategy.groups(adapters)
        if group["params"]
    ]
    groups += head_groups(list(head), config, {id(tensor) for tensor in hidden})
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return AdamW(groups, lr=config.lr, fused=devices <= FUSED)


def head_groups(head: Sequence[nn.Parameter], config: TrainConfig, hidden: Set[int]) -> list[dict[str, Any]]:
    """Return the groups of the head, in the order of its layers: its output layer at `head_lr`, all else at `lr`.

    A hidden layer ends in a nonlinearity, which steps of `head_lr` in each of its many weights would saturate.

    Args:
        head: what is trained in full, layer by layer.
        config: of the optimisation; its `head_lr` is a number or None.
        hidden: ids of the tensors below the output layer.
    """
    if not head:
        return []
    same = {"weight_decay": config.weight_decay}
    if config.head_lr is None:
        return [{**same, "params": list(head), "peak_lr": config.lr, "backs_off": False}]
    rates = {True: (config.head_lr, False), False: (config.lr, True)}
    groups = []
    for is_output, layer in groupby(head, lambda tensor: id(tensor) not in hidden):
        peak, backs_off = rates[is_output]
        groups.append({**same, "params": list(layer), "peak_lr": peak, "backs_off": backs_off})
    return groups


def peak_rate(group: Mapping[str, Any], lr: float) -> float:
    """Return a group's peak rate: its own, or the run's times its factor, but at least the least it asks for."""
    return group.get("peak_lr", following_rate(group, lr))


def following_rate(group: Mapping[str, Any], lr: float) -> float:
    """Return the peak rate of a group that has none of its own."""
    return max(lr * group.get("lr_factor", 1.0), group.get("least_lr", 0.0))


def set_peak(optimizer: Optimizer, config: TrainConfig, lr: float) -> None:
    """Give the groups that follow `train.lr` the peaks that they have at another one.

    The output layer of a head with a rate of its own keeps it, and so does a group whose rate is constant.
    """
    for group in optimizer.param_groups:
        if not (group.get("constant") or is_head_of_own_rate(group, config)):
            group["peak_lr"] = following_rate(group, lr)


def is_of_head(group: Mapping[str, Any]) -> bool:
    """Say whether a group is the output layer of a head, or a whole head at the rate of the adapters."""
    return group.get("backs_off") is False


def is_head_of_own_rate(group: Mapping[str, Any], config: TrainConfig) -> bool:
    """Say whether a group is the output layer of a head that has a rate of its own."""
    return is_of_head(group) and config.head_lr is not None


def set_lr(optimizer: Optimizer, config: TrainConfig, step: int, total: int, backoff: float = 1.0) -> float:
    """Set every group's rate for step 1 .. total and return the adapters' rate, which `backoff` multiplies."""
    factor = lr_factor(step, total, config.warmup, config.schedule)
    for group in optimizer.param_groups:
        shape = 1.0 if group.get("constant") else factor
        group["lr"] = group["peak_lr"] * shape * (backoff if group.get("backs_off") else 1.0)
    return config.lr * factor * backoff


def clip(optimizer: Optimizer, max_norm: float | None) -> None:
    """Clip the gradient's norm over all groups, when a limit is given."""
    if max_norm is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
