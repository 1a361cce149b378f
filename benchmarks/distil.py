"""Data-free distillation on two tasks: what does one student have of two teachers, without their data?

    python -m benchmarks.distil [--model smollm2-135m] [--steps 40]

One teacher learns worked problems (`arithmetic`, all tokens), one film reviews (`sentiment4-text`). All students are
the same LoRA, begin alike and take the same steps of the same size; they differ in what they learn from:

- `student`: texts that the teachers wrote, against the teacher of each (what `dynlora recycle` does);
- `base texts` (control): texts that the base model wrote, half of them against either teacher;
- `real texts`: the teachers' training texts, against the teacher of each: only the texts differ from `student`;
- `real data` (upper bound): the same texts, with the loss that the teachers learned from.

Beside them stand the base model, each teacher, and the average of the teachers' adapters. Measured are the loss on
held-out examples of both tasks, and KL to the teacher on texts it wrote for the test alone, all on the same examples
and texts. Differences are paired, intervals are 95 % over examples or texts. One seed. Everything is kept after each
part, so a benchmark that was ended continues where it was.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from benchmarks import kept_rows, results
from dynlora.config import parse_config
from dynlora.distilling.distilling import Distilling
from dynlora.distilling.intervals import per_token
from dynlora.distilling.materials import Materials
from dynlora.distilling.measured import Measured, PerText
from dynlora.distilling.student import StudentTraining
from dynlora.distilling.texts import Texts, written_texts
from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.text_data import of_groups
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint
from dynlora.engine.randomness import stream_seed
from dynlora.engine.recorder import NullRecorder
from dynlora.kinds.distil import TEXTS_AT_ONCE, DistilSettings
from dynlora.recycling.lora_training import LoraTraining
from dynlora.tasks.token_divergence import token_divergence
from dynlora.tasks.token_loss import token_loss
from dynlora.training import run as training
from dynlora.training.inputs import read_data

TAUGHT: dict[str, dict[str, Any]] = {
    "sums": {"name": "arithmetic", "loss_on": "all"},
    "films": {"name": "sentiment4-text", "train_groups": ["movies"]},
}
"""What each teacher learns: section `data` of its configuration."""

AGAINST = ("base", "averaged", "base texts", "real texts", "real data")
"""What the student is held against, in pairs."""


@dataclass(frozen=True)
class Setting:
    """How much is done.

    Attributes:
        model: base model.
        layers: its blocks; 0 for all of them.
        teacher_steps: optimizer steps of a teacher.
        samples: texts of each teacher for the student.
        held_out: texts of each teacher for the test.
        tokens: of a text and of an example at most.
        steps: optimizer steps of each student.
        batch: texts or examples of a step.
        rank: of teachers and students.
        lr: of teachers and students.
        rows: held-out examples of each task.
        seed: of everything.
    """

    model: str = "smollm2-135m"
    layers: int = 0
    teacher_steps: int = 40
    samples: int = 64
    held_out: int = 32
    tokens: int = 40
    steps: int = 40
    batch: int = 8
    rank: int = 8
    lr: float = 2e-3
    rows: int = 100
    seed: int = 0


QUICK = Setting(layers=2, teacher_steps=16, samples=16, held_out=8, tokens=16, steps=12, rows=16)


class RealTraining(LoraTraining):
    """A student that learns from the teachers' own examples, by their loss or by the teachers' distributions.

    Attributes:
        work: whose student, teachers and examples.
        soft: learn from the teachers' distributions.
    """

    def __init__(self, work: Work, *, soft: bool) -> None:
        """Pool the examples of all teachers: as many of each, since one may have more."""
        of, materials = work.setting, work.distilling.materials
        super().__init__(materials.student.adapters, of.steps, of.lr)
        self.work, self.soft = work, soft
        count = min(map(len, work.examples))
        draw = np.random.default_rng(stream_seed(of.seed, "real examples"))
        pool = [(teacher, int(row)) for teacher, own in enumerate(work.examples)
                for row in draw.permutation(len(own))[:count]]  # fmt: skip
        self.pool = [pool[place] for place in draw.permutation(len(pool))]

    def batch_loss(self, index: int) -> Tensor:
        """Return the mean over the tokens of a batch."""
        size, materials = self.work.setting.batch, self.work.distilling.materials
        drawn = [self.pool[place % len(self.pool)] for place in range(index * size, (index + 1) * size)]
        sums, counts = list[Tensor](), 0
        for teacher in sorted({one for one, _ in drawn}):
            rows = [row for of, row in drawn if of == teacher]
            batch = self.work.examples[teacher].batch(rows, materials.device)
            labels = batch.pop("labels")
            found: Any = materials.student.strategy.forward(materials.student.base.model, batch)
            if self.soft:
                own = materials.models[teacher]
                with torch.no_grad():
                    wanted: Any = own.strategy.forward(own.base.model, batch)
                loss, count = token_divergence(wanted, found, labels)
            else:
                loss, count = token_loss(found, labels)
            sums.append(loss.sum())
            counts += int(count.sum())
        return torch.stack(sums).sum() / max(1, counts)


@dataclass
class Work:
    """What is done so far, kept in a folder.

    Attributes:
        folder: of everything that was done with this setting.
        setting: how much is done.
        found: (sums, counts) of each example and text by model, and seconds by part.
    """

    folder: Path
    setting: Setting
    found: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.found = {"kl": {}, "loss": {}, "seconds": {}} | kept_rows.read_found(self.folder / "found.json")

    def keep(self) -> None:
        """Write what was found."""
        kept_rows.write_found(self.folder / "found.json", self.found)

    def teachers(self) -> list[str]:
        """Train the teachers that are not there yet, and return the ids of all."""
        ids: dict[str, str] = self.found.setdefault("teachers", {})
        for name, data in TAUGHT.items():
            if name not in ids:
                start = time.process_time()
                ids[name] = self._trained(name, data)
                self.timed(f"teacher {name}", start)
        return [ids[name] for name in TAUGHT]

    def _trained(self, name: str, data: dict[str, Any]) -> str:
        of = self.setting
        outcome = training.train(
            parse_config(
                {
                    "name": name, "seed": of.seed, "model": {"name": of.model, "layers": of.layers or None},
                    "data": {**data, "max_length": of.tokens, "max_train": 1000, "max_eval": 16},
                    "adapter": {"rank": of.rank}, "strategy": {"name": "lora"},
                    "train": {"steps": of.teacher_steps, "batch_size": of.batch, "lr": of.lr, "precision": "fp32"},
                    "log": {"eval_every": of.teacher_steps, "checkpoint_every": of.teacher_steps, "generate_rows": 1,
                            "generate_max": 8},
                }
            ),
            self.folder / "runs",
        )  # fmt: skip
        if outcome.state != "finished":
            raise SystemExit(f"teacher {name}: {outcome.error}")
        return outcome.folder.name

    @cached_property
    def distilling(self) -> Distilling:
        """The distillation after its teachers have written; they continue where they were."""
        of = self.setting
        settings = DistilSettings.parse(
            {
                "teachers": self.teachers(), "samples": of.samples, "held_out": of.held_out, "tokens": of.tokens,
                "train_steps": of.steps, "batch_size": of.batch, "rank": of.rank, "lora_alpha": 2.0 * of.rank,
                "lr": of.lr, "rows": of.rows, "seed": of.seed,
            }
        )  # fmt: skip
        found, place = Distilling(Materials.load(settings, self.folder / "runs"), NullRecorder()), self.folder / "texts"
        if find_checkpoint(place) is not None:
            found.load_state_dict(read_checkpoint(place))
        while found.stage() != "student":
            start = time.process_time()
            found.advance()
            write_checkpoint(place, found.state_dict())
            self.timed("texts of the teachers", start)
        return found

    @cached_property
    def examples(self) -> list[Tokens]:
        """The training examples of each teacher."""
        found = []
        for teacher, model in zip(self.distilling.materials.teachers, self.distilling.materials.models, strict=True):
            data, groups = read_data(teacher.config), teacher.config.data.train_groups
            found.append(model.tokens(data.train if groups is None else of_groups(data.train, groups)))
        return found

    @cached_property
    def measured(self) -> Measured:
        """What measures."""
        return Measured(self.distilling)

    @cached_property
    def rows(self) -> dict[int, Any]:
        """The held-out examples of each teacher."""
        return self.measured.held_out_rows()

    def base_texts(self) -> list[Texts]:
        """Return as many texts of the base model for each teacher as that wrote for the student."""
        materials, of = self.distilling.materials, self.setting
        found = []
        for index, own in enumerate(self.distilling.texts["samples"]):
            texts = Texts(own.start, own.end)
            while len(texts) < of.samples:
                count = min(TEXTS_AT_ONCE, of.samples - len(texts))
                seed = stream_seed(of.seed, "base texts", index, len(texts)) % 2**62
                with materials.student.adapters.disabled():
                    texts.add(written_texts(materials.student, materials.start, count, of.tokens, seed))
            found.append(texts)
        return found

    def texts_training(self, texts: list[Texts]) -> LoraTraining:
        """Return a student that learns from texts."""
        of, materials = self.setting, self.distilling.materials
        return StudentTraining(materials.student, materials.models, texts, steps=of.steps, lr=of.lr,
                               batch_size=of.batch, seed=of.seed)  # fmt: skip

    def timed(self, name: str, start: float) -> None:
        """Add the processor's seconds of a part, and keep everything."""
        seconds = self.found["seconds"]
        seconds[name] = round(seconds.get(name, 0.0) + time.process_time() - start, 1)
        self.keep()
        print(f"{name}: {seconds[name]:.0f} s of processor time", flush=True)

    def take(self, name: str) -> None:
        """Keep what was measured of a model."""
        if name in self.measured.kl:
            self.found["kl"][name] = [_plain(one) for one in self.measured.kl[name]]
        for index, by_model in self.measured.loss.items():
            if name in by_model:
                self.found["loss"].setdefault(str(index), {})[name] = _plain(by_model[name])
        self.keep()


def _plain(found: PerText) -> list[list[float]]:
    return [values.tolist() for values in found]


STUDENTS: dict[str, Callable[[Work], LoraTraining]] = {
    "student": lambda work: work.texts_training(work.distilling.texts["samples"]),
    "real data": lambda work: RealTraining(work, soft=False),
    "base texts": lambda work: work.texts_training(work.base_texts()),
    "real texts": lambda work: RealTraining(work, soft=True),
}
"""What each student learns from, what matters most first."""


def parts(work: Work) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each model that is compared, and what measures it."""
    materials, measured = work.distilling.materials, work.measured
    student = materials.student
    yield "base", lambda: measured.take("base", student, student.adapters.disabled(), work.rows)
    own, *others = STUDENTS
    yield own, lambda: _learned(work, own)
    for name, model in zip(TAUGHT, materials.models, strict=True):
        yield name, lambda name=name, model=model: measured.take(name, model, nullcontext(), work.rows)
    yield "averaged", lambda: _averaged(work)
    for name in others:
        yield name, lambda name=name: _learned(work, name)


def _learned(work: Work, name: str) -> None:
    """Train a student and measure it."""
    materials = work.distilling.materials
    materials.forget_learning()
    learning = STUDENTS[name](work)
    while not learning.is_done:
        learning.advance()
    work.found.setdefault("last_loss", {})[name] = learning.loss
    work.measured.take(name, materials.student, nullcontext(), work.rows)
    materials.forget_learning()


def _averaged(work: Work) -> None:
    averaged = work.measured.averaged()
    assert averaged is not None, work.measured.notes
    work.measured.take("averaged", averaged, nullcontext(), work.rows)


def summary(work: Work) -> dict[str, Any]:
    """Return means with intervals, and the student's paired differences, by task; texts, and two of each teacher."""
    loss = {name: work.found["loss"][str(index)] for index, name in enumerate(TAUGHT)}
    kl = {name: {model: of[index] for model, of in work.found["kl"].items()} for index, name in enumerate(TAUGHT)}
    every = {model: [np.concatenate(part).tolist() for part in zip(*of, strict=True)]
             for model, of in work.found["kl"].items()}  # fmt: skip
    distilling = work.distilling
    return {
        "setting": vars(work.setting), "data": TAUGHT, "loss": {name: _table(of) for name, of in loss.items()},
        "kl": {"all": _table(every)} | {name: _table(of) for name, of in kl.items()},
        "texts": [{key: one[key] for key in ("name", "stage", "texts", "mean_tokens", "ended", "empty", "repeated")}
                  for one in distilling.described_texts()],
        "examples": {name: [distilling._shown(texts, row)["text"] for row in range(4)]
                     for name, texts in zip(TAUGHT, distilling.texts["samples"], strict=True)},
        "start": distilling.materials.start.what, "last_loss": work.found.get("last_loss", {}),
        "cpu_seconds": work.found["seconds"],
    }  # fmt: skip


def _table(by_model: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Return nats per token of each model, and what the student has more than others."""
    of = {model: (np.array(sums), np.array(counts)) for model, (sums, counts) in by_model.items()}
    found: dict[str, Any] = {model: three(*one) for model, one in of.items()}
    if "student" in of:
        sums, counts = of["student"]
        found["student against"] = {
            other: three(sums - of[other][0], counts) for other in (*AGAINST, *TAUGHT) if other in of
        }
    return found


def three(sums: np.ndarray, counts: np.ndarray) -> list[float]:
    """Return mean and ends of the 95 % interval, nats per token."""
    found = per_token(sums, counts)
    return [found["mean"], found["low"], found["high"]]


def report(figures: dict[str, Any]) -> None:
    """Print the tables."""
    for what in ("loss", "kl"):
        for task, rows in figures[what].items():
            print(f"\n{what} in nats per token, {task}")
            against = rows.get("student against", {})
            for model, row in rows.items():
                if model != "student against":
                    said = f"   student {_signed(against[model])}" if model in against else ""
                    print(f"  {model:12} {row[0]:.3f} ({row[1]:.3f} to {row[2]:.3f}){said}")


def _signed(row: list[float]) -> str:
    return f"{row[0]:+.3f} ({row[1]:+.3f} to {row[2]:+.3f})"


def main() -> None:
    """Train, write, learn, test, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=None, help="folder that keeps what is done")
    parser.add_argument("--quick", action="store_true", help="few blocks and steps: does it work, nothing more")
    for name, value in vars(Setting()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    setting = QUICK if arguments.quick else Setting(**{name: getattr(arguments, name) for name in vars(Setting())})
    few = f"-{setting.layers}-blocks" if setting.layers else ""
    file = "distil-quick" if arguments.quick else f"distil{few}"
    folder = results.emptied("distil-quick") if arguments.quick else arguments.work or results.QUICK / file
    work = Work(folder / kept_rows.digest(vars(setting), TAUGHT), setting)
    for name, measure in parts(work):
        if name not in work.found["kl"]:
            start = time.process_time()
            measure()
            work.take(name)
            work.timed(name, start)
            results.write(file, summary(work), "benchmarks.distil", ("--work",))
    report(summary(work))


if __name__ == "__main__":
    main()
