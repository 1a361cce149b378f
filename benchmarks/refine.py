"""Does reweighting the singular values of a finished adapter make it better without training, as in Spectral Surgery?

    python -m benchmarks.refine --data ../shared/data/clinc150,../shared/data/glue/sst2 [--seeds 2] [--steps 150]
        [--batches 8] [--rank 8]

A run of uniform LoRA is trained. Its updates are taken apart into singular triplets, and the gradient of the loss by
each singular value is read on `--batches` batches of training examples. Then every singular value σ is multiplied:

- `absolute`: by 1 + 0.2 tanh(z), with z the mean absolute gradient of the module's triplets, standardised;
- `signed`: by 1 - 0.2 tanh(z), with z the mean gradient over its root mean square in the module;
- `random`: by the factors of `absolute`, dealt out at random to the triplets of each module, three times;
- `trained`: not at all; one more optimizer step is taken on each of the batches, at a tenth of the rate.

The sum of a module's singular values stays. Losses are of the same held-out examples less those of the run as it was.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.fixed_run import trained
from benchmarks.settings_arguments import add_fields, given
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.randomness import stream_seed

REACH = 0.2
"""Largest change of a singular value, as a part of it."""

DEALS = 3
"""Random deals whose losses are averaged."""

LATE_SHARE = 0.1
"""Rate of the further steps, as a part of the run's."""


@dataclass(frozen=True)
class Setting:
    """What is trained and reweighted.

    Attributes:
        steps: optimizer steps of a run.
        rank: of the adapters.
        rate: of the adapters.
        head_rate: of the output layer.
        batches: of training examples whose gradients are read, and further steps.
        batch: examples of each.
        rows: held-out examples, at most.
        seeds: from 0 on.
    """

    steps: int = 150
    rank: int = 8
    rate: float = 0.001
    head_rate: float = 0.04
    batches: int = 8
    batch: int = 32
    rows: int = 1000
    seeds: int = 2


def values_of(data: str, seed: int, setting: Setting) -> dict[str, Any]:
    """Return the values of a run; what is not named is as by default."""
    where = {"path": data} if Path(data).exists() else {"name": data}
    return {
        "seed": seed,
        "data": {**where, "max_eval": setting.rows},
        "adapter": {"rank": setting.rank},
        "strategy": {"name": "lora"},
        "train": {
            "steps": setting.steps,
            "batch_size": setting.batch,
            "lr": setting.rate,
            "head_lr": setting.head_rate,
        },
    }


def take_apart(trainer: Trainer) -> None:
    """Write each update as B = U √Σ and A = √Σ Vᵀ; the model stays the same."""
    with torch.no_grad():
        for module in trainer.adapters:
            Q_B, R_B = torch.linalg.qr(module.lora_B.double())
            Q_A, R_A = torch.linalg.qr(module.lora_A.double().t())
            U, S, V = torch.linalg.svd(R_B @ R_A.t())
            module.lora_B.copy_(Q_B @ U * S.sqrt())
            module.lora_A.copy_(S.sqrt().unsqueeze(1) * (V @ Q_A.t()))


def calibration(trainer: Trainer, setting: Setting) -> Iterator[dict[str, Tensor]]:
    """Yield batches of training examples."""
    order = np.random.default_rng(stream_seed(trainer.config.seed, "refine")).permutation(len(trainer.tokens))
    for start in range(0, setting.batches * setting.batch, setting.batch):
        yield trainer.tokens.batch(order[start : start + setting.batch], trainer.accelerator.device)


def backward(trainer: Trainer, batch: dict[str, Tensor]) -> None:
    """Leave the gradients of a batch's mean loss."""
    labels = batch.pop("labels")
    with trainer.autocast():
        output = trainer.strategy.forward(trainer.model, batch)
        trainer.evaluation.task.example_loss(output, labels).mean().backward()


def gradients(trainer: Trainer, setting: Setting) -> list[Tensor]:
    """Return the derivative of the loss by each singular value, (batches, rank), a tensor for each module.

    A column of B is √σ u, so its product with its own gradient is σ ∂L/∂σ.
    """
    read: list[list[Tensor]] = [[] for _ in trainer.adapters]
    trainer.model.eval()
    for batch in calibration(trainer, setting):
        backward(trainer, batch)
        for rows, module in zip(read, trainer.adapters, strict=True):
            gradient = module.lora_B.grad
            assert gradient is not None
            sigma = module.lora_B.detach().double().square().sum(0).clamp_min(1e-30)
            rows.append((gradient * module.lora_B.detach()).double().sum(0) / sigma)
        trainer.model.zero_grad(set_to_none=True)
        trainer.adapters.clear_gradients()
    return [torch.stack(rows) for rows in read]


def factors(read: Tensor, way: str) -> Tensor:
    """Return what each singular value of a module is multiplied by, before their sum is restored, (rank,)."""
    if way == "absolute":
        size = read.abs().mean(0)
        return 1 + REACH * torch.tanh((size - size.mean()) / size.std().clamp_min(1e-30))
    mean = read.mean(0)
    return 1 - REACH * torch.tanh(mean / mean.square().mean().sqrt().clamp_min(1e-30))


@contextmanager
def reweighted(trainer: Trainer, by: Sequence[Tensor]) -> Iterator[None]:
    """Multiply the singular values inside the block; their sum in each module stays."""
    before = [module.lora_B.detach().clone() for module in trainer.adapters]
    with torch.no_grad():
        for module, one in zip(trainer.adapters, by, strict=True):
            sigma = module.lora_B.double().square().sum(0)
            scale = one * sigma.sum() / (one * sigma).sum().clamp_min(1e-30)
            module.lora_B.mul_(scale)
    try:
        yield
    finally:
        with torch.no_grad():
            for module, old in zip(trainer.adapters, before, strict=True):
                module.lora_B.copy_(old)


def losses(trainer: Trainer) -> np.ndarray:
    """Return the loss of each held-out example in nats, (examples,)."""
    return trainer.predictions(trainer.evaluation.tokens).loss


def train_on(trainer: Trainer, setting: Setting) -> None:
    """Take a further step on each batch of the calibration."""
    heads = [one for one in trainer.model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(heads, lr=LATE_SHARE * setting.rate, weight_decay=0.0)
    trainer.model.train()
    for batch in calibration(trainer, setting):
        backward(trainer, batch)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        trainer.adapters.clear_gradients()


def one(data: str, seed: int, setting: Setting) -> dict[str, Any]:
    """Train a run and return the losses of each way, by held-out example."""
    trainer, _ = trained(values_of(data, seed, setting))
    before = losses(trainer)
    take_apart(trainer)
    losses_of = {"whole": losses(trainer)}
    if not np.allclose(before, losses_of["whole"], atol=1e-3):
        raise SystemExit("taking the updates apart changed the model")
    read = gradients(trainer, setting)
    by = {way: [factors(module, way) for module in read] for way in ("absolute", "signed")}
    for way, of in by.items():
        with reweighted(trainer, of):
            losses_of[way] = losses(trainer)
    generator = torch.Generator().manual_seed(stream_seed(seed, "refine, random"))
    deals = []
    for _ in range(DEALS):
        with reweighted(trainer, [one[torch.randperm(len(one), generator=generator)] for one in by["absolute"]]):
            deals.append(losses(trainer))
    losses_of["random"] = np.mean(deals, axis=0)
    train_on(trainer, setting)
    losses_of["trained"] = losses(trainer)
    return {way: np.round(loss, 5).tolist() for way, loss in losses_of.items()}


WAYS = ("absolute", "signed", "random", "trained")


def summary(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return, by data set, each way's loss less that of the run, and less that of the controls, with intervals."""
    table: dict[str, Any] = {}
    for data, of in runs.items():
        loss = {way: np.array([run[way] for run in of]) for way in ("whole", *WAYS)}
        table[data] = {"seeds": len(of), "examples": loss["whole"].shape[1], "loss": float(loss["whole"].mean())}
        table[data] |= {way: results.mean_and_ends(loss[way] - loss["whole"]) for way in WAYS}
        for way in ("absolute", "signed"):
            against = {other: results.mean_and_ends(loss[way] - loss[other]) for other in ("random", "trained")}
            table[data][f"{way} beats both"] = all(high < 0 for _, _, high in against.values())
            table[data] |= {f"{way} - {other}": difference for other, difference in against.items()}
    return table


def main() -> None:
    """Train, reweight, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sentiment4", help="names or folders, separated by commas")
    parser.add_argument("--out", default="refine", help="name of the file of results")
    parser.add_argument("--quick", action="store_true", help="few steps: does it work, nothing more")
    add_fields(parser, Setting())
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    setting, out = given(arguments, Setting()), arguments.out
    if arguments.quick:
        setting, out = replace(setting, steps=20, rows=64, seeds=1, batches=2), f"{out}-quick"
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in range(setting.seeds):
        for data in arguments.data.split(","):
            runs.setdefault(Path(data).name, []).append(one(data, seed, setting))
            figures = {"setting": vars(setting), "summary": summary(runs)}
            results.write(out, figures, "benchmarks.refine")
            print(f"{data}, seed {seed}: {json.dumps(figures['summary'][Path(data).name])}", flush=True)


if __name__ == "__main__":
    main()
