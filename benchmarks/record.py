"""What recording a PEFT run costs: the time inside `RecordCallback`, beside the step that transformers' Trainer takes.

    python -m benchmarks.record [--steps 60] [--model minilm] [--length 64] [--modules adapters|linear]

By attribution: the seconds inside the callback's hooks over those of the steps, the first five left out. PEFT's LoRA at
rank 8 on every linear module of the blocks, or with `--modules linear` the whole model; random tokens of one length.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from benchmarks import results
from dynlora import assets
from dynlora.engine.model.modules import find_modules
from dynlora.integrations.transformers import RecordCallback

GOAL, SKIPPED = 0.01, 5
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


class Timed(RecordCallback):
    """The callback with the seconds that each hook took, by step."""

    def __init__(self, *of: Any, **more: Any) -> None:
        """Begin with none."""
        super().__init__(*of, **more)
        self.seconds: dict[int, float] = defaultdict(float)


def timed(name: str) -> Any:
    """Return a hook that adds up its seconds."""
    inner = getattr(RecordCallback, name)

    def hook(self: Timed, args: Any, state: Any, control: Any, **of: Any) -> None:
        start = time.perf_counter()
        inner(self, args, state, control, **of)
        self.seconds[state.global_step + name.endswith("optimizer_step")] += time.perf_counter() - start

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
        self.since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **of: Any) -> None:
        """Stop."""
        self.seconds[state.global_step] = time.perf_counter() - self.since


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--length", type=int, default=64, help="tokens of a row")
    parser.add_argument("--modules", default="adapters", choices=("adapters", "linear"), help="what is recorded")
    parser.add_argument("--quick", action="store_true", help="few steps")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.set_verbosity_error()
    steps = 12 if arguments.quick else arguments.steps
    base = AutoModelForSequenceClassification.from_pretrained(assets.resolve_model(arguments.model), num_labels=2)
    names = [info.name for info in find_modules(base, None, ["classifier"])]
    model: Any = base
    if arguments.modules == "adapters":
        model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=names))
    clock = Clock()
    with tempfile.TemporaryDirectory() as place:
        callback = Timed("recorded", Path(place) / "runs", modules=arguments.modules)
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
    kept = range(SKIPPED + 1, steps + 1)
    inside, whole = (sum(seconds[step] for step in kept) for seconds in (callback.seconds, clock.seconds))
    found = {
        "modules": len(names),
        "steps": len(kept),
        "step_s": whole / len(kept),
        "hooks_s": inside / len(kept),
        "fraction": inside / whole,
        "goal": GOAL,
    }
    print(f"recording takes {100 * inside / whole:.2f} % of a step of {1000 * whole / len(kept):.0f} ms (goal 1 %)")
    name = "record" if arguments.modules == "adapters" else "record-linear"
    results.write(f"{name}-quick" if arguments.quick else name, found, "benchmarks.record")


if __name__ == "__main__":
    main()
