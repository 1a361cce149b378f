"""What is done so far, kept in a folder: teachers, inverted inputs, and the accuracy of each episode."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kept_rows
from benchmarks.recycle.intents import Intents
from benchmarks.recycle.setting import DROPPING, FEW, SHOTS, Setting
from dynlora.config import parse_config
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint
from dynlora.engine.recorder import NullRecorder
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.materials import Materials
from dynlora.kinds.recycle.work.run import FewShotTest, LabelledTexts
from dynlora.kinds.recycle.work.steps import Recycling
from dynlora.training import run


def key_of(setting: Setting, intents: Intents) -> str:
    """Return what changes with anything that a figure depends on; more seeds only add figures."""
    of = {name: value for name, value in vars(setting).items() if name != "seeds"}
    texts = [[list(rows["text"]), list(map(str, rows["label"]))] for rows in (intents.train, intents.test)]
    return kept_rows.digest(of, texts, SHOTS, FEW, DROPPING)


def digest_of(settings: RecycleSettings) -> str:
    """Return what changes with the settings of a recycle, its teachers among them."""
    return kept_rows.digest(settings.model_dump(mode="json"))


@dataclass
class Work:
    """What is done so far, kept in a folder.

    Attributes:
        folder: of everything that was done with this setting on these texts.
        setting: how much is done.
        intents: the texts.
        figures: accuracy of each episode, by method and shots; seconds by part.
    """

    folder: Path
    setting: Setting
    intents: Intents
    figures: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def below(cls, folder: Path, setting: Setting, intents: Intents) -> Work:
        """Return what is done so far with a setting on these texts, in a folder that may hold that of others too."""
        place = folder / key_of(setting, intents)
        place.mkdir(parents=True, exist_ok=True)
        return cls(place, setting, intents)

    def __post_init__(self) -> None:
        """Read what is there."""
        self.figures = {"accuracy": {}, "seconds": {}} | kept_rows.read_found(self.folder / "found.json")

    def keep(self) -> None:
        """Write what was found."""
        kept_rows.write_found(self.folder / "found.json", self.figures)

    def teachers(self) -> list[str]:
        """Train the teachers that are not there yet, and return the ids of all."""
        ids: dict[str, str] = self.figures.setdefault("teachers", {})
        for number in range(self.setting.teachers):
            if str(number) not in ids:
                ids[str(number)] = self._trained(number)
                self.keep()
                print(f"teacher {number + 1} of {self.setting.teachers} trained", flush=True)
        return [ids[str(number)] for number in range(self.setting.teachers)]

    def _trained(self, number: int) -> str:
        of = self.setting
        mine = self.intents.taught[number * of.classes : (number + 1) * of.classes]
        file = self.folder / f"teacher-{number}.csv"
        rows = self.intents.train
        rows[rows["label"].isin(mine)][["text", "label"]].to_csv(file, index=False)
        outcome = run.train(
            parse_config(
                {
                    "name": f"teacher {number + 1}",
                    "model": {"name": of.model},
                    "data": {"path": str(file), "max_length": 32},
                    "adapter": {"rank": 4},
                    "strategy": {"name": "lora"},
                    "train": {"steps": of.steps, "lr": 2e-3, "head_lr": None},
                    "log": {"eval_every": of.steps, "checkpoint_every": of.steps},
                }
            ),
            self.folder / "runs",
        )
        if outcome.state != "finished":
            raise SystemExit(f"teacher {number}: {outcome.error}")
        return outcome.folder.name

    def recycling(self, *, drop: float = 0.5, teachers: int | None = None) -> Recycling:
        """Return the recycle of the first teachers after its inversion, which continues where it was."""
        few = "" if teachers is None else f", {teachers} teachers"
        return self.inverted(f"{drop:.0%} dropped{few}", self.settings(teachers, drop=drop))

    def settings(self, teachers: int | None = None, **values: Any) -> RecycleSettings:
        """Return the settings of a recycle of the first teachers."""
        of = self.setting
        return RecycleSettings.parse(
            {
                "teachers": self.teachers()[:teachers],
                "shots": SHOTS,
                "iterations": of.iterations,
                "inputs": of.inputs,
                "episodes": of.episodes,
                "drop": 0.5,
                "rank": 8,
                "lora_alpha": 16,
                "lr": of.lr,
                "pooling": of.pooling,
                "moments": of.moments,
                "ways": 5 if of.test_classes >= 5 else 2,
                **values,
            }
        )

    def inverted(self, name: str, settings: RecycleSettings) -> Recycling:
        """Return a recycle after its inversion, which continues where it was."""
        recycling = Recycling(Materials.load(settings, self.folder / "runs"), NullRecorder())
        place = self.folder / f"inverted, {name}, {digest_of(settings)}"
        if find_checkpoint(place) is not None:
            recycling.load_state_dict(read_checkpoint(place))
        seconds: dict[str, float] = self.figures["seconds"]
        key = f"inversion, {name}"
        while recycling.stage() == "inversion":
            start = time.process_time()
            recycling.advance()
            seconds[key] = seconds.get(key, 0.0) + time.process_time() - start
            if recycling.inversion is None:
                self.figures.setdefault("agreement", {})[name] = float(np.nanmean(recycling.agreement))
                write_checkpoint(place, recycling.state_dict())
                self.keep()
                print(f"{name}: part {len(recycling.inverted)} inverted, {seconds[key]:.0f} s so far", flush=True)
        return recycling

    def test(self, intents: list[str] | None = None) -> FewShotTest:
        """Return the test episodes, the same for all; of other intents where they are given."""
        names = self.intents.unseen if intents is None else intents
        rows = self.intents.test[self.intents.test["label"].isin(names)]
        index = {name: number for number, name in enumerate(names)}
        data = LabelledTexts(list(rows["text"]), rows["label"].map(index).to_numpy(), names, "test")
        ways = min(5, self.setting.test_classes)
        return FewShotTest.of(data, ways=ways, shots=SHOTS, episodes=self.setting.test_episodes, seed=1)

    def take(self, name: str, accuracy: dict[int, np.ndarray]) -> None:
        """Keep the accuracy of a method."""
        self.figures["accuracy"][name] = {str(shots): values.round(6).tolist() for shots, values in accuracy.items()}
        self.keep()
        accuracies = ", ".join(f"{shots}-shot {values.mean():.4f}" for shots, values in accuracy.items())
        print(f"{name}: {accuracies}", flush=True)
