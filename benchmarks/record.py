"""What recording a PEFT run costs: the time inside `RecordCallback`, beside the step that transformers' Trainer takes.

    python -m benchmarks.record [--steps 105] [--model minilm] [--length 64] [--modules adapters|linear]

The time is that of the process on its processors, so that what runs beside it does not count. After five steps that are
left out, blocks of ten steps with the callback and without it take turns, on one model. By attribution: the seconds
inside the callback's hooks over those of the steps with it, and of these the look whether adapters learn, over the
steps until it is done. By pairs: the steps with the callback over those without, with a 95 % interval over the pairs of
blocks. PEFT's LoRA at rank 8 on every linear module of the blocks, or with `--modules linear` the whole model; random
tokens of one length.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from benchmarks import results
from dynlora import assets
from dynlora.analysis.learning import LOOK_STEPS
from dynlora.analysis.stats import bootstrap_interval
from dynlora.engine.loop.first_steps import FirstSteps
from dynlora.engine.model.modules import find_modules
from dynlora.integrations.transformers import RecordCallback

GOAL, SKIPPED, BLOCK = 0.01, 5, 10
HOOKS = ("on_pre_optimizer_step", "on_optimizer_step", "on_step_end", "on_log")


class Rows(Dataset[dict[str, Any]]):
    """Random tokens of one length with a random label."""

    def __init__(self, n: int, length: int) -> None:
        """Draw them."""
        self.ids = torch.randint(1000, 20_000, (n, length), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one of them."""
        return {"input_ids": self.ids[index], "labels": index % 2}


def is_recorded(step: int) -> bool:
    """Say whether a step belongs to a block with the callback; the steps before the first block do."""
    return step <= SKIPPED or (step - SKIPPED - 1) // BLOCK % 2 == 0


class Timed(RecordCallback):
    """The callback with the seconds that each hook took, by step, and those of the look whether adapters learn."""

    def __init__(self, *of: Any, **more: Any) -> None:
        """Begin with none."""
        super().__init__(*of, **more)
        self.seconds: dict[int, float] = defaultdict(float)
        self.look_s = 0.0

    def timed_look(self, name: str) -> Any:
        """Return a method of `FirstSteps` that adds up its seconds."""
        inner = getattr(FirstSteps, name)

        def look(first: FirstSteps) -> Any:
            start = time.process_time()
            try:
                return inner(first)
            finally:
                self.look_s += time.process_time() - start

        return look


def timed(name: str) -> Any:
    """Return a hook that adds up its seconds, and does nothing in a block without the callback."""
    inner = getattr(RecordCallback, name)

    def hook(self: Timed, args: Any, state: Any, control: Any, **of: Any) -> None:
        step = state.global_step + name.endswith("optimizer_step")
        if is_recorded(step):
            start = time.process_time()
            inner(self, args, state, control, **of)
            self.seconds[step] += time.process_time() - start

    return hook


for _name in HOOKS:
    setattr(Timed, _name, timed(_name))


class Clock(TrainerCallback):
    """The seconds of each step as the Trainer takes it, hooks included."""

    def __init__(self) -> None:
        """Begin with none."""
        self.seconds: dict[int, float] = {}
        self.since = 0.0

    def on_step_begin(self, *_: Any, **of: Any) -> None:
        """Start."""
        self.since = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **of: Any) -> None:
        """Stop."""
        self.seconds[state.global_step] = time.process_time() - self.since


def paired(seconds: dict[int, float], steps: int) -> list[float]:
    """Return the mean ratio of the steps of a block with the callback to those of the next one, and its ends."""
    blocks = [
        sum(seconds[step] for step in range(start, start + BLOCK))
        for start in range(SKIPPED + 1, steps + 1 - (BLOCK - 1), BLOCK)
    ]
    ratios = np.array([recorded / plain for recorded, plain in zip(blocks[::2], blocks[1::2], strict=False)])
    return [float(ratios.mean()), *bootstrap_interval(ratios)]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=105)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--length", type=int, default=64, help="tokens of a row")
    parser.add_argument("--modules", default="adapters", choices=("adapters", "linear"), help="what is recorded")
    parser.add_argument("--quick", action="store_true", help="few steps")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.set_verbosity_error()
    steps = 25 if arguments.quick else arguments.steps
    base = AutoModelForSequenceClassification.from_pretrained(assets.resolve_model(arguments.model), num_labels=2)
    names = [info.name for info in find_modules(base, None, ["classifier"])]
    model: Any = base
    if arguments.modules == "adapters":
        model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=names))
    clock = Clock()
    with tempfile.TemporaryDirectory() as place:
        callback = Timed("recorded", Path(place) / "runs", modules=arguments.modules)
        for name in ("before_step", "after_step"):
            setattr(FirstSteps, name, callback.timed_look(name))
        settings = TrainingArguments(
            output_dir=place,
            max_steps=steps,
            per_device_train_batch_size=32,
            logging_steps=10,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        Trainer(model, settings, train_dataset=Rows(512, arguments.length), callbacks=[callback, clock]).train()
        assert not callback.is_broken
    kept = [step for step in range(SKIPPED + 1, steps + 1) if is_recorded(step)]
    inside, whole = (sum(seconds[step] for step in kept) for seconds in (callback.seconds, clock.seconds))
    step_s, ratio = whole / len(kept), paired(clock.seconds, steps)
    found = {
        "modules": len(names),
        "steps": len(kept),
        "step_s": step_s,
        "hooks_s": inside / len(kept),
        "fraction": inside / whole,
        "look_fraction": callback.look_s / LOOK_STEPS / step_s,
        "with / without": ratio,
        "goal": GOAL,
    }
    print(f"recording takes {100 * inside / whole:.2f} % of {1000 * step_s:.0f} ms of processor a step (goal 1 %)")
    print(f"of it the look, until step {LOOK_STEPS}: {100 * found['look_fraction']:.2f} %; with / without: {ratio}")
    name = "record" if arguments.modules == "adapters" else "record-linear"
    results.write(f"{name}-quick" if arguments.quick else name, found, "benchmarks.record")


if __name__ == "__main__":
    main()
