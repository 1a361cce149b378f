"""Who takes steps on a language model: PEFT's LoRA in a plain loop, and a strategy of ours as a run takes them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from benchmarks.attribution import Racer
from dynlora.config import parse_config
from dynlora.engine.data.batches import BatchOrder, Tokens
from dynlora.engine.loop.hardware import autocast_context, resolve_precision
from dynlora.engine.loop.optimizer import set_lr
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.modules import find_modules
from dynlora.training.inputs import Inputs, load_inputs

MODEL, SEQUENCE = "smollm2-135m", 128


def values_of(strategy: str, data: Mapping[str, Any], **train: Any) -> dict[str, Any]:
    """Return the plain values of a run that is measured."""
    return {
        "seed": 0,
        "model": {"name": MODEL},
        "data": {**data, "max_eval": 300},
        "strategy": {"name": strategy},
        "adapter": {"rank": 8, **train.pop("adapter", {})},
        "train": {"lr": 1e-3, "batch_size": 8, **train},
        "log": {"eval_every": 10**6, "checkpoint_every": 10**6, "generate_rows": 0},
    }


def long_texts(folder: Path, rows: int = 160) -> dict[str, Any]:
    """Write real texts joined to more than `SEQUENCE` tokens each, and return the data section that cuts them to it."""
    data = load_inputs(parse_config(values_of("lora", {"name": "sentiment4-text", "max_train": 8000}, steps=1))).data
    texts, joined = iter(data.train.text), []
    while len(joined) < rows:
        text = ""
        while len(text.split()) < 2 * SEQUENCE:
            text += next(texts) + " "
        joined.append(text)
    for name, part in (("train", joined), ("validation", joined[:32])):
        lines = (json.dumps({"text": text}) + "\n" for text in part)
        (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    return {"path": str(folder), "max_length": SEQUENCE}


class PeftSide:
    """PEFT's LoRA on the modules that ours adapts, in a plain loop over the same batches."""

    def __init__(self, values: Mapping[str, Any], *, pieces: bool) -> None:
        """Load the model and put PEFT's adapters in; `pieces` takes our loss in the place of transformers' own."""
        self.config = parse_config({**values, "strategy": {"name": "lora"}})
        self.inputs: Inputs = load_inputs(self.config)
        self.tokens: Tokens = self.inputs.encoded("train")
        self.pieces = pieces
        base, adapter = self.inputs.base, self.config.adapter
        names = [info.name for info in find_modules(base.model, None, base.head)]
        peft = LoraConfig(
            r=adapter.rank,
            lora_alpha=int(adapter.lora_alpha),
            lora_dropout=adapter.dropout,
            target_modules=names,
            task_type="CAUSAL_LM",
        )
        self.model: Any = get_peft_model(base.model, peft)  # pyright: ignore
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(device)
        precision = resolve_precision(self.config.train.precision, device)
        self.device, self.autocast = device, autocast_context(precision, device)
        train = self.config.train
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        group = {"params": trained, "peak_lr": train.lr}
        self.optimizer = torch.optim.AdamW([group], lr=train.lr, weight_decay=train.weight_decay, fused=True)
        self.order = BatchOrder(self.tokens.length, train.batch_size, self.config.seed)
        self.step = 0

    def take_step(self) -> float:
        """Take one optimizer step; return its loss."""
        self.step += 1
        set_lr(self.optimizer, self.config.train, self.step, self.inputs.total)
        batch = self.tokens.batch(self.order[self.step - 1], self.device)
        with self.autocast():
            loss = self._loss(batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def _loss(self, batch: dict[str, Tensor]) -> Tensor:
        if not self.pieces:
            return self.model(**batch).loss
        labels, task = batch.pop("labels"), self.inputs.data.task
        return task.batch_loss(task.forward(self.model.base_model.model, batch), labels)

    def block(self, steps: int) -> float:
        """Take steps; return the mean seconds of one."""
        self.model.train()
        begin = time.perf_counter()
        for _ in range(steps):
            self.take_step()
        return (time.perf_counter() - begin) / steps


class OurSide:
    """A strategy as `dynlora train` runs it, recorded into a run store."""

    def __init__(self, values: Mapping[str, Any], folder: Path) -> None:
        """Build the trainer."""
        self.racer = Racer(values, folder)

    def block(self, steps: int) -> float:
        """Take steps; return the mean seconds of one."""
        self.racer.block(steps)
        return self.racer.block_s[-1]


def copy_start(ours: Trainer, theirs: nn.Module) -> None:
    """Give PEFT's adapters our A; B is zero on both sides."""
    modules = dict(theirs.named_modules())
    with torch.no_grad():
        for module in ours.adapters:
            other: Any = modules[f"base_model.model.{module.info.name}"]
            other.lora_A["default"].weight.copy_(module.lora_A[: module.rank])
