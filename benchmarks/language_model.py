"""Language models against PEFT and TRL: equal losses, seconds a step, tokens a second, memory of the loss.

python -m benchmarks.language_model [--only parity,trl,steps,tokens,memory] [--quick]

- `parity`: losses of 20 steps of `lora` and of PEFT's LoRA with the same A, batches, masks and optimizer, in fp32;
- `trl`: labels that TRL's SFTTrainer makes of the same rows, and the loss it trains on, on a tiny random model;
- `steps`: seconds of a step on sequences of 128 tokens, `lora` and `dynamic` as a run takes them (recorded), PEFT's
  LoRA with the loss that transformers computes, and PEFT's LoRA with our loss in pieces; blocks in turn;
- `tokens`: tokens a second on `arithmetic`, against TRL's SFTTrainer with PEFT's LoRA at its defaults (which checkpoint
  gradients) and tuned (no checkpointing, bf16 where the machine multiplies it, batches of like length);
- `memory`: peak memory of the loss of 1,024 tokens over 49,152 words and its gradient, whole and in pieces.

TRL is no dependency: `pip install trl`, or its sections are left out, and that is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.attribution import Racer
from dynlora.config import parse_config
from dynlora.engine.data.batches import BatchOrder, Tokens
from dynlora.engine.loop.hardware import autocast_context, resolve_precision
from dynlora.engine.loop.optimizer import set_lr
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.modules import find_modules
from dynlora.tasks.causal_lm import CausalLM
from dynlora.tasks.token_rows import encode_texts
from dynlora.training.inputs import Inputs, encoded_rows, load_inputs

MODEL, SEQUENCE = "smollm2-135m", 128
GOALS = {"parity": 1e-6, "trl": 1e-5, "steps": 0.95, "tokens": {"trl defaults": 1.5, "trl tuned": 1.05}, "memory": 0.5}
PRECISIONS = ("fp32", "bf16")
SIDES = ("lora", "dynamic", "peft lora", "peft lora, our loss")


def values_of(strategy: str, data: Mapping[str, Any], **train: Any) -> dict[str, Any]:
    """Return the plain values of a run that is measured."""
    return {
        "seed": 0, "model": {"name": MODEL}, "data": {**data, "max_eval": 300}, "strategy": {"name": strategy},
        "adapter": {"rank": 8, **train.pop("adapter", {})}, "train": {"lr": 1e-3, "batch_size": 8, **train},
        "log": {"eval_every": 10**6, "checkpoint_every": 10**6, "generate_rows": 0},
    }  # fmt: skip


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
        self.tokens: Tokens = encoded_rows(self.inputs)
        self.pieces = pieces
        base, adapter = self.inputs.base, self.config.adapter
        names = [info.name for info in find_modules(base.model, None, base.head)]
        peft = LoraConfig(
            r=adapter.rank, lora_alpha=int(adapter.lora_alpha), lora_dropout=adapter.dropout, target_modules=names,
            task_type="CAUSAL_LM",
        )  # fmt: skip
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
    for _ in range(total):
        loss, _ = ours._advance(order)
        ours.optimizer.zero_grad(set_to_none=True)
        losses["lora"].append(float(loss))
        losses["peft lora"].append(theirs.take_step())
    apart = [abs(a - b) for a, b in zip(*losses.values(), strict=True)]
    return {"steps": total, "losses": losses, "largest_difference": max(apart), "first_difference": apart[0]}


def copy_start(ours: Trainer, theirs: nn.Module) -> None:
    """Give PEFT's adapters our A; B is zero on both sides."""
    modules = dict(theirs.named_modules())
    with torch.no_grad():
        for module in ours.adapters:
            other: Any = modules[f"base_model.model.{module.info.name}"]
            other.lora_A["default"].weight.copy_(module.lora_A[: module.rank])


def steps(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return the seconds a step of each side, by precision, and ours over PEFT's: medians of ratios of one round."""
    data_folder = folder / "data"
    data_folder.mkdir()
    data = long_texts(data_folder, 32 if quick else 160)
    rounds, size = (1, 1) if quick else (4, 2)
    found: dict[str, Any] = {}
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
            ours: {theirs: statistics.median(map(_over, seconds[ours], seconds[theirs])) for theirs in SIDES[2:]}
            for ours in SIDES[:2]
        }
        found[precision] = {"seconds": seconds, "ratios": ratio}
        print(f"steps {precision}: " + json.dumps({name: statistics.median(s) for name, s in seconds.items()}))
    return {"sequence": SEQUENCE, "batch_size": 8, **found}


def _over(one: float, other: float) -> float:
    return one / other


def memory(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return the peak memory, MiB, that the loss of 1,024 tokens and its gradient take beyond weights and states."""
    found: dict[str, Any] = {}
    for kind in ("whole", "in pieces"):
        code = f"from benchmarks.language_model import peak_of_loss; print(peak_of_loss({kind!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found[kind] = float(done.stdout.strip().splitlines()[-1])
    return {"tokens": 1024, "words": 49152, "peak_mib": found, "ratio": found["in pieces"] / found["whole"]}


def peak_of_loss(kind: str) -> float:
    """Return how far the memory of this process rises while a loss and its gradient are computed, MiB."""
    from dynlora.tasks.token_loss import TokenOutput, token_loss

    torch.manual_seed(0)
    head = nn.Linear(576, 49152, bias=False).requires_grad_(False)
    states = torch.randn(8, 128, 576, requires_grad=True)
    labels = torch.randint(0, 49152, (8, 128))
    torch.nn.functional.linear(states[:1], head.weight).sum().backward()  # what is set up once
    states.grad = None
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _memory("VmRSS")
    if kind == "whole":
        logits = head(states)[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 49152), labels[:, 1:].reshape(-1))
    else:
        sums, n = token_loss(TokenOutput(states, head, head.weight, None), labels)
        loss = sums.sum() / n.sum()
    loss.backward()
    return _memory("VmHWM") - before


def _memory(name: str) -> float:
    """Return a line of what Linux knows of this process's memory, MiB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name)) / 1024


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
        output_dir=str(folder), report_to="none", save_strategy="no", logging_strategy="no", eval_strategy="no",
        disable_tqdm=True, use_cpu=not torch.cuda.is_available(), per_device_train_batch_size=8, **arguments,
    )  # fmt: skip
    return SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=peft)


def trl(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return how many rows' labels TRL makes as we do, and the largest difference of losses, on a tiny model."""
    from tests.tiny_lm import byte_tokenizer, tiny_decoder, tiny_problems

    rows = tiny_problems(64)
    tokenizer, model = byte_tokenizer(template=None), tiny_decoder("llama")
    columns = {name: [row[name] for row in rows] for name in ("prompt", "completion")}
    trainer = sft_trainer(
        model, tokenizer, datasets.Dataset.from_dict(columns), folder, bf16=False, gradient_checkpointing=False,
        max_steps=1,
    )  # fmt: skip
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
        fresh.base.model, fresh.base.tokenizer, datasets.Dataset.from_dict(columns), folder, max_steps=count + 1,
        peft_config=peft, seed=seed, data_seed=seed, learning_rate=1e-3, **tuned,
    )  # fmt: skip
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
    speeds: dict[str, list[float]] = {name: [] for name in (*ours, "trl defaults", "trl tuned")}
    for turn in range(rounds):
        for name in list(speeds)[:: -1 if turn % 2 else 1]:
            own = name in ours
            speed = (
                our_segment(ours[name], count) if own else trl_segment(name, inputs, folder / "trl", count, turn + 1)
            )
            speeds[name].append(speed)
            print(f"tokens {name}: {speed:.0f} a second", flush=True)
    ratio = {
        mine: {theirs: statistics.median(map(_over, speeds[mine], speeds[theirs])) for theirs in GOALS["tokens"]}
        for mine in ours
    }
    return {"tokens_per_s": speeds, "ratios": ratio}


SECTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "parity": parity, "trl": trl, "steps": steps, "tokens": tokens, "memory": memory,
}  # fmt: skip


def lines_of(figures: Mapping[str, Any]) -> Iterator[tuple[str, float, float, bool]]:
    """Yield what was measured, its value, its goal, and whether more is better."""
    if (found := figures.get("parity")) is not None:
        yield "largest difference of losses, lora - PEFT's", found["largest_difference"], GOALS["parity"], False
    if (found := figures.get("trl")) is not None:
        yield "rows with TRL's labels, share", found["equal_labels"] / found["rows"], 1.0, True
        yield "largest difference of losses, ours - TRL's", found["largest_difference"], GOALS["trl"], False
    for precision, found in (figures.get("steps") or {}).items():
        for mine, row in found["ratios"].items() if precision in PRECISIONS else ():
            yield from (
                (f"step {precision}: {mine} / {their}", ratio, GOALS["steps"], False) for their, ratio in row.items()
            )
    for mine, row in figures.get("tokens", {}).get("ratios", {}).items():
        for their, ratio in row.items():
            yield f"tokens: {mine} / {their}", ratio, GOALS["tokens"][their], True
    if (found := figures.get("memory")) is not None:
        yield "peak memory of the loss, in pieces / whole", found["ratio"], GOALS["memory"], False


def report(figures: Mapping[str, Any]) -> None:
    """Print what was found beside the goals."""
    print()
    for text, value, goal, more in lines_of(figures):
        met = value >= goal if more else value <= goal
        print(f"  {text:50} {value:9.3g}   goal {'≥' if more else '≤'} {goal:g} {'met' if met else 'MISSED'}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--quick", action="store_true", help="few steps: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # PEFT asks for the old name
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    chosen = [name for name in arguments.only.split(",") if name in SECTIONS]
    if not has_trl():
        print("trl and tokens are left out: TRL is not installed (pip install trl)")
        chosen = [name for name in chosen if name not in ("trl", "tokens")]
    name = "language_model-quick" if arguments.quick else "language_model"
    kept = results.RESULTS / f"{name}.json"
    old = json.loads(kept.read_text("utf-8"))["figures"] if kept.exists() else {}
    figures: dict[str, Any] = {section: old[section] for section in SECTIONS if section in old} | {"goals": GOALS}
    for section in chosen:
        before = os.getloadavg()
        with tempfile.TemporaryDirectory() as place:
            figures[section] = SECTIONS[section](Path(place), quick=arguments.quick)
        figures[section]["load"] = [before, os.getloadavg()]
        figures["precision_of_auto"] = resolve_precision("auto", torch.device("cpu"))
        results.write(name, figures, "benchmarks.language_model")  # a section that fails costs no other
    report(figures)
    print("written:", kept)


if __name__ == "__main__":
    main()
