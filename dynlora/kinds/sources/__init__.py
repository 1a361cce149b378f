"""The work on finished runs that others are made of: loading, averaging, their data, and a LoRA that learns."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from dynlora import assets, strategies, tasks
from dynlora.config import RunConfig, TrainConfig
from dynlora.config_files import read_run_config
from dynlora.engine.adapt import adapt, nothing
from dynlora.engine.data.text_data import Rows, of_groups
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, merge
from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state
from dynlora.engine.loop.checkpoint import load_optimizer_state, optimizer_state, pack, unpack
from dynlora.engine.loop.first_steps import TrainingDiverged
from dynlora.engine.loop.optimizer import build_optimizer, clip, set_lr
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.base_model import BaseModel
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError, DynloraError
from dynlora.inference.export import write_adapter
from dynlora.inference.forms import form_of
from dynlora.inference.session import load_run
from dynlora.kinds.named_runs import NamedRun, SourcedSettings, base_of
from dynlora.store.writer import RunWriter
from dynlora.tasks import Task
from dynlora.training.folder_work import Outcome, staged
from dynlora.training.inputs import read_data
from dynlora.training.progress_stream import StopRequest
from dynlora.training.stepwise import Steps, run_steps


@dataclass(frozen=True)
class Source:
    """A run that another one is made of.

    Attributes:
        role: what it is, for messages: teacher or source.
        run: its id.
        name: for people.
        folder: of the run.
        classes: names of its classes; none for one that writes texts.
        config: its settings.
    """

    role: str
    run: str
    name: str
    folder: Path
    classes: tuple[str, ...]
    config: RunConfig

    def load(self) -> AdaptedModel:
        """Return the trained model, all of it frozen.

        Raises:
            DynloraError: one sentence that names the run, when it cannot be loaded.
        """
        try:
            model = load_run(self.folder)
        except DynloraError as error:
            raise type(error)(f"{self.role} {self.run}: {error}") from None
        model.base.model.requires_grad_(False)
        return model

    def held_out(self) -> tuple[Rows, list[str]]:
        """Return the held-out examples of what the run learned, and the names of its classes.

        Raises:
            DynloraError: when the data cannot be read; one sentence that names the run.
        """
        try:
            data, groups = read_data(self.config), self.config.data.train_groups
        except DynloraError as error:
            raise type(error)(f"the data of {self.role} {self.run} cannot be read ({str(error)[:200]})") from None
        return data.held_out if groups is None else of_groups(data.held_out, groups), data.labels

    def sample(self, n: int, seed: int, key: int) -> Rows:
        """Return at most n held-out examples, drawn once by key, in their order.

        Raises:
            DynloraError: when the data cannot be read; one sentence that names the run.
        """
        rows, _ = self.held_out()
        order = np.random.default_rng(stream_seed(seed, "held-out examples", key)).permutation(len(rows))
        return rows.take(np.sort(order[:n]))

    def described(self) -> dict[str, object]:
        """Return what is kept of the run, as plain values."""
        return {
            "run": self.run,
            "name": self.name,
            "classes": list(self.classes),
            "rank": self.config.adapter.rank,
            "strategy": self.config.strategy.name,
        }


def sources_of(runs: Sequence[NamedRun]) -> list[Source]:
    """Return checked runs as sources.

    Raises:
        ConfigError: when the model of one is quantised: its embeddings are others.
    """
    sources = []
    for run in runs:
        config = read_run_config(run.folder)
        if config.model.quantization is not None:
            raise ConfigError(
                f"{run.role} {run.id}: its base model is quantised, so its embeddings are not those of the others; "
                "give runs without model.quantization"
            )
        sources.append(Source(run.role, run.id, run.name, run.folder, tuple(run.classes), config))
    return sources


def resumed(
    settings: type[SourcedSettings],
    materials: Any,
    make: Callable[[Any, RunWriter], Steps],
    begin: Callable[[Steps, RunWriter], None],
    finish: Callable[[Steps, RunWriter, StopRequest], bool],
    folder: Path,
    **how: bool,
) -> Outcome:
    """Start a run that is made of others, or continue it from its last checkpoint.

    Args:
        settings: class of its settings.
        materials: class of what it is made of, whose `load` takes settings and the folder of the runs.
        make: makes the work of the materials, at its first step.
        begin: tells the store what the work is.
        finish: measures and keeps the results; False when it was asked to stop meanwhile.
        folder: of the run.
        how: `force`, `progress` and `is_new` of `run_steps`.

    Raises:
        ConfigError: when it is finished, running, or may be running elsewhere.
        CorruptRunError: when it cannot be read.
    """
    stored = settings.of_run(folder)

    def load(writer: RunWriter) -> Steps:
        writer.log("info", f"Loading {len(stored.runs(folder.parent))} runs")
        writer.commit()
        return make(materials.load(stored, folder.parent), writer)

    return run_steps(folder, load, finish, begin=begin, **how)


def base_folder(runs: Sequence[NamedRun]) -> Path:
    """Return the local folder of the base model that all runs adapt."""
    return assets.resolve_model(base_of(runs[0]))


def common_task(of_sources: Sequence[Task]) -> Task:
    """Return the task of all sources, with its defaults where their data is of different kinds."""
    first = of_sources[0]
    return first if all(task == first for task in of_sources) else tasks.build(first.name)


def add_lora(base: BaseModel, *, rank: int, lora_alpha: float, seed: int, total: int) -> Adapters:
    """Put a LoRA into all linear modules of a base model's blocks, in place; its update is zero at first.

    Args:
        base: frozen.
        rank: of every module.
        lora_alpha: the update is scaled by lora_alpha / rank.
        seed: of A.
        total: steps that it learns for.
    """
    adapters = adapt(
        base,
        strategies.build("lora", {}),
        rank=rank,
        lora_alpha=lora_alpha,
        dropout=0.0,
        targets=None,
        total=total,
        seed=seed,
        batches=nothing,
    )
    base.model.eval()
    return adapters


def copied_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved state whose tensors nothing changes any more."""
    tensors: dict[str, Any] = {}
    return unpack(pack(state, tensors), tensors)


class AveragedSources:
    """The mean of the merged weights: of one base, it is the base with the mean of their updates."""

    def __init__(self) -> None:
        """Begin with none."""
        self._sums: dict[str, Tensor] = {}
        self._adapted: Counter[str] = Counter()
        self.count = 0

    @torch.no_grad()
    def add(self, model: AdaptedModel) -> None:
        """Add a source; its gates are taken as one, and it is merged in place.

        Raises:
            NotMergeableError: when its update is not one, or does not fit the weights.
        """
        names = [module.info.name for module in model.adapters]
        bake_gates(model, None)
        merge(model)
        prefix = model.base.model.base_model_prefix + "."
        for name in names:
            for kind, tensor in model.base.model.get_submodule(name).named_parameters():
                key = f"{name.removeprefix(prefix)}.{kind}"
                self._sums[key] = self._sums.get(key, torch.zeros_like(tensor)) + tensor
                self._adapted[key] += 1
        self.count += 1

    @contextmanager
    def replacing(self, frozen: Mapping[str, Tensor]) -> Iterator[None]:
        """Let tensors, by their names in a backbone, be the mean ones inside the block."""
        before = {name: tensor.clone() for name, tensor in frozen.items()}
        self._put(frozen)
        try:
            yield
        finally:
            for name, tensor in before.items():
                frozen[name].copy_(tensor)

    @torch.no_grad()
    def put_into(self, model: PreTrainedModel) -> None:
        """Give a base model of the teachers the mean weights, in place."""
        prefix = model.base_model_prefix + "."
        self._put({name.removeprefix(prefix): tensor for name, tensor in model.named_parameters()})

    def _put(self, frozen: Mapping[str, Tensor]) -> None:
        """Replace the base model's weights by the mean ones."""
        for name, total in self._sums.items():
            if name in frozen:
                others = self.count - self._adapted[name]  # teachers that left these weights as they were
                frozen[name].copy_((total + others * frozen[name]) / self.count)


@torch.no_grad()
def share_weights(models: Sequence[nn.Module]) -> int:
    """Let frozen tensors of models that are equal, by name and value, be one tensor in memory; return the bytes saved.

    Adapters and trained heads stay each model's own. A model of some blocks shares those, whatever their numbers are.
    """
    known: dict[str, list[nn.Parameter]] = {}
    saved, seen = 0, set[int]()
    for model in models:
        for name, tensor in model.named_parameters():
            if tensor.requires_grad or id(tensor) in seen or "lora_" in name:
                continue
            seen.add(id(tensor))
            others = known.setdefault(re.sub(r"\.\d+\.", ".*.", name.replace(".base_layer", "")), [])
            twin = next((other for other in others if _equal(other, tensor)), None)
            if twin is None:
                others.append(tensor)
            elif twin.data_ptr() != tensor.data_ptr():
                saved += tensor.numel() * tensor.element_size()
                tensor.data = twin.data
    return saved


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one.reshape(-1)[:1], other.reshape(-1)[:1]) and torch.equal(
        one, other
    )  # most blocks differ at once


@dataclass
class LoraTraining(ABC):
    """A LoRA in training; what it learns from is a subclass's.

    Attributes:
        adapters: that learn.
        steps: of all.
        lr: learning rate.
        unit: what a step is called in messages.
        step: steps done.
        loss: of the last step.
    """

    adapters: Adapters
    steps: int
    lr: float
    unit: str = "step"
    step: int = 0
    loss: float = math.nan
    config: TrainConfig = field(init=False)
    optimizer: Optimizer = field(init=False)

    def __post_init__(self) -> None:
        """Make the optimizer."""
        self.config = TrainConfig.model_validate(
            {"steps": self.steps, "lr": self.lr, "weight_decay": 0.0, "max_grad_norm": 1.0, "precision": "fp32"}
        )
        self.optimizer = build_optimizer(strategies.build("lora", {}), self.adapters, [], self.config)

    @abstractmethod
    def batch_loss(self, index: int) -> Tensor:
        """Return the loss of what step `index` (from 0) learns from, (): a pure function of the seed and the index."""

    @property
    def is_done(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    def advance(self) -> float:
        """Take one optimizer step and return its loss.

        Raises:
            TrainingDiverged: when the loss is not a number.
        """
        self.step += 1
        set_lr(self.optimizer, self.config, self.step, self.steps)
        loss = self.batch_loss(self.step - 1)
        loss.backward()
        clip(self.optimizer, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = float(loss.detach())
        if not math.isfinite(self.loss):
            raise TrainingDiverged(f"lr={self.lr}: the loss of {self.unit} {self.step} is not finite; lower lr")
        return self.loss

    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""
        return {
            "step": self.step,
            "adapters": adapter_state(self.adapters),
            "optimizer": optimizer_state(self.optimizer),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.step = state["step"]
        load_adapter_state(self.adapters, state["adapters"])
        load_optimizer_state(self.optimizer, state["optimizer"])


CARD = """# {title}

{about}

{load}
"""

LOAD = {
    "peft": "from peft import PeftModel\nfrom transformers import {auto}, AutoTokenizer\n\n"
    'model = PeftModel.from_pretrained({auto}.from_pretrained("{base}"{classes}), "{folder}").eval()\n'
    'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
    "merged": "from transformers import {auto}, AutoTokenizer\n\n"
    'model = {auto}.from_pretrained("{folder}").eval()\ntokenizer = AutoTokenizer.from_pretrained("{folder}")',
}
"""Lines that load each format."""

WRITE = """
batch = tokenizer("a text", return_tensors="pt")
print(tokenizer.decode(model.generate(**batch, max_new_tokens=64)[0]))"""
"""Lines that follow them for a model that writes."""

AUTO = {"CAUSAL_LM": "AutoModelForCausalLM", "SEQ_CLS": "AutoModelForSequenceClassification"}
"""Class of transformers by PEFT's type of task; `AutoModel` for features."""


def export_made(
    settings: SourcedSettings, config: RunConfig, model: AdaptedModel, out: Path, format: str, about: str
) -> dict[str, Any]:
    """Write what a run made of others; nothing is left at `out` unless all could be written.

    Args:
        settings: of the run.
        config: that loads the model.
        model: that it made.
        out: a new or empty folder, or a new file that ends in .zip.
        format: name of a form, see `inference.forms`.
        about: what it is, for its card; {base} is the name of the base model.

    Raises:
        ConfigError: when the form is unknown, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    form, parameters = form_of(format), model.adapters.adapter_parameter_count()["active"]
    base = assets.shared_model_name(config.model.name)
    auto = AUTO.get(model.task.peft_task_type, "AutoModel")
    classes = f", num_labels={len(model.labels)}" if model.labels else ""
    names = {"auto": auto, "base": base, "folder": out.stem, "classes": classes}
    more = WRITE if auto == AUTO["CAUSAL_LM"] else ""
    with staged(out) as staging:
        write_adapter(staging, config, model, form, settings.title())
        python = {format: lines.format(**names) + more for format, lines in LOAD.items()}
        load = form.load_block(python, base, out.stem)
        card = CARD.format(title=settings.title(), about=about.format(base=base), load=load)
        (staging / "README.md").write_text(card, "utf-8")
    written = {"folder": str(out), "format": form.format, "form": form.name}
    return {**written, "parameters": parameters, "method": settings.method}


def around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the special tokens that a tokenizer puts before and after a text."""
    ids: list[int] = tokenizer("the")["input_ids"]
    inner: list[int] = tokenizer("the", add_special_tokens=False)["input_ids"]
    for start in range(len(ids) - len(inner) + 1):
        if ids[start : start + len(inner)] == inner:
            return tuple(ids[:start]), tuple(ids[start + len(inner) :])
    return (), ()
