"""Losses and seconds a step against PEFT's LoRA."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.attribution import Racer
from benchmarks.language_model.sides import SEQUENCE, OurSide, PeftSide, copy_start, long_texts, values_of
from dynlora.engine.data.batches import BatchOrder
from dynlora.engine.loop.trainer import Trainer

PRECISIONS = ("fp32", "bf16")
SIDES = ("lora", "dynamic", "peft lora", "peft lora, our loss")


def parity(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return the losses of 20 steps of ours and PEFT's, and the largest difference."""
    total = 3 if quick else 20
    values = values_of(
        "lora", {"name": "arithmetic", "max_train": 400}, steps=total, precision="fp32", adapter={"dropout": 0.0}
    )
    theirs = PeftSide(values, pieces=False)
    ours: Trainer = Racer(values, folder).trainer
    copy_start(ours, theirs.model)
    order = BatchOrder(ours.tokens.length, ours.config.train.batch_size, 0)
    ours.model.train()
    theirs.model.train()
    losses: dict[str, list[float]] = {"lora": [], "peft lora": []}
    rounding = _rounding(theirs)
    for _ in range(total):
        loss, _ = ours._advance(order)
        ours.optimizer.zero_grad(set_to_none=True)
        losses["lora"].append(float(loss))
        losses["peft lora"].append(theirs.take_step())
    apart = [abs(a - b) for a, b in zip(*losses.values(), strict=True)]
    return {
        "steps": total,
        "losses": losses,
        "largest_difference": max(apart),
        "first_difference": apart[0],
        "first_loss_exact": rounding,
        "first_off": {name: losses[name][0] - rounding for name in losses},
    }


@torch.no_grad()
def _rounding(theirs: PeftSide) -> float:
    """Return the loss of the first batch from the same logits, its cross-entropy in double precision."""
    batch = theirs.tokens.batch(theirs.order[0], theirs.device)
    logits, labels = theirs.model(**batch).logits[:, :-1].double(), batch["labels"][:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100).item()


def steps(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return the seconds a step of each side, by precision, and ours over PEFT's: medians of ratios of one round."""
    data_folder = folder / "data"
    data_folder.mkdir()
    data = long_texts(data_folder, 32 if quick else 160)
    rounds, size = (1, 1) if quick else (4, 2)
    by_precision: dict[str, Any] = {}
    for precision in PRECISIONS:
        values = {name: values_of(name, data, steps=400, precision=precision) for name in ("lora", "dynamic")}
        sides: dict[str, Any] = {name: OurSide(values[name], folder / precision / name) for name in values}
        sides |= {name: PeftSide(values["lora"], pieces="our" in name) for name in SIDES[2:]}
        for side in sides.values():
            side.block(1)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(rounds):
            for name in list(sides)[:: -1 if turn % 2 else 1]:
                seconds[name].append(sides[name].block(size))
        ratio = {
            ours: {theirs: statistics.median(map(over, seconds[ours], seconds[theirs])) for theirs in SIDES[2:]}
            for ours in SIDES[:2]
        }
        by_precision[precision] = {"seconds": seconds, "ratios": ratio}
        print(f"steps {precision}: " + json.dumps({name: statistics.median(s) for name, s in seconds.items()}))
    return {"sequence": SEQUENCE, "batch_size": 8, **by_precision}


def over(one: float, other: float) -> float:
    """Return the ratio of two numbers of one round."""
    return one / other
