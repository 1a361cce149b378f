"""The training steps that `benchmarks.step_time` compares: ours as a run takes them, PEFT's, and the two bounds.

Every variant is fed the same batches of one model at one length and precision, and takes one optimizer step a call.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dynlora import assets
from dynlora.config import RunConfig, parse_config
from dynlora.engine.data.batches import BatchOrder, Tokens, tokenize
from dynlora.engine.loop.hardware import autocast_context
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.base_model import BaseModel, load_base
from dynlora.engine.model.modules import find_modules
from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter
from dynlora.tasks.classification import Classification
from dynlora.training.build import build_trainer
from dynlora.training.checkpoints import RunCheckpoints
from dynlora.training.inputs import Inputs, load_inputs, weights_of
from dynlora.training.progress_stream import Readings

TASK = Classification(("bad", "good"))
WORDS = ("the", "film", "story", "was", "great", "dull", "and", "music", "very", "end", "plot", "cast", "is", "good")
TRAIN_ROWS, HELD_OUT_ROWS = 256, 32


@dataclass(frozen=True)
class Setting:
    """What one table is measured at.

    Attributes:
        model: folder of the base model.
        folder: scratch: data and the runs' folders lie in it.
        precision: fp32 or bf16.
        length: tokens a row, no padding.
        dropout: whether model and adapters drop at their defaults; False sets all to 0.
        batch_size: rows a step.
        rank: of the adapters.
        steps: steps a variant takes at most; the allocator's schedule spans them.
        quantization: of the frozen weights, nf4 or int8; None keeps them whole.
    """

    model: str
    folder: Path
    precision: str
    length: int
    dropout: bool
    batch_size: int
    rank: int
    steps: int
    quantization: str | None = None

    def config(self, strategy: str) -> RunConfig:
        """Return the run's config with everything else at its default."""
        values: dict[str, Any] = {
            "model": {"name": self.model, "quantization": self.quantization},
            "data": {"path": str(self.folder / "data"), "max_length": self.length},
            "adapter": {"rank": self.rank},
            "strategy": {"name": strategy},
            "train": {"steps": self.steps, "batch_size": self.batch_size, "precision": self.precision},
            "log": {"eval_every": self.steps, "checkpoint_every": self.steps},
        }
        if not self.dropout:
            values["model"]["dropout"] = values["adapter"]["dropout"] = 0.0
        return parse_config(values)


def write_data(folder: Path, words: int = 200) -> None:
    """Write rows of so many words, more than any length that is measured: every row is cut to it exactly."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, rows in (("train", TRAIN_ROWS), ("validation", HELD_OUT_ROWS)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for row in range(rows):
                writer.writerow([" ".join(rng.choice(WORDS, words)), ("bad", "good")[row % 2]])


class OurStep:
    """A step of a real trainer on a real run store: forward to optimizer, scoring, gates, edits and recording."""

    def __init__(self, setting: Setting, strategy: str, accelerator: Accelerator) -> None:
        """Build the trainer as a run does; the evaluation of step 0 is left out."""
        self.setting = setting
        inputs = load_inputs(setting.config(strategy))
        config = inputs.config
        meta = {"id": strategy, "name": strategy, "strategy": strategy, "model": setting.model, "data": "generated"}
        folder = RunWriter.create(
            setting.folder / "runs", config_yaml=config.to_yaml(), meta=meta, max_steps=setting.steps, state="running"
        )
        self.writer = RunWriter.open(folder, resume_from=None)
        self.trainer: Trainer = build_trainer(inputs, self.writer, accelerator)
        infos = [module.info for module in self.trainer.adapters]
        rows = [ModuleRow(i.name, i.layer, i.kind, i.d_in, i.d_out, setting.rank) for i in infos]
        self.writer.define_modules(rows)
        readings = Readings(self.writer)

        def take(_trainer: Trainer) -> None:
            readings.take()

        self.trainer.on_step = take
        self.keeper = RunCheckpoints(folder, self.writer, inputs)
        self.order, self.signals = self.trainer.begin()
        self.trainer.model.train()

    def __call__(self, number: int) -> float:
        """Take a step and return its loss."""
        self.trainer.take_step(self.order, self.signals)
        return self.trainer.loss

    def close(self) -> None:
        """End the run."""
        self.writer.finish("stopped")
        self.writer.close()


class PlainStep:
    """A step of a plain loop over a transformers model, PEFT's adapters in it or not."""

    def __init__(self, setting: Setting, model: nn.Module, tokens: Tokens, device: torch.device) -> None:
        """Train what requires a gradient with torch's AdamW at its defaults."""
        self.model = model.to(device).train()
        self.tokens, self.device = tokens, device
        self.order = BatchOrder(tokens.length, setting.batch_size, 0)
        self.autocast = autocast_context(setting.precision, device)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.01)

    def __call__(self, number: int) -> float:
        """Take a step on batch `number` and return its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        batch = self.tokens.batch(self.order[number], self.device)
        loss = self.loss(batch)
        loss.backward()
        self.optimizer.step()
        self.after(number + 1)
        return float(loss.detach())

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss."""
        labels = batch.pop("labels")
        with self.autocast():
            logits = self.model(**batch).logits
        return TASK.example_loss(logits, labels).mean()

    def after(self, step: int) -> None:
        """Do what a method does after the optimizer."""

    def close(self) -> None:
        """Hold nothing."""


class PeftAdaLoraStep(PlainStep):
    """PEFT's AdaLoRA as its documentation has it: the model's own loss, and `update_and_allocate` after every step."""

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss with PEFT's orthogonality penalty, which hangs on the model's own loss."""
        with self.autocast():
            return self.model(**batch).loss

    def after(self, step: int) -> None:
        """Let PEFT score and prune."""
        self.model.base_model.update_and_allocate(step)  # pyright: ignore


def _base(setting: Setting) -> BaseModel:
    """Return the frozen base model with its head, dropout as the setting has it."""
    return load_base(
        Path(setting.model),
        task=TASK,
        seed=0,
        dropout=None if setting.dropout else 0.0,
        weights=weights_of(setting.config("lora")),
    )


def _tokens(setting: Setting, base: BaseModel, inputs: Inputs) -> Tokens:
    """Return the rows a run of ours reads."""
    return tokenize(base.tokenizer, inputs.data.train, setting.length, inputs.data.task)


def _floor(setting: Setting, base: BaseModel) -> nn.Module:
    """Return the frozen model whose gradient reaches the hidden states that enter the first block; its head trains."""
    first = find_modules(base.model, None, base.head)[0]
    block = base.model.get_submodule(first.name.rpartition(f".{first.layer}.")[0] + f".{first.layer}")
    block.register_forward_pre_hook(_require_gradient, with_kwargs=True)
    return base.model


def _require_gradient(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Let the gradient flow as far as the hidden states."""
    hidden = args[0] if args else kwargs["hidden_states"]
    hidden.requires_grad_(True)


def _full(setting: Setting, base: BaseModel) -> nn.Module:
    """Return the model with every weight trained."""
    return base.model.requires_grad_(True)


def _peft(setting: Setting, base: BaseModel, **kind: Any) -> nn.Module:
    """Return the model with PEFT's adapters on the modules that ours adapt."""
    from peft import AdaLoraConfig, LoraConfig, get_peft_model

    infos = find_modules(base.model, None, base.head)
    common: dict[str, Any] = {
        "task_type": "SEQ_CLS",
        "target_modules": [info.name for info in infos],
        "modules_to_save": list(base.head),
        "lora_alpha": 2 * setting.rank,
        "lora_dropout": 0.05 if setting.dropout else 0.0,
        "fan_in_fan_out": any(type(base.model.get_submodule(info.name)).__name__ == "Conv1D" for info in infos),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = AdaLoraConfig(**common, **kind) if kind else LoraConfig(**common, r=setting.rank)
        return get_peft_model(base.model, config)  # pyright: ignore


def _adalora(setting: Setting, base: BaseModel) -> nn.Module:
    """Return PEFT's AdaLoRA from 1.5 × the rank down to it, over the steps that are taken."""
    total = setting.steps
    return _peft(
        setting,
        base,
        init_r=round(1.5 * setting.rank),
        target_r=setting.rank,
        total_step=total,
        tinit=max(1, total // 8),
        tfinal=total // 3,
        deltaT=max(1, total // 50),
    )


PLAIN: dict[str, tuple[type[PlainStep], Callable[[Setting, BaseModel], nn.Module]]] = {
    "floor": (PlainStep, _floor),
    "full": (PlainStep, _full),
    "peft-lora": (PlainStep, _peft),
    "peft-adalora": (PeftAdaLoraStep, _adalora),
}
OURS = ("lora", "dynamic")
VARIANTS = (*PLAIN, *OURS)


def build(name: str, setting: Setting, accelerator: Accelerator) -> OurStep | PlainStep:
    """Return one variant, ready to take its first step."""
    if name in OURS:
        return OurStep(setting, name, accelerator)
    kind, adapt = PLAIN[name]
    inputs = load_inputs(setting.config("lora"))
    base = _base(setting)
    return kind(setting, adapt(setting, base), _tokens(setting, base, inputs), accelerator.device)


def model_folder(name: str) -> str:
    """Return the folder of a model that is embedded or local."""
    return str(assets.resolve_model(name))


def random_model(shape: str, folder: Path) -> str:
    """Write a randomly initialised model of a known shape with a tokenizer of whole words, and return its folder."""
    import tokenizers
    import transformers
    from tokenizers import models, pre_tokenizers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SHAPES[shape], pad_token_id=0, bos_token_id=1, eos_token_id=1)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(("[PAD]", "[UNK]", *WORDS))}
    words = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_input_names=["input_ids", "attention_mask"]
    ).save_pretrained(folder)
    return str(folder)


SHAPES: dict[str, dict[str, Any]] = {
    "smollm2": {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "max_position_embeddings": 2048,
    },
    "llama-1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 128256,
        "max_position_embeddings": 2048,
    },
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 128,
        "vocab_size": 64,
        "max_position_embeddings": 2048,
    },
}
"""Shapes of models whose weights a machine may lack: the time of a step does not hang on them."""
