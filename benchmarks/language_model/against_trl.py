"""Labels, losses and tokens a second against TRL's SFTTrainer."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import TrainerCallback

from benchmarks.language_model.against_peft import over
from benchmarks.language_model.sides import OurSide, values_of
from dynlora.config import parse_config
from dynlora.engine.data.batches import BatchOrder
from dynlora.engine.loop.hardware import resolve_precision
from dynlora.engine.model.modules import find_modules
from dynlora.tasks.causal_lm import CausalLM
from dynlora.tasks.token_rows import encode_texts
from dynlora.training.inputs import Inputs, load_inputs

THEIRS = ("trl defaults", "trl tuned")


class Marks(TrainerCallback):
    """The time after every step."""

    def __init__(self) -> None:
        """Start without any."""
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Take the time."""
        self.times.append(time.perf_counter())


def has_trl() -> bool:
    """Say whether TRL is installed."""
    return importlib.util.find_spec("trl") is not None


def sft_trainer(model: Any, tokenizer: Any, rows: datasets.Dataset, folder: Path, **arguments: Any) -> Any:
    """Return TRL's SFTTrainer."""
    from trl.trainer.sft_config import SFTConfig  # pyright: ignore[reportMissingImports]
    from trl.trainer.sft_trainer import SFTTrainer  # pyright: ignore[reportMissingImports]

    peft = arguments.pop("peft_config", None)
    config = SFTConfig(
        output_dir=str(folder),
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        per_device_train_batch_size=8,
        **arguments,
    )
    return SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=peft)


def trl(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return how many rows' labels TRL makes as we do, and the largest difference of losses, on a tiny model."""
    from tests.tiny_lm import byte_tokenizer, tiny_decoder, tiny_problems

    rows = tiny_problems(64)
    tokenizer, model = byte_tokenizer(template=None), tiny_decoder("llama")
    columns = {name: [row[name] for row in rows] for name in ("prompt", "completion")}
    trainer = sft_trainer(
        model,
        tokenizer,
        datasets.Dataset.from_dict(columns),
        folder,
        bf16=False,
        gradient_checkpointing=False,
        max_steps=1,
    )
    encoded = encode_texts(tokenizer, _Rows(columns), 1024, "completion")
    equal, apart = 0, []
    for index in range(0, len(rows), 8):
        batch = trainer.data_collator([trainer.train_dataset[place] for place in range(index, index + 8)])
        features = [encoded.features[place] for place in range(index, index + 8)]
        targets = [(encoded.targets or [])[place] for place in range(index, index + 8)]
        width = batch["labels"].shape[1]
        own = torch.tensor([row + [-100] * (width - len(row)) for row in targets])
        ids = torch.tensor([row["input_ids"] + [1] * (width - len(row["input_ids"])) for row in features])
        mask = torch.tensor([row["attention_mask"] + [0] * (width - len(row["input_ids"])) for row in features])
        equal += int((own == batch["labels"]).all(1).sum())
        task = CausalLM()
        loss = task.batch_loss(task.forward(model, {"input_ids": ids, "attention_mask": mask}), own)
        theirs = trainer.compute_loss(model, {**batch}, num_items_in_batch=(batch["labels"][:, 1:] >= 0).sum())
        apart.append(abs(float(loss.detach()) - float(theirs.detach())))
    return {"rows": len(rows), "equal_labels": equal, "largest_difference": max(apart)}


class _Rows:
    """Rows as a task takes them."""

    def __init__(self, columns: Mapping[str, list[str]]) -> None:
        self.text, self.text_pair, self.fields = columns["prompt"], columns["completion"], {}


def trl_segment(kind: str, inputs: Inputs, folder: Path, count: int, seed: int) -> float:
    """Take a step that is not timed and `count` that are, from a fresh adapter; return tokens a second."""
    rows = inputs.data.train
    columns = {"prompt": list(rows.text), "completion": list(rows.text_pair or [])}
    fresh = load_inputs(inputs.config)
    tuned: dict[str, Any] = {}
    if kind == "trl tuned":
        bf16 = resolve_precision("auto", torch.device("cuda" if torch.cuda.is_available() else "cpu")) == "bf16"
        tuned = {"gradient_checkpointing": False, "bf16": bf16, "train_sampling_strategy": "group_by_length"}
    names = [info.name for info in find_modules(fresh.base.model, None, [])]
    peft = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=names, task_type="CAUSAL_LM")
    trainer = sft_trainer(
        fresh.base.model,
        fresh.base.tokenizer,
        datasets.Dataset.from_dict(columns),
        folder,
        max_steps=count + 1,
        peft_config=peft,
        seed=seed,
        data_seed=seed,
        learning_rate=1e-3,
        **tuned,
    )
    seen: list[int] = []
    collate: Callable[[Any], Any] = trainer.data_collator

    def counting(examples: list[dict[str, Any]]) -> Any:
        """Count the tokens of a batch, padding left out."""
        seen.append(sum(len(example["input_ids"]) for example in examples))
        return collate(examples)

    marks = Marks()
    trainer.data_collator = counting
    trainer.add_callback(marks)
    trainer.train()
    return sum(seen[1 : count + 1]) / (marks.times[-1] - marks.times[0])


def our_segment(side: OurSide, count: int) -> float:
    """Take `count` steps; return tokens a second."""
    trainer = side.racer.trainer
    first = trainer.step
    seconds = side.block(count) * count
    order = BatchOrder(trainer.tokens.length, trainer.config.train.batch_size, trainer.config.seed)
    return sum(float(trainer.tokens.length[order[step]].sum()) for step in range(first, trainer.step)) / seconds


def tokens(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return tokens a second of each side on `arithmetic`, and ours over TRL's: medians of ratios of one round."""
    rounds, count = (1, 2) if quick else (3, 5)
    data = {"name": "arithmetic", "max_train": 2000}
    values = {name: values_of(name, data, steps=400) for name in ("lora", "dynamic")}
    ours = {name: OurSide(values[name], folder / name) for name in values}
    inputs = load_inputs(parse_config(values["lora"]))
    for side in ours.values():
        side.block(1)
    speeds: dict[str, list[float]] = {name: [] for name in (*ours, *THEIRS)}
    for turn in range(rounds):
        for name in list(speeds)[:: -1 if turn % 2 else 1]:
            own = name in ours
            speed = (
                our_segment(ours[name], count) if own else trl_segment(name, inputs, folder / "trl", count, turn + 1)
            )
            speeds[name].append(speed)
            print(f"tokens {name}: {speed:.0f} a second", flush=True)
    ratio = {
        mine: {theirs: statistics.median(map(over, speeds[mine], speeds[theirs])) for theirs in THEIRS} for mine in ours
    }
    return {"tokens_per_s": speeds, "ratios": ratio}
