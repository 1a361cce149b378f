"""Training that starts from an adapter: the same function at step 0, its own record of where it comes from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import dynlora
from dynlora.cli.serving import refusal
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import read_run_config
from dynlora.engine.loop.checkpoint import read_checkpoint
from dynlora.errors import ConfigError
from dynlora.inference.compress import Compression, write_size
from dynlora.inference.session import load_run
from dynlora.jobs import launch
from dynlora.jobs.export import recovery_values, start_folder
from dynlora.store import queries
from dynlora.store.measurements import Compressed, Half, Size
from dynlora.store.writer import RunWriter
from dynlora.training import run as training_run
from dynlora.training.inputs import read_data
from dynlora.training.run import plan
from tests.command_line import document, run
from tests.tiny import save_tiny

STEPS = 8


@dataclass(frozen=True)
class Small:
    """A compressed adapter.

    Attributes:
        folder: as PEFT loads it.
        source: folder of the run that it comes from.
        size: that was kept.
        loss: of all held-out examples.
    """

    folder: Path
    source: Path
    size: Size
    loss: float

    def values(self, **more: Any) -> dict[str, Any]:
        """The configuration of a run that starts from it; more settings of the method."""
        values = recovery_values(read_run_config(self.source).model_dump(mode="json"), self.folder, STEPS, "again")
        values["strategy"] |= more
        values["log"] |= {"every": 2, "eval_every": 4, "checkpoint_every": 4}
        return values

    def config(self, **more: Any) -> RunConfig:
        """The same, checked."""
        return parse_config(self.values(**more))


def made_small(source: Path, out: Path) -> Small:
    """Write a run's adapter at four tenths of its parameters."""
    compression = Compression.of_run(source, rows=64)
    size = compression.measured("global", 0.4)
    write_size(compression, out, size, run=source, which="last")
    model = compression.curve.adapter.model
    return Small(out, source, size, model.evaluate(read_data(compression.config).held_out)["loss"])


@pytest.fixture(scope="module")
def smalls(trained_run: Path, writer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    """A compressed adapter of each task; tests only read them."""
    place = tmp_path_factory.mktemp("small")
    return {
        "classification": made_small(trained_run, place / "classifier"),
        "causal_lm": made_small(writer, place / "writer"),
    }


@pytest.fixture(params=["classification", "causal_lm"])
def small(request: pytest.FixtureRequest, smalls: dict[str, Small]) -> Small:
    """A compressed adapter of one task."""
    return smalls[request.param]


@pytest.fixture
def classifier(smalls: dict[str, Small]) -> Small:
    """The compressed adapter with a head."""
    return smalls["classification"]


@pytest.fixture(scope="module")
def trainings(smalls: dict[str, Small], tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """The folder of a finished run that starts from each compressed adapter, by its folder; tests only read them."""
    place = tmp_path_factory.mktemp("trainings")
    return {small.folder: training_run.train(small.config(), place).folder for small in smalls.values()}


@pytest.fixture
def recovered(small: Small, trainings: dict[Path, Path]) -> Path:
    """The finished run of one task."""
    return trainings[small.folder]


def held_out_loss(folder: Path) -> dict[int, float]:
    """Held-out loss by step."""
    frame = queries.scalars_frame(folder, "loss", "validation")
    return dict(zip(frame["step"].astype(int), frame["value"], strict=True))


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's last adapter, head included, by place."""
    state = read_checkpoint(folder / "adapter")
    tensors = {f"{name}.{key}": one[key] for name, one in state["adapters"]["modules"].items() for key in KEYS}
    return tensors | state["head"]


KEYS = ("lora_A", "lora_B")


def test_step_zero_is_the_compressed_adapter_and_its_head(small: Small, recovered: Path) -> None:
    losses = held_out_loss(recovered)
    assert losses[0] == pytest.approx(small.loss, abs=1e-5)
    assert losses[STEPS] != pytest.approx(losses[0], abs=1e-7), "it was trained"
    summary = queries.run_summary(recovered)
    assert summary.status == "finished"
    assert list(summary.ranks.values()) == list(small.size.ranks)
    assert summary.params["active"] == summary.params["budget"] == small.size.parameters


def origin_of(folder: Path) -> Mapping[str, Any]:
    """Return where the adapter of a run comes from."""
    origin = queries.run_summary(folder).origin
    assert origin is not None
    return origin


def test_a_run_says_which_run_it_comes_from_and_at_which_size(small: Small, recovered: Path) -> None:
    origin = origin_of(recovered)
    assert origin["run"] == small.source.name
    assert origin["name"] == queries.run_summary(small.source).name
    assert origin["parameters"] == small.size.parameters
    assert origin["share"] == pytest.approx(small.size.parameters / origin["of"])
    assert 0 < origin["share"] <= 0.4
    assert f"Starts from run {small.source.name}" in run(recovered.parent, "show", recovered.name).stdout
    assert queries.run_summary(small.source).origin is None


@pytest.mark.parametrize(
    ("small", "at"),
    [
        ("classification", 4),
        ("causal_lm", 0),
        pytest.param("classification", 0, marks=pytest.mark.torture),
        pytest.param("causal_lm", 4, marks=pytest.mark.torture),
    ],
    indirect=["small"],
)
def test_resume_is_bit_equal_and_needs_the_folder_no_more(
    small: Small, recovered: Path, runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    mine = Small(Path(shutil.copytree(small.folder, tmp_path / "mine")), small.source, small.size, small.loss)
    planned = plan(mine.config())
    folder = planned.create(runs_dir, "queued")
    shutil.rmtree(mine.folder)
    monkeypatch.setattr(launch, "wake", lambda *_: None)
    monkeypatch.delattr(os, "nice")  # a queued run is checked at a lower priority, which this process would keep
    assert refusal(folder) is None
    if at:
        with monkeypatch.context() as patch:
            patch.setattr(training_run, "_after_step", stopping_at(at))
            assert training_run.resume(runs_dir, folder.name).state == "stopped"
        shutil.rmtree(folder / "start")  # its checkpoint suffices from here on
    assert training_run.resume(runs_dir, folder.name).state == "finished"
    one, other = tensors_of(recovered), tensors_of(folder)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert held_out_loss(folder) == held_out_loss(recovered)
    assert queries.run_summary(folder).origin == queries.run_summary(recovered).origin


def stopping_at(step: int) -> Any:
    """What follows each step, so that the run is asked to stop at one of them."""

    def after(bar: Any, writer: Any, readings: Any, trackers: Any, trainer: Any) -> None:
        if trainer.step == step:
            trainer.should_stop = lambda: True

    return after


def test_what_a_run_keeps_of_its_start_runs_no_code(classifier: Small, runs_dir: Path) -> None:
    folder = plan(classifier.config()).create(runs_dir, "queued")
    names = sorted(path.name for path in (folder / "start").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "config.json", "dynlora_origin.json"]


def test_the_recovered_adapter_is_loaded_and_compressed_like_any_other(recovered: Path) -> None:
    rows = read_data(read_run_config(recovered)).held_out
    assert load_run(recovered).evaluate(rows)["loss"] == pytest.approx(held_out_loss(recovered)[STEPS], abs=1e-5)
    again = Compression.of_run(recovered, rows=64)
    assert again.measured("global", 1.0).reported_on.difference == pytest.approx(0, abs=1e-4)


def altered(small: Small, out: Path, **changes: Any) -> Small:
    """A copy of the adapter with other tensors (`drop`, `cut`, `add`, `spoil`) or other values in its configuration."""
    shutil.copytree(small.folder, out)
    tensors = safetensors.numpy.load_file(out / "adapter_model.safetensors")
    name = next(key for key in tensors if "lora_A" in key)
    head = next(key for key in tensors if "lora_" not in key)
    if changes.pop("cut", False):
        tensors[name] = tensors[name][:, :-1]
    if changes.pop("drop", False):
        del tensors[head]
    if changes.pop("widen", False):
        tensors = {key: np.concatenate([one, one]) if "lora_" not in key else one for key, one in tensors.items()}
    if extra := changes.pop("add", None):
        tensors[f"base_model.model.{extra}"] = np.zeros(3, np.float32)
    if changes.pop("spoil", False):
        tensors[name] = tensors[name] * np.nan
    if other := changes.pop("module", None):
        tensors = {key.replace(name.split(".lora_")[0], other): one for key, one in tensors.items()}
    safetensors.numpy.save_file({key: one.copy() for key, one in tensors.items()}, out / "adapter_model.safetensors")
    for file, values in changes.items():
        path = out / f"{file}.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")
    return Small(out, small.source, small.size, small.loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cut": True}, "inputs and"),
        ({"drop": True}, "its head does not fit"),
        ({"widen": True}, "its head does not fit"),
        ({"add": "bert.embeddings.word_embeddings.weight"}, "is not trained for this task"),
        ({"spoil": True}, "not finite"),
        ({"module": "base_model.model.bert.encoder.layer.9.attention.self.query"}, "which is not adapted here"),
        ({"adapter_config": {"base_model_name_or_path": "somebody/else"}}, "was trained on somebody/else"),
        ({"adapter_config": {"use_dora": True}}, "DoRA"),
        ({"config": {"id2label": {"0": "good", "1": "bad"}}}, "its classes are good, bad"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_before_a_run_is_made(
    changes: dict[str, Any], message: str, classifier: Small, runs_dir: Path, tmp_path: Path
) -> None:
    config = altered(classifier, tmp_path / "altered", **changes).config()
    with pytest.raises(ConfigError, match=message) as error:
        training_run.train(config, runs_dir)
    assert str(error.value).startswith("strategy.start_from=")
    assert list(runs_dir.iterdir()) == []


def test_another_base_model_of_the_same_shapes_is_refused(classifier: Small, runs_dir: Path, tmp_path: Path) -> None:
    values = classifier.values()
    values["model"]["name"] = str(save_tiny("bert", tmp_path / "another", seed=5))
    with pytest.raises(ConfigError, match="was trained on .* set model.name to that model"):
        training_run.train(parse_config(values), runs_dir)
    assert list(runs_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"init": "gaussian"}, "strategy.init=gaussian: strategy.start_from gives"),
        ({"scaling": "rank_stabilized"}, "strategy.scaling=rank_stabilized"),
        ({"start_from": "nowhere"}, "not a folder"),
        ({"ranks_from": "ranks.json"}, "has other ranks than strategy.start_from"),
    ],
)
def test_settings_that_contradict_the_adapter_are_a_sentence(
    more: dict[str, str], message: str, classifier: Small, runs_dir: Path, tmp_path: Path
) -> None:
    if "ranks_from" in more:
        names = queries.run_summary(classifier.source).ranks
        (tmp_path / "ranks.json").write_text(json.dumps(dict.fromkeys(names, 1)), "utf-8")
        more = {"ranks_from": str(tmp_path / "ranks.json")}
    with pytest.raises(ConfigError, match=message):
        training_run.train(classifier.config(**more), runs_dir)
    assert list(runs_dir.iterdir()) == []


def test_the_ranks_of_the_same_adapter_contradict_nothing(classifier: Small, runs_dir: Path) -> None:
    folder = plan(classifier.config(ranks_from=str(classifier.folder))).create(runs_dir, "queued")
    assert origin_of(folder)["run"] == classifier.source.name


def test_the_command_queues_a_run_that_starts_from_the_size(
    classifier: Small, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(launch, "wake", started.append)
    source = Path(shutil.copytree(classifier.source, runs_dir / classifier.source.name))
    command = ["compress", source.name, "--budget", "0.4", "--rows", "64", "--recover", "6"]
    report = document(run(runs_dir, *command, "--json"))
    made = runs_dir / report["recovery"]["id"]
    assert started == [runs_dir]
    config, before = read_run_config(made), read_run_config(source)
    assert (config.data, config.seed, config.model, config.adapter) == (
        before.data,
        before.seed,
        before.model,
        before.adapter,
    )
    assert training_run.resume(runs_dir, made.name).state == "finished"
    losses = held_out_loss(made)
    assert losses[0] == pytest.approx(classifier.loss, abs=1e-5)
    assert max(losses) == 6
    assert origin_of(made)["run"] == source.name
    run(runs_dir, *command)
    assert len(list((runs_dir / ".starts").iterdir())) == 1, "the same size is kept once"


def test_an_adapter_brought_along_is_recovered_too(
    classifier: Small, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "wake", lambda *_: None)
    arguments = ["compress", str(classifier.folder), "--config", str(classifier.source / "config.yaml"), "--rows", "64"]
    report = document(run(runs_dir, *arguments, "--budget", "0.5", "--recover", "3", "--json"))
    origin = origin_of(runs_dir / report["recovery"]["id"])
    assert (origin["run"], origin["name"]) == (None, classifier.folder.name)
    assert 0 < origin["share"] <= 0.5


def test_what_a_run_says_of_itself_names_no_folder_elsewhere(classifier: Small, runs_dir: Path) -> None:
    half = Half(loss=1.0, difference=0.0, low=0.0, high=0.0, metrics={})
    compressed = Compressed(
        which="last",
        step=3,
        weighting="../../elsewhere",
        rows=40,
        parameters=20,
        modules=("a",),
        whole=half,
        planned=1,
        sizes=(classifier.size.model_copy(update={"ranks": (1,)}),),
    )
    place = start_folder(runs_dir, "../run/..", compressed, classifier.size)
    assert place.parent == runs_dir / ".starts"
    assert place.name.isascii()


def test_an_origin_that_cannot_be_is_none(classifier: Small, runs_dir: Path) -> None:
    folder = plan(classifier.config()).create(runs_dir, "queued")
    good = origin_of(folder)
    odd = ({"run": "../elsewhere"}, {"run": 7}, {"step": -1}, {"parameters": "many"}, {"share": float("nan")})
    for origin in (*({**good, **one} for one in odd), {**good, "share": "all"}, "a text", None):
        RunWriter.annotate(folder, meta={"origin": json.loads(json.dumps(origin))})
        parent = queries.run_summary(folder).origin
        assert parent is None or (parent["share"] is None and parent["run"] == good["run"])


def test_a_model_of_ones_own_starts_from_the_adapter_too(classifier: Small) -> None:
    from transformers import AutoModelForSequenceClassification

    model = load_run(classifier.source)
    tokens = model.tokens(read_data(read_run_config(classifier.source)).held_out)
    base = AutoModelForSequenceClassification.from_pretrained(read_run_config(classifier.source).model.name)
    attached = dynlora.attach(base, strategy="lora", budget=2, steps=3, start_from=str(classifier.folder))
    batch = tokens.batch(np.arange(len(tokens)))
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = attached.model.eval()(**batch).logits
    loss = torch.nn.functional.cross_entropy(logits, labels)
    assert float(loss) == pytest.approx(classifier.loss, abs=1e-5)
