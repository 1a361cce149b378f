"""Real trainers on tiny random transformers and learnable random tokens: no files, no tokenizer, no hub."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import Accelerator

from dynlora import strategies
from dynlora.config import RunConfig, parse_config
from dynlora.contracts import overridden
from dynlora.engine.adapt import adapt
from dynlora.engine.data.batches import Tokens, calibration_batches
from dynlora.engine.data.held_back import HeldBack, set_apart
from dynlora.engine.evaluation.evaluate import Evaluation
from dynlora.engine.evaluation.retention import GeneralText
from dynlora.engine.loop.adapter_state import (
    adapter_state,
    load_adapter_state,
    load_head_state,
    saved_sizes,
)
from dynlora.engine.loop.checkpoint import load_optimizer_state, optimizer_state, pack, unpack
from dynlora.engine.loop.hardware import autocast_context
from dynlora.engine.loop.optimizer import build_optimizer
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.base_model import BaseModel, freeze, head_parameters, hidden_head
from dynlora.engine.recorder import NullRecorder
from dynlora.tasks import Task
from dynlora.tasks.causal_lm import CausalLM
from dynlora.tasks.classification import Classification

VOCABULARY, WIDTH = 60, 32
TASK = Classification(("no", "yes"))
WRITER = "llama that writes"
"""A decoder with its own head, whose task is to write; the others classify."""

ARCHITECTURES = ("bert", "llama", "gpt2")


def tiny_model(architecture: str = "bert", seed: int = 0, labels: int = 2) -> transformers.PreTrainedModel:
    """Return a tiny random model with two blocks and no dropout of its own: a classifier, or the `WRITER`."""
    if architecture == WRITER:
        return tiny_decoder("llama", seed, words=VOCABULARY)
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    common: dict[str, Any] = {"vocab_size": VOCABULARY, "num_labels": labels, **ends}
    configs = {
        "bert": lambda: transformers.BertConfig(
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **common,
        ),
        "llama": lambda: transformers.LlamaConfig(
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=48,
            **common,
        ),
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=WIDTH, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **common
        ),
    }
    torch.manual_seed(seed)
    return transformers.AutoModelForSequenceClassification.from_config(configs[architecture]())


def tiny_decoder(architecture: str = "llama", seed: int = 0, *, tied: bool = True, words: int = 259) -> Any:
    """Return a tiny random decoder with two blocks."""
    common: dict[str, Any] = {
        "vocab_size": words,
        "bos_token_id": 2,
        "eos_token_id": 0,
        "pad_token_id": 1,
        "initializer_range": 0.1,
        "tie_word_embeddings": tied,
    }
    layers: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 48,
        "max_position_embeddings": 256,
    }
    configs: dict[str, Callable[[], Any]] = {
        "llama": lambda: transformers.LlamaConfig(**layers, **common),
        "qwen2": lambda: transformers.Qwen2Config(**layers, **common),
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=2, n_positions=256, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **common
        ),
        "gemma": lambda: transformers.GemmaConfig(**layers, head_dim=16, **common),
        "gemma2": lambda: transformers.Gemma2Config(**layers, head_dim=16, final_logit_softcapping=5.0, **common),
        "mistral": lambda: transformers.MistralConfig(**layers, **common),
    }
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(configs[architecture]())


@functools.cache
def tiny_tokens(n: int = 96, seed: int = 0) -> Tokens:
    """Return rows whose label says which half of the vocabulary most of their tokens come from."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    length = rng.integers(4, 12, n)
    features = []
    for row in range(n):
        ids = rng.integers(3, 30, length[row]) + np.where(rng.random(length[row]) < 0.85, label[row], 0) * 28
        features.append({"input_ids": ids.tolist(), "attention_mask": [1] * int(length[row])})
    return Tokens(features, label.astype(np.int64), length, {"input_ids": 0, "attention_mask": 0})


@functools.cache
def tiny_texts(n: int = 96, seed: int = 0) -> Tokens:
    """Return rows of which some tokens count: each is the one before and one more, and the last ends the text."""
    rng = np.random.default_rng(seed)
    length = rng.integers(5, 12, n)
    features, targets = [], []
    for row in range(n):
        ids = [*(3 + (rng.integers(0, 50) + np.arange(length[row] - 1)) % 50).tolist(), 2]
        features.append({"input_ids": ids, "attention_mask": [1] * len(ids)})
        hidden = int(rng.integers(1, len(ids) - 1))
        targets.append([-100] * hidden + ids[hidden:])
    counts = np.array([sum(one >= 0 for one in row) for row in targets])
    return Tokens(features, counts, length, {"input_ids": 0, "attention_mask": 0}, targets)


def task_of(architecture: str) -> Task:
    """Return what a tiny model learns."""
    return CausalLM() if architecture == WRITER else TASK


def tokens_of(architecture: str) -> Tokens:
    """Return what a tiny model learns from."""
    return tiny_texts() if architecture == WRITER else tiny_tokens()


def tiny_config(name: str = "lora", /, **overrides: Any) -> RunConfig:
    """Return a config for 20 small steps with one learning rate for all; `train__lr=1` sets train.lr."""
    values: dict[str, Any] = {
        "seed": 0,
        "adapter": {"rank": 2, "dropout": 0.0},
        "strategy": {"name": name},
        "train": {"steps": 20, "batch_size": 8, "lr": 1e-3, "head_lr": None, "precision": "fp32", "warmup": 0.1},
        "log": {"every": 5, "eval_every": 10, "checkpoint_every": 5},
    }
    return parse_config(overridden(values, overrides))


class MemoryKeeper:
    """Keeps checkpoints in memory, through the same packing as on disk."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.states: dict[int, Any] = {}

    def checkpoint(self, trainer: Trainer) -> None:
        """Keep the whole state of this step."""
        tensors: dict[str, torch.Tensor] = {}
        self.states[trainer.step] = (pack(full_state(trainer), tensors), tensors)

    def best(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Keep nothing."""

    def state(self, step: int) -> dict[str, Any]:
        """Return the state kept at a step."""
        packed, tensors = self.states[step]
        return unpack(packed, tensors)


def full_state(trainer: Trainer) -> dict[str, Any]:
    """Return what a resume needs."""
    head = {name: p for name, p in trainer.model.named_parameters() if name.startswith(("classifier", "score"))}
    return {
        "step": trainer.step,
        "adapters": adapter_state(trainer.adapters),
        "head": dict(head),
        "optimizer": optimizer_state(trainer.optimizer),
        "strategy": trainer.strategy.state_dict(),
    }


def make_trainer(
    config: RunConfig,
    architecture: str = "bert",
    *,
    recorder: Any = None,
    state: dict[str, Any] | None = None,
    tokens: Tokens | None = None,
    model: Any = None,
) -> Trainer:
    """Return a trainer on a tiny model, fresh or from a saved state."""
    tokens, task = tokens or tokens_of(architecture), task_of(architecture)
    model = model if model is not None else tiny_model(architecture)
    base: BaseModel = freeze(model, None, [], Path(), task)  # pyright: ignore
    strategy = strategies.build(config.strategy.name, config.strategy.fields)
    total = config.train.max_steps(len(tokens))
    strategy.check(total, config.adapter.rank)
    tokens, reserve = set_apart(tokens, strategy.reserved_share(), config.seed)
    adapters = adapt(
        base,
        strategy,
        rank=config.adapter.rank,
        lora_alpha=config.adapter.lora_alpha,
        dropout=config.adapter.dropout,
        targets=config.adapter.targets,
        total=total,
        seed=config.seed,
        batches=lambda n: [*calibration_batches(tokens, n, config.seed)],
        sizes=None if state is None else saved_sizes(state["adapters"]),
    )
    if state is not None:
        load_adapter_state(adapters, state["adapters"])
    autocast = autocast_context(config.train.precision, torch.device("cpu"))
    strategy.attach_held_back(HeldBack(model, strategy.forward, reserve, config.train.batch_size, autocast, task))
    head = head_parameters(base)
    optimizer = build_optimizer(strategy, adapters, head.values(), config.train, hidden_head(base))
    if state is None:
        if adapters.gates is not None:
            adapters.gates.calibrate(model, [tokens.batch(range(16))])
        strategy.start(adapters)
    else:
        load_head_state(head, state["head"])
        load_optimizer_state(optimizer, state["optimizer"])
        strategy.load_state_dict(state["strategy"])
    group = np.arange(len(tokens)) % 2
    metric = task.usual_metric("tiny")
    general = GeneralText(tokens_of(architecture).take(np.arange(12)), task) if config.log.retention else None
    texts = ["text"] * len(tokens)
    evaluation = Evaluation(tokens, texts, None, group, ["a", "b"], task, np.arange(8), metric, general=general)
    recorder = recorder or NullRecorder()
    evaluation.define(recorder, len(adapters), np.zeros((8, 2)), adapters.gates is not None)
    trainer = Trainer(
        config=config,
        model=model,
        adapters=adapters,
        strategy=strategy,
        optimizer=optimizer,
        tokens=tokens,
        evaluation=evaluation,
        accelerator=Accelerator(cpu=True),
        autocast=autocast,
        recorder=recorder,
        total=total,
    )
    if state is not None:
        trainer.step = state["step"]
    return trainer


class ListRecorder(NullRecorder):
    """Keeps what is recorded in lists."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.vectors: dict[str, dict[int, np.ndarray]] = {}
        self.scalars: dict[tuple[str, str], dict[int, float]] = {}
        self.events: list[tuple[int, str, list[int], dict[str, Any]]] = []
        self.axes: dict[str, str] = {}

    def define_signal(self, name: str, axis: str, unit: str, width: int) -> None:
        """Keep what its values stand for."""
        self.axes[name] = axis

    def vector(self, signal: str, step: int, values: np.ndarray) -> None:
        """Keep it."""
        self.vectors.setdefault(signal, {})[step] = np.array(values)

    def scalar(self, name: str, split: str, step: int, value: float) -> None:
        """Keep it."""
        self.scalars.setdefault((name, split), {})[step] = value

    def event(self, step: int, kind: str, modules: Any, payload: Any) -> None:
        """Keep it."""
        self.events.append((step, kind, list(modules), dict(payload)))


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return every trainable tensor and buffer of the model, copied."""
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Say whether two sets of tensors are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
