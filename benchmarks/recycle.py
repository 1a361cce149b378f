"""LoRA Recycle on intents: what do finished adapters give to intents that nobody trained, without their data?

    python -m benchmarks.recycle [--data ../shared/data/clinc150] [--model minilm] [--teachers 12] [--seeds 2]

CLINC150 has 150 intents. 60 of them are for the test; of the others each teacher learns six. All ways of making
features are tested on the same 600 episodes of 5 ways with 1 and 5 shots and 15 queries a class, and compared in pairs.
`real` learns from the teachers' own data: if it gains nothing over `base`, there is no headroom. `noise` learns from
what the inversion starts from, with the same labels. The best teacher is chosen on the test episodes, in its favour.
Everything is kept in --work after each part, so a run that was ended continues where it was. Without --data the classes
are those of sentiment4, domain and sentiment: too few for more than two ways.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from transformers.utils import logging as transformers_logging

from benchmarks import results
from dynlora import assets
from dynlora.config import parse_config
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint
from dynlora.engine.recorder import NullRecorder
from dynlora.kinds.recycle import RecycleSettings
from dynlora.recycling.few_shot_accuracy import (
    AveragedTeachers,
    FewShotTest,
    LabelledTexts,
    mean_and_interval,
    teacher_features,
)
from dynlora.recycling.materials import Materials
from dynlora.recycling.meta_training import MetaTraining
from dynlora.recycling.pool import Pool, TextPool
from dynlora.recycling.recycling import Recycling
from dynlora.training import run as training

MODULE = "benchmarks.recycle"
SHOTS = (1, 5)
SOURCES = ("inverted", "words", "noise", "real")
"""What a meta-LoRA learns from: inverted inputs, their nearest words, what was not inverted, the teachers' data."""

FEW = 3
"""Teachers of the comparison of token dropping."""

VARIANTS: dict[str, dict[str, Any]] = {
    "where tuning began": {},
    "starts from text": {"start": "text"},
    "starts from noise": {"start": "noise"},
    "no pull to words": {"table": 0.0},
    "no moments": {"moments": 0.0},
    "stronger moments": {"moments": 1.0},
}
"""Settings that are compared with `--tune`: on `FEW` teachers and on intents of neither teachers nor test."""

BEGAN = {"start": "words", "moments": 0.1, "table": 0.05}
"""What the variants differ from."""

DROPPING = {"few, half of the tokens": 0.5, "few, all tokens": 0.0}
"""What a meta-LoRA of `FEW` teachers learns from, and the fraction of tokens that its inversion drops."""


@dataclass(frozen=True)
class Setting:
    """How much is done.

    Attributes:
        model: backbone.
        teachers: runs that teach.
        classes: intents of each.
        test_classes: intents that nobody trains.
        steps: optimizer steps of a teacher.
        iterations: of the inversion.
        inputs: synthetic inputs of a class.
        episodes: of meta-training.
        test_episodes: for each number of shots.
        pooling: of the features.
        lr: of the meta-LoRA.
        moments: weight of the distance to the hidden moments of public text.
        seeds: of meta-training.
    """

    model: str = "minilm"
    teachers: int = 12
    classes: int = 6
    test_classes: int = 60
    steps: int = 60
    iterations: int = 24
    inputs: int = 10
    episodes: int = 80
    test_episodes: int = 600
    pooling: str = "mean"
    lr: float = 1e-3
    moments: float = 1.0
    seeds: int = 2


@dataclass
class Intents:
    """Texts by intent: those that teachers learn, and those of the test."""

    train: pd.DataFrame
    test: pd.DataFrame
    taught: list[str]
    unseen: list[str]

    @classmethod
    def of(cls, folder: Path | None, setting: Setting) -> Intents:
        """Read CLINC150; without it sentiment4, whose classes are domain and sentiment."""
        if folder is not None:
            train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
        else:
            train = test = _domains()
        order = np.random.default_rng(0).permutation(sorted(train["label"].unique()))
        return cls(train, test, list(order[setting.test_classes :]), sorted(order[: setting.test_classes]))


def _domains() -> pd.DataFrame:
    """Return sentiment4 with its domain and sentiment as one label."""
    file = next(path for path in assets.resolve_data("sentiment4").iterdir() if path.stem == "train")
    rows = pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    rows["label"] = rows["domain"].astype(str) + " " + rows["label"].astype(str)
    return rows.groupby("label").head(60).reset_index(drop=True)


@dataclass
class Work:
    """What is done so far, kept in a folder.

    Attributes:
        folder: of everything.
        setting: how much is done.
        intents: the texts.
        found: accuracy of each episode, by method and shots; seconds by part.
    """

    folder: Path
    setting: Setting
    intents: Intents
    found: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what is there."""
        file = self.folder / "found.json"
        self.found = json.loads(file.read_text("utf-8")) if file.exists() else {"accuracy": {}, "seconds": {}}

    def keep(self) -> None:
        """Write what was found."""
        (self.folder / "found.json").write_text(json.dumps(self.found), "utf-8")

    def teachers(self) -> list[str]:
        """Train the teachers that are not there yet, and return the ids of all."""
        ids: dict[str, str] = self.found.setdefault("teachers", {})
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
        outcome = training.train(
            parse_config(
                {
                    "name": f"teacher {number + 1}", "model": {"name": of.model},
                    "data": {"path": str(file), "max_length": 32}, "adapter": {"rank": 4}, "strategy": {"name": "lora"},
                    "train": {"steps": of.steps, "lr": 2e-3},
                    "log": {"eval_every": of.steps, "checkpoint_every": of.steps},
                }
            ),
            self.folder / "runs",
        )  # fmt: skip
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
                "teachers": self.teachers()[:teachers], "shots": SHOTS, "iterations": of.iterations,
                "inputs": of.inputs, "episodes": of.episodes, "drop": 0.5,
                "rank": 8, "lora_alpha": 16, "lr": of.lr, "pooling": of.pooling,
                "moments": of.moments,
                "ways": 5 if of.test_classes >= 5 else 2, **values,
            }
        )  # fmt: skip

    def inverted(self, name: str, settings: RecycleSettings) -> Recycling:
        """Return a recycle after its inversion, which continues where it was."""
        found = Recycling(Materials.load(settings, self.folder / "runs"), NullRecorder())
        place = self.folder / f"inverted, {name}"
        if find_checkpoint(place) is not None:
            found.load_state_dict(read_checkpoint(place))
        seconds: dict[str, float] = self.found["seconds"]
        key = f"inversion, {name}"
        while found.stage() == "inversion":
            start = time.process_time()
            found.advance()
            seconds[key] = seconds.get(key, 0.0) + time.process_time() - start
            if found.inversion is None:
                self.found.setdefault("agreement", {})[name] = float(np.nanmean(found.agreement))
                write_checkpoint(place, found.state_dict())
                self.keep()
                print(f"{name}: part {len(found.inverted)} inverted, {seconds[key]:.0f} s so far", flush=True)
        return found

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
        self.found["accuracy"][name] = {str(shots): values.round(6).tolist() for shots, values in accuracy.items()}
        self.keep()
        said = ", ".join(f"{shots}-shot {values.mean():.4f}" for shots, values in accuracy.items())
        print(f"{name}: {said}", flush=True)


def real_pool(work: Work) -> TextPool:
    """Return the data that the teachers learned from."""
    of = work.setting
    taught = work.intents.taught[: of.teachers * of.classes]
    rows = work.intents.train[work.intents.train["label"].isin(taught)].reset_index(drop=True)
    return TextPool([np.flatnonzero(rows["label"] == name) for name in taught], list(rows["text"]))


def pool_of(work: Work, source: str) -> tuple[Recycling, Pool]:
    """Return what a meta-LoRA learns from."""
    if source in DROPPING:
        few = min(FEW, work.setting.teachers)
        recycling = work.recycling(drop=DROPPING[source], teachers=few)
        return recycling, recycling.pool()
    recycling = work.recycling()
    if source == "real":
        return recycling, real_pool(work)
    return recycling, recycling.pool(control=source == "noise", words=source == "words")


def learned(work: Work, test: FewShotTest, source: str, seed: int) -> None:
    """Train a meta-LoRA and keep its accuracy."""
    recycling, pool = pool_of(work, source)
    materials = recycling.materials
    settings = materials.settings.model_copy(update={"seed": seed})
    materials.forget_learning()
    for module in materials.meta.adapters:
        module.reset_parameters(seed)
    training_ = MetaTraining(materials.meta, pool, settings, materials.autocast)
    start = time.process_time()
    first = []
    while not training_.is_done:
        training_.advance()
        first = [*first, training_.accuracy][:10]
    work.found["seconds"][f"episodes, {source}, seed {seed}"] = time.process_time() - start
    work.found.setdefault("first_episodes", {})[f"{source}, seed {seed}"] = float(np.mean(first))
    work.take(f"{source}, seed {seed}", test.accuracy(materials.meta.text_features(test.data.texts)))


def tune(work: Work, file: str) -> None:
    """Compare settings on intents that neither teachers nor the test have; print them, and write them after each."""
    of = work.setting
    test = work.test(sorted(work.intents.taught[of.teachers * of.classes :]))
    kept: dict[str, Any] = work.found.setdefault("tuning", {})
    for name, values in VARIANTS.items():
        if name not in kept:
            recycling = work.inverted(f"tuning, {name}", work.settings(min(FEW, of.teachers), **{**BEGAN, **values}))
            materials = recycling.materials
            training_ = MetaTraining(materials.meta, recycling.pool(), materials.settings, materials.autocast)
            with materials.meta.adapters.disabled():
                base = test.accuracy(materials.meta.text_features(test.data.texts))
            while not training_.is_done:
                training_.advance()
            found = test.accuracy(materials.meta.text_features(test.data.texts))
            kept[name] = {str(shots): _three(values - base[shots]) for shots, values in found.items()}
            work.keep()
        results.write(f"{file}-tune", {"setting": vars(of), "teachers": FEW, "against base": kept}, MODULE)
        print(f"{name}: " + ", ".join(f"{s}-shot {100 * v[0]:+.2f} points" for s, v in kept[name].items()), flush=True)


def linear(features: torch.Tensor, test: FewShotTest) -> dict[int, np.ndarray]:
    """Return the accuracy of a logistic regression on the support's features, episode by episode."""
    table = features.numpy()
    found = {}
    for shots, episodes in test.episodes.items():
        values = []
        for episode in episodes:
            ways, queries = episode.query.shape
            head = LogisticRegression(C=1.0, max_iter=200)
            head.fit(table[episode.support.ravel()], np.arange(ways).repeat(shots))
            right = head.predict(table[episode.query.ravel()]) == np.arange(ways).repeat(queries)
            values.append(right.mean())
        found[shots] = np.array(values)
    return found


def without_learning(work: Work, test: FewShotTest) -> None:
    """Keep the accuracy of the base, of a linear head on it, of each teacher and of their average."""
    materials = work.recycling().materials
    with materials.meta.adapters.disabled():
        features = materials.meta.text_features(test.data.texts)
    work.take("base", test.accuracy(features))
    work.take("linear head", linear(features, test))
    averaged = AveragedTeachers()
    for number, _ in enumerate(materials.teachers):
        model = materials.teacher(number)
        work.take(f"teacher {number}", test.accuracy(teacher_features(model, materials.meta, test.data.texts)))
        averaged.add(model)
        materials.forget_teacher()
    work.take("averaged", test.accuracy(averaged.features(materials.meta, test.data.texts)))


def methods(found: dict[str, Any], seeds: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield each method with the accuracy of its episodes by shots; of several seeds the mean of each episode."""
    accuracy = {name: {s: np.array(v) for s, v in of.items()} for name, of in found["accuracy"].items()}
    for name in ("base", "linear head", "averaged"):
        if name in accuracy:
            yield name, accuracy[name]
    alone = [of for name, of in accuracy.items() if name.startswith("teacher ")]
    if alone:
        yield "best teacher", max(alone, key=lambda of: sum(float(values.mean()) for values in of.values()))
    for source in (*SOURCES, *DROPPING):
        runs = [accuracy[key] for seed in range(seeds) if (key := f"{source}, seed {seed}") in accuracy]
        if runs:
            yield source, {shots: np.mean([run[shots] for run in runs], axis=0) for shots in runs[0]}


def summary(work: Work) -> dict[str, Any]:
    """Return means, intervals and paired differences, by method and shots."""
    of = dict(methods(work.found, work.setting.seeds))
    table: dict[str, Any] = {
        name: {shots: {"accuracy": _three(values)} | _paired(of, name, shots) for shots, values in by_shots.items()}
        for name, by_shots in of.items()
    }
    if "real" in of and "inverted" in of:
        for shots in of["real"]:
            gains = [float((of[name][shots] - of["base"][shots]).mean()) for name in ("inverted", "real")]
            table["inverted"][shots]["share of the gain of real data"] = gains[0] / gains[1] if gains[1] else None
    return {
        "setting": vars(work.setting), "methods": table, "cpu_seconds": work.found["seconds"],
        "agreement": work.found.get("agreement", {}), "first_episodes": work.found.get("first_episodes", {}),
    }  # fmt: skip


def _paired(of: dict[str, dict[str, np.ndarray]], name: str, shots: str) -> dict[str, list[float]]:
    """Return the differences of a method to those it is held against, on the same episodes."""
    half, whole = DROPPING
    others = ["base", "noise", "averaged", *([whole] if name == half else [])]
    return {
        f"against {other}": _three(of[name][shots] - of[other][shots])
        for other in others
        if other in of and other != name
    }


def _three(values: np.ndarray) -> list[float]:
    found = mean_and_interval(values)
    return [found["mean"], found["low"], found["high"]]


def report(figures: dict[str, Any]) -> None:
    """Print the table."""
    for name, by_shots in figures["methods"].items():
        for shots, row in by_shots.items():
            mean, low, high = row["accuracy"]
            said = f"{name:14} {shots}-shot {mean:.4f} ({low:.4f} to {high:.4f})"
            for key, value in row.items():
                if key.startswith("against"):
                    said += f"   {key} {value[0]:+.4f} ({value[1]:+.4f} to {value[2]:+.4f})"
            print(said)


def plan(setting: Setting) -> Iterator[tuple[int, str]]:
    """Yield the seed and source of each meta-training, what matters most first; dropping is compared on one seed."""
    for seed in range(setting.seeds):
        yield from ((seed, source) for source in SOURCES)
        if seed == 0:
            yield from ((0, source) for source in DROPPING)


def compare(work: Work, file: str) -> None:
    """Measure everything that is not measured yet, and write the results after each."""
    test = work.test()
    for seed, source in plan(work.setting):
        if f"{source}, seed {seed}" not in work.found["accuracy"]:
            learned(work, test, source, seed)
        if "averaged" not in work.found["accuracy"]:
            without_learning(work, test)
        results.write(file, summary(work), MODULE)


def main() -> None:
    """Train, invert, learn, test, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder of CLINC150")
    parser.add_argument("--work", type=Path, default=None, help="folder that keeps what is done")
    parser.add_argument("--tune", action="store_true", help="compare settings on intents of neither side")
    parser.add_argument("--quick", action="store_true", help="few steps: does it work, nothing more")
    for name, value in vars(Setting()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    setting = Setting(**{name: getattr(arguments, name) for name in vars(Setting())})
    if arguments.quick:
        setting = Setting(teachers=2, classes=3, test_classes=2, steps=20, iterations=12, inputs=8, episodes=10,
                          test_episodes=60, seeds=1)  # fmt: skip
    if arguments.data is None and not arguments.quick:
        setting = replace(setting, teachers=2, classes=3, test_classes=2)
    data = "sentiment4" if arguments.data is None else arguments.data.name
    file = "recycle-quick" if arguments.quick else f"recycle-{data}-{setting.model}"
    folder = results.emptied("recycle") if arguments.quick else arguments.work or results.QUICK / file
    folder.mkdir(parents=True, exist_ok=True)
    work = Work(folder, setting, Intents.of(arguments.data, setting))
    if arguments.tune:
        tune(work, file)
        return
    compare(work, file)
    report(summary(work))


if __name__ == "__main__":
    main()
