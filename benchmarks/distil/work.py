"""What is done so far, kept in a folder: teachers, their texts, and what was measured of each model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import kept_rows
from benchmarks.distil.setting import TAUGHT, Setting
from dynlora.config import parse_config
from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.text_data import of_groups
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint
from dynlora.engine.randomness import stream_seed
from dynlora.engine.recorder import NullRecorder
from dynlora.kinds.distil.settings import TEXTS_AT_ONCE, DistilSettings
from dynlora.kinds.distil.work.materials import Materials, StudentTraining, Texts, written_texts
from dynlora.kinds.distil.work.run import Distilling, DistilMetrics, PerText
from dynlora.kinds.sources import LoraTraining
from dynlora.training import run
from dynlora.training.inputs import read_data


@dataclass
class Work:
    """What is done so far, kept in a folder.

    Attributes:
        folder: of everything that was done with this setting.
        setting: how much is done.
        figures: (sums, counts) of each example and text by model, and seconds by part.
    """

    folder: Path
    setting: Setting
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.figures = {"kl": {}, "loss": {}, "seconds": {}} | kept_rows.read_found(self.folder / "found.json")

    def keep(self) -> None:
        """Write what was found."""
        kept_rows.write_found(self.folder / "found.json", self.figures)

    def teachers(self) -> list[str]:
        """Train the teachers that are not there yet, and return the ids of all."""
        ids: dict[str, str] = self.figures.setdefault("teachers", {})
        for name, data in TAUGHT.items():
            if name not in ids:
                start = time.process_time()
                ids[name] = self._trained(name, data)
                self.timed(f"teacher {name}", start)
        return [ids[name] for name in TAUGHT]

    def _trained(self, name: str, data: dict[str, Any]) -> str:
        of = self.setting
        outcome = run.train(
            parse_config(
                {
                    "name": name,
                    "seed": of.seed,
                    "model": {"name": of.model, "layers": of.layers or None},
                    "data": {**data, "max_length": of.tokens, "max_train": 1000, "max_eval": 16},
                    "adapter": {"rank": of.rank},
                    "strategy": {"name": "lora"},
                    "train": {"steps": of.teacher_steps, "batch_size": of.batch, "lr": of.lr, "precision": "fp32"},
                    "log": {
                        "eval_every": of.teacher_steps,
                        "checkpoint_every": of.teacher_steps,
                        "generate_rows": 1,
                        "generate_max": 8,
                    },
                }
            ),
            self.folder / "runs",
        )
        if outcome.state != "finished":
            raise SystemExit(f"teacher {name}: {outcome.error}")
        return outcome.folder.name

    @cached_property
    def distilling(self) -> Distilling:
        """The distillation after its teachers have written; they continue where they were."""
        of = self.setting
        settings = DistilSettings.parse(
            {
                "teachers": self.teachers(),
                "samples": of.samples,
                "held_out": of.held_out,
                "tokens": of.tokens,
                "train_steps": of.steps,
                "batch_size": of.batch,
                "rank": of.rank,
                "lora_alpha": 2.0 * of.rank,
                "lr": of.lr,
                "rows": of.rows,
                "seed": of.seed,
            }
        )
        distilling = Distilling(Materials.load(settings, self.folder / "runs"), NullRecorder())
        place = self.folder / "texts"
        if find_checkpoint(place) is not None:
            distilling.load_state_dict(read_checkpoint(place))
        while distilling.stage() != "student":
            start = time.process_time()
            distilling.advance()
            write_checkpoint(place, distilling.state_dict())
            self.timed("texts of the teachers", start)
        return distilling

    @cached_property
    def examples(self) -> list[Tokens]:
        """The training examples of each teacher."""
        tokens_of_teachers = []
        for teacher, model in zip(self.distilling.materials.teachers, self.distilling.materials.models, strict=True):
            data, groups = read_data(teacher.config), teacher.config.data.train_groups
            tokens_of_teachers.append(model.tokens(data.train if groups is None else of_groups(data.train, groups)))
        return tokens_of_teachers

    @cached_property
    def measured(self) -> DistilMetrics:
        """What measures."""
        return DistilMetrics(self.distilling)

    @cached_property
    def rows(self) -> dict[int, Any]:
        """The held-out examples of each teacher."""
        return self.measured.held_out_rows()

    def base_texts(self) -> list[Texts]:
        """Return as many texts of the base model for each teacher as that wrote for the student."""
        materials, of = self.distilling.materials, self.setting
        by_teacher = []
        for index, own in enumerate(self.distilling.texts["samples"]):
            texts = Texts(own.start, own.end)
            while len(texts) < of.samples:
                count = min(TEXTS_AT_ONCE, of.samples - len(texts))
                seed = stream_seed(of.seed, "base texts", index, len(texts)) % 2**62
                with materials.student.adapters.disabled():
                    texts.add(written_texts(materials.student, materials.start, count, of.tokens, seed))
            by_teacher.append(texts)
        return by_teacher

    def texts_training(self, texts: list[Texts]) -> LoraTraining:
        """Return a student that learns from texts."""
        of, materials = self.setting, self.distilling.materials
        return StudentTraining(
            materials.student, materials.models, texts, steps=of.steps, lr=of.lr, batch_size=of.batch, seed=of.seed
        )

    def timed(self, name: str, start: float) -> None:
        """Add the processor's seconds of a part, and keep everything."""
        seconds = self.figures["seconds"]
        seconds[name] = round(seconds.get(name, 0.0) + time.process_time() - start, 1)
        self.keep()
        print(f"{name}: {seconds[name]:.0f} s of processor time", flush=True)

    def take(self, name: str) -> None:
        """Keep what was measured of a model."""
        if name in self.measured.kl:
            self.figures["kl"][name] = [_plain(one) for one in self.measured.kl[name]]
        for index, by_model in self.measured.loss.items():
            if name in by_model:
                self.figures["loss"].setdefault(str(index), {})[name] = _plain(by_model[name])
        self.keep()


def _plain(sums_and_counts: PerText) -> list[list[float]]:
    return [values.tolist() for values in sums_and_counts]
