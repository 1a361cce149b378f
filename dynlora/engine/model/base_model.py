"""The base model with its head, frozen but for the head; and the adapters put into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from dynlora.engine.model.modules import head_names
from dynlora.engine.randomness import seed_global_stream
from dynlora.errors import AssetError
from dynlora.tasks import Task

POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")
"""What tables of learned positions are called."""

DROPOUT_KEYS = ("dropout", "dropout_prob", "_dropout", "_pdrop", "_drop")
"""Endings of a config's names that are dropout probabilities."""


@dataclass(frozen=True)
class BaseModel:
    """A pretrained transformer with the head of its task.

    Attributes:
        model: its weights are frozen, the head's are not.
        tokenizer: of the same folder.
        head: dotted names of the modules trained in full.
        folder: where it was loaded from.
        task: what the head is for.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: list[str]
    folder: Path
    task: Task


def load_base(folder: Path, *, task: Task, seed: int, dropout: float | None = None) -> BaseModel:
    """Load model and tokenizer from a local folder; a new head is drawn from the run's own stream.

    Only safetensors are read, and no code of the folder is run.

    Raises:
        AssetError: when the folder does not hold a transformer that can learn the task.
    """
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    seed_global_stream(seed, "head")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _configure(config, task, dropout)
        model, report = task.model_class().from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        ImportError,
        SafetensorError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AssetError(f"model.name={folder}: cannot be loaded for {task.name} ({reason[:200]})") from None
    finally:
        transformers_logging.set_verbosity(verbosity)
    _give_padding(tokenizer, folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    if (positions := _positions(model)) is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    fresh = [*report["missing_keys"], *(key[0] for key in report.get("mismatched_keys", ()))]
    _check_whole(folder, task, fresh)
    if task.is_causal:
        _check_causal(folder, model)
    return freeze(model, tokenizer, fresh, folder, task)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local folder alone; a model with learned positions may cut texts earlier.

    Raises:
        AssetError: when the folder holds none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AssetError(f"model.name={folder}: its tokenizer cannot be loaded ({reason[:200]})") from None
    _give_padding(tokenizer, folder)
    return tokenizer


def _give_padding(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Let a tokenizer without a padding token pad with its end token.

    Raises:
        AssetError: when it has neither.
    """
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise AssetError(
                f"model.name={folder}: its tokenizer has no padding token; set pad_token and save it again"
            )
        tokenizer.pad_token = tokenizer.eos_token


def _check_whole(folder: Path, task: Task, fresh: list[str]) -> None:
    """Refuse a checkpoint without weights that a task does not train: they would be random.

    Raises:
        AssetError: naming the first.
    """
    if fresh and not task.trains_head:
        raise AssetError(
            f"model.name={folder}: holds no {fresh[0]}, which {task.name} needs; use a model that was trained to write "
            "texts, such as smollm2-135m, or give data with a column of labels (data.label)"
        )


@torch.no_grad()
def _check_causal(folder: Path, model: PreTrainedModel) -> None:
    """Refuse a model in which a token sees those after it: it would learn to copy the word it is to predict.

    Raises:
        AssetError: naming the model.
    """
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 5]])
    model.eval()
    first, second = (model(input_ids=ids).logits[:, :3] for ids in (one, other))
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-3):
        raise AssetError(
            f"model.name={folder}: is an encoder ({model.config.model_type}), in which a word sees those after it; use "
            "a decoder, such as smollm2-135m"
        )


def _positions(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model with learned positions can tell apart, None where any number will do."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            first = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa counts from there
            return min(
                module.num_embeddings - first, getattr(model.config, "max_position_embeddings", module.num_embeddings)
            )
    return None


def freeze(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, fresh: list[str], folder: Path, task: Task
) -> BaseModel:
    """Freeze all weights but the head's."""
    model.requires_grad_(False)
    head = head_names(model, fresh) if task.trains_head else []
    for name in head:
        model.get_submodule(name).requires_grad_(True)
    return BaseModel(model, tokenizer, head, folder, task)


def head_parameters(base: BaseModel) -> dict[str, nn.Parameter]:
    """Return the head's tensors by their dotted names."""
    return {
        f"{name}.{key}": tensor
        for name in base.head
        for key, tensor in base.model.get_submodule(name).named_parameters()
    }


def _configure(config, task: Task, dropout: float | None) -> None:
    """Write the task into the model's config, and the dropout where one is asked for.

    Which code computes attention is not the folder's to say: a name such as `owner/kernel` would fetch and run it.
    """
    config._attn_implementation = None  # the library's own choice, for the parts of the model too
    config._experts_implementation = None
    task.configure(config)
    if dropout is None:
        return
    for key, value in vars(config).items():
        if isinstance(value, float) and key.endswith(DROPOUT_KEYS):
            setattr(config, key, dropout)
