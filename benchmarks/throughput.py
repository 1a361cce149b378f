"""Samples a second on real text, and what was learned by then, against transformers' Trainer with PEFT's LoRA.

python -m benchmarks.throughput [--data PATH]

The same model, adapted modules, rank, rate, batch size, steps and seed on five sides:

- `run_glue`: the Trainer at its defaults, and every row padded to `max_length`, the default of transformers' own
  text-classification example (`pad_to_max_length=True`);
- `hf defaults`: the Trainer at its defaults (fp32, random order, gradients clipped at 1, no warm-up) with the collator
  it takes when it is given a tokenizer, which pads a batch to its longest row;
- `hf tuned`: with bf16 where the machine multiplies it, and `train_sampling_strategy="group_by_length"`;
- `lora` and `dynamic`: this project's loop as `dynlora train` runs it, recording into a run store.

Timed are steps of the training loop: no evaluation, checkpoint or report falls into them, and the first step of a
segment is left out. Segments alternate forward and back over the sides; then every side trains once to its end and is
evaluated on the same held-out rows, because speed at another quality would say nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.attribution import Racer
from dynlora.config import parse_config
from dynlora.engine.data.batches import Tokens, tokenize
from dynlora.engine.evaluation.evaluate import predict
from dynlora.engine.loop.hardware import autocast_context, resolve_precision
from dynlora.engine.model.modules import find_modules
from dynlora.training.inputs import Inputs, load_inputs

OURS = ("lora", "dynamic")
THEIRS = ("run_glue", "hf defaults", "hf tuned")
GOALS = {"run_glue": 2.5, "hf defaults": 2.5, "hf tuned": 1.1}
"""How many times the samples a second of each of theirs each of ours shall reach."""


class Marks(TrainerCallback):
    """The time after every step."""

    def __init__(self) -> None:
        """Start without any."""
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Take the time."""
        self.times.append(time.perf_counter())


class Theirs:
    """transformers' Trainer with PEFT's LoRA on the modules that we adapt."""

    def __init__(self, name: str, values: Mapping[str, Any], folder: Path) -> None:
        """Load model and data, and put PEFT's adapters in."""
        config = parse_config({**values, "strategy": {"name": "lora"}})
        self.name, self.folder, self.config = name, folder, config
        self.inputs: Inputs = load_inputs(config)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = resolve_precision("auto", self.device) if name == "hf tuned" else "fp32"
        self.model = self._adapted()
        data = self.inputs.data
        tokens = tokenize(self.inputs.base.tokenizer, data.train, config.data.max_length, data.task)
        self.rows = self._dataset(tokens)

    def _adapted(self) -> PeftModel:
        base, adapter = self.inputs.base, self.config.adapter
        targets = [info.name for info in find_modules(base.model, None, base.head)]
        peft = LoraConfig(
            r=adapter.rank,
            lora_alpha=int(adapter.lora_alpha),
            lora_dropout=adapter.dropout,
            target_modules=targets,
            modules_to_save=list(base.head),
            bias="none",
        )
        return get_peft_model(base.model, peft)  # pyright: ignore

    def _dataset(self, tokens: Tokens) -> datasets.Dataset:
        """Return the training rows as the Trainer takes them, padded already for `run_glue`."""
        columns = {name: [row[name] for row in tokens.features] for name in tokens.pad}
        if self.name == "run_glue":
            width = self.config.data.max_length
            columns = {
                name: [row + [tokens.pad[name]] * (width - len(row)) for row in rows] for name, rows in columns.items()
            }
        return datasets.Dataset.from_dict({**columns, "labels": tokens.label})

    def segment(self, steps: int, seed: int) -> float:
        """Take a step that is not timed and `steps` that are; return the samples a second of these."""
        marks, size = Marks(), self.config.train.batch_size
        tokenizer = self.inputs.base.tokenizer
        tuned: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if self.name == "hf tuned" else {}
        arguments = TrainingArguments(
            output_dir=str(self.folder),
            per_device_train_batch_size=size,
            max_steps=steps + 1,
            learning_rate=self.config.train.lr,
            seed=seed,
            data_seed=seed,
            bf16=self.precision == "bf16",
            use_cpu=self.device.type == "cpu",
            save_strategy="no",
            logging_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            label_names=["labels"],
            **tuned,
        )
        trainer = Trainer(
            model=self.model,
            args=arguments,
            train_dataset=self.rows,
            processing_class=tokenizer,
            callbacks=[marks],
            data_collator=default_data_collator if self.name == "run_glue" else DataCollatorWithPadding(tokenizer),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return size * steps / (marks.times[-1] - marks.times[0])

    def whole(self) -> dict[str, float]:
        """Train from the start to the end; return samples a second, held-out loss and accuracy."""
        speed = self.segment(self.inputs.total - 1, self.config.seed)
        data = self.inputs.data
        tokens = tokenize(self.inputs.base.tokenizer, data.held_out, self.config.data.max_length, data.task)
        predictions = predict(
            self.model,
            lambda model, batch: model(**batch).logits,
            tokens,
            self.inputs.data.task,
            batch_size=64,
            autocast=autocast_context(self.precision, self.device),
        )
        accuracy = float(np.mean(predictions.prediction == tokens.label))
        return {"samples_per_s": speed, "loss": float(predictions.loss.mean()), "accuracy": accuracy}

    def close(self) -> None:
        """Let nothing go: the Trainer wrote nothing."""


class Ours:
    """This project's loop with one of its strategies."""

    def __init__(self, name: str, values: Mapping[str, Any], folder: Path) -> None:
        """Build the trainer."""
        self.racer = Racer({**values, "strategy": {"name": name}}, folder)
        self.size = self.racer.trainer.config.train.batch_size

    def segment(self, steps: int, seed: int) -> float:
        """Take the next step of the run, and `steps` more that are timed; return the samples a second of these."""
        self.racer.block(1)
        self.racer.block(steps)
        return self.size / self.racer.block_s[-1]

    def whole(self) -> dict[str, float]:
        """Train from the start to the end; return samples a second, held-out loss and accuracy."""
        speed = self.segment(self.racer.trainer.total - 1, 0)
        trainer = self.racer.trainer
        predictions = trainer.predictions(trainer.evaluation.tokens)
        metrics = trainer.evaluation.record(trainer.recorder, trainer.step, predictions)
        return {"samples_per_s": speed, "loss": metrics["loss"], "accuracy": metrics["accuracy"]}

    def close(self) -> None:
        """End the record."""
        self.racer.close()


def side(name: str, values: Mapping[str, Any], folder: Path) -> Theirs | Ours:
    """Return a side at its start."""
    return Ours(name, values, folder) if name in OURS else Theirs(name, values, folder)


def segments(values: Mapping[str, Any], folder: Path, repeats: int, steps: int) -> dict[str, list[float]]:
    """Return samples a second of each side's segments, taken in turn, every second time in reverse order."""
    longer = {**values, "train": {**values["train"], "steps": max(values["train"]["steps"], repeats * (steps + 1) + 4)}}
    sides = {name: side(name, longer, folder) for name in (*THEIRS, *OURS)}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for one in sides.values():
        one.segment(1, 0)  # what is done once is done here
    for repeat in range(repeats):
        for name in list(sides)[:: -1 if repeat % 2 else 1]:
            speeds[name].append(sides[name].segment(steps, repeat + 1))
    for one in sides.values():
        one.close()
    return speeds


def whole_runs(values: Mapping[str, Any], folder: Path) -> dict[str, dict[str, float]]:
    """Return what each side reaches at the end of its run, one after the other."""
    wholes = {}
    for name in (*THEIRS, *OURS):
        one = side(name, values, folder)
        wholes[name] = one.whole()
        one.close()
    return wholes


def ratios(speeds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return how many times as quick ours are as theirs: medians of the ratios of segments of one turn."""
    pair: Callable[[str, str], float] = lambda a, b: statistics.median(  # noqa: E731
        x / y for x, y in zip(speeds[a], speeds[b], strict=True)
    )
    return {ours: {theirs: pair(ours, theirs) for theirs in THEIRS} for ours in OURS}


def show(figures: Mapping[str, Any]) -> None:
    """Print the table."""
    print(f"\n{'':14}{'samples/s':>10}{'whole run':>11}{'held-out loss':>15}{'accuracy':>10}")
    for name, speeds in figures["samples_per_s"].items():
        end = figures["ends"][name]
        print(
            f"  {name:12}{statistics.median(speeds):10.1f}{end['samples_per_s']:11.1f}{end['loss']:15.4f}"
            f"{100 * end['accuracy']:8.1f} %"
        )
    for ours, row in figures["ratios"].items():
        for theirs, value in row.items():
            goal = GOALS[theirs]
            print(f"  {ours:8} / {theirs:12} {value:6.2f}   goal {goal} {'met' if value >= goal else 'MISSED'}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder with train and held-out files, such as GLUE's sst2; else sentiment4")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--steps", type=int, default=400, help="of the whole runs")
    parser.add_argument("--repeats", type=int, default=3, help="segments of each side")
    parser.add_argument("--segment", type=int, default=30, help="timed steps of a segment")
    parser.add_argument("--quick", action="store_true", help="ten steps, small batches: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # PEFT asks for the old name
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    quick = arguments.quick
    repeats, segment, steps = (1, 3, 10) if quick else (arguments.repeats, arguments.segment, arguments.steps)
    data = {"path": arguments.data} if arguments.data else {"name": "sentiment4"}
    small = {"max_train": 500, "max_eval": 64} if quick else {}
    values: dict[str, Any] = {
        "seed": 0,
        "model": {"name": arguments.model},
        "data": {**data, "max_length": 64 if quick else 128, **small},
        "adapter": {"rank": 8},
        "train": {"steps": steps, "lr": 1e-3, "batch_size": 8 if quick else 32},
        "log": {"eval_every": 10**6, "checkpoint_every": 10**6},
    }
    figures: dict[str, Any] = {"goals": GOALS, "steps": steps, "segment": segment, "load_before": os.getloadavg()}
    with tempfile.TemporaryDirectory() as place:
        figures["samples_per_s"] = segments(values, Path(place), repeats, segment)
        figures["ends"] = whole_runs(values, Path(place))
    figures["ratios"] = ratios(figures["samples_per_s"])
    figures["load_after"] = os.getloadavg()
    show(figures)
    name = "throughput" if not arguments.data else f"throughput-{Path(arguments.data).name}"
    print("written:", results.write(f"{name}-quick" if quick else name, figures, "benchmarks.throughput"))


if __name__ == "__main__":
    main()
