"""The base model with its head, frozen but for the head; the adapters put into it; and weights in 4 or 8 bits.

QLoRA (arXiv 2305.14314) keeps W0 as 4-bit NormalFloat numbers with a scale for each block of 64, the scales quantised
again (`nf4`); LLM.int8() (arXiv 2208.07339) keeps 8-bit numbers with a scale a row (`int8`). The update of an adapter
is added in the precision of the computation, as ever. bitsandbytes is an extra: only these weights need it.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from dynlora.blocks import Blocks
from dynlora.engine.model.modules import head_names
from dynlora.engine.model.some_blocks import check_blocks, keep_blocks, take_first
from dynlora.engine.randomness import seed_global_stream
from dynlora.errors import AssetError, ConfigError
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
        trials: what trial forwards showed, by targets; a check and the training after it ask the same.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: list[str]
    folder: Path
    task: Task
    trials: dict[Any, Any] = field(default_factory=dict[Any, Any], repr=False, compare=False)


@dataclass(frozen=True)
class Weights:
    """How the frozen weights are kept.

    Attributes:
        dtype: of those that are not quantised; a trained head is kept in fp32.
        quantization: nf4 or int8 for linear modules, or None.
        compute: the dtype that quantised weights are unpacked to.
    """

    dtype: torch.dtype = torch.float32
    quantization: str | None = None
    compute: torch.dtype = torch.float32


WHOLE = Weights()
"""Everything in fp32."""


def load_base(
    folder: Path,
    *,
    task: Task,
    seed: int,
    dropout: float | None = None,
    weights: Weights = WHOLE,
    layers: Blocks | None = None,
) -> BaseModel:
    """Load model and tokenizer from a local folder; a new head is drawn from the run's own stream.

    Only safetensors are read, and no code of the folder is run.

    Args:
        folder: of transformers.
        task: what the head is for.
        seed: of the run.
        dropout: inside the frozen model; None keeps the model's own.
        weights: how the frozen ones are kept.
        layers: which blocks; None takes all.

    Raises:
        AssetError: when the folder does not hold a transformer that can learn the task.
        ConfigError: when the weights are to be quantised and cannot be, or the model has fewer blocks.
    """
    seed_global_stream(seed, "head")
    model, report, tokenizer = _loaded(folder, task, dropout, weights, layers)
    if layers is not None:
        keep_blocks(model, layers)
    hold_still(model)
    _prepare_tokenizer(folder, model, tokenizer)
    fresh = [*report["missing_keys"], *(key[0] for key in report.get("mismatched_keys", ()))]
    _check_whole(folder, task, fresh)
    _check_blocks(folder, model, fresh)
    if task.is_causal:
        _check_causal(folder, model)
    return freeze(model, tokenizer, fresh, folder, task)


def _loaded(
    folder: Path, task: Task, dropout: float | None, weights: Weights, layers: Blocks | None
) -> tuple[Any, dict[str, Any], PreTrainedTokenizerBase]:
    """Return model, what transformers reports of its weights, and tokenizer; see `load_base`."""
    options: dict[str, Any] = {"dtype": weights.dtype}
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if layers is not None:
            check_blocks(config, layers, folder)
            take_first(config, layers)
        _configure(config, task, dropout)
        if weights.quantization is not None:
            whole = kept_whole(task.model_class(), config)
            options["quantization_config"] = quantization_config(weights.quantization, weights.compute, whole)
        model, report = task.model_class().from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ConfigError:
        raise
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
    else:
        return model, report, tokenizer
    finally:
        transformers_logging.set_verbosity(verbosity)


def _prepare_tokenizer(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the tokenizer a padding token where it has none, and the number of positions that the model knows.

    Raises:
        AssetError: where there is no token to pad with.
    """
    _give_padding(tokenizer, folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    if (positions := learned_positions(model)) is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)


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


def _check_blocks(folder: Path, model: PreTrainedModel, fresh: list[str]) -> None:
    """Refuse a checkpoint that lacks weights of the blocks, as an encoder's alone for an encoder with a decoder.

    Raises:
        AssetError: naming the first.
    """
    lacking = [name for name in fresh if re.search(r"\.\d+\.", name) and name.startswith(model.base_model_prefix + ".")]
    if lacking:
        raise AssetError(
            f"model.name={folder}: lacks {len(lacking)} weights of the blocks of {type(model).__name__}, such as "
            f"{lacking[0]}, which would be random; use a checkpoint of the whole model"
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


def learned_positions(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model with learned positions has positions for, None where any number will do."""
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
        model.get_submodule(name).float().requires_grad_(True)
    return BaseModel(model, tokenizer, head, folder, task)


def checkpoint_blocks(base: BaseModel) -> None:
    """Compute each block again in the backward pass instead of keeping what it computed.

    Not reentrant: with a frozen embedding no input of a block requires a gradient, and the reentrant way would leave
    all adapters without one, silently.

    Raises:
        ConfigError: where transformers cannot do that with this model.
    """
    options = {"use_reentrant": False}
    model: Any = base.model
    try:
        if hasattr(model, "activation_checkpointing_enable"):  # the name since transformers 5.24
            model.activation_checkpointing_enable(options)
        else:
            model.gradient_checkpointing_enable(options)
    except ValueError:
        raise ConfigError(
            f"train.gradient_checkpointing=true: {type(base.model).__name__} of transformers has no blocks that it "
            "can compute again; set it to false"
        ) from None


def head_parameters(base: BaseModel) -> dict[str, nn.Parameter]:
    """Return the head's tensors by their dotted names."""
    return {
        f"{name}.{key}": tensor
        for name in base.head
        for key, tensor in base.model.get_submodule(name).named_parameters()
    }


def hidden_head(base: BaseModel) -> list[nn.Parameter]:
    """Return the head's tensors below its output layer: linear layers of another size than it, and normalisations."""
    outputs = base.model.config.num_labels
    layers = [layer for name in base.head for layer in base.model.get_submodule(name).modules()]
    hidden = [
        layer
        for layer in layers
        if (isinstance(layer, nn.Linear) and layer.out_features != outputs) or isinstance(layer, nn.LayerNorm)
    ]
    return [tensor for layer in hidden for tensor in layer.parameters(recurse=False)]


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


PACKAGE = "bitsandbytes"


def quantization_config(kind: str, compute: torch.dtype, whole: Sequence[str]) -> BitsAndBytesConfig:
    """Return how transformers quantises the linear modules of a model while it loads them.

    Args:
        kind: nf4 or int8.
        compute: the dtype that 4-bit weights are unpacked to.
        whole: names of modules that stay as they are.

    Raises:
        ConfigError: where bitsandbytes is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise ConfigError(
            f"model.quantization={kind}: needs the package {PACKAGE}, which is not installed; install it with "
            "pip install 'dynlora[quantization]'"
        )
    _import_package()
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(whole))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=list(whole),  # of both kinds, whatever its name says
    )


def _import_package() -> None:
    """Import bitsandbytes without the code that it would fetch from the hub on some processors, if it could.

    dynlora runs no code of the hub. What bitsandbytes says at every product of `int8`, that inputs are rounded, is in
    the documentation.
    """
    logging.getLogger(PACKAGE).setLevel(logging.ERROR)
    absent: Any = None  # an import of it fails then
    known = {name: sys.modules[name] for name in ("kernels",) if name in sys.modules}
    sys.modules["kernels"] = absent
    try:
        importlib.import_module(PACKAGE)
    finally:
        del sys.modules["kernels"]
        sys.modules.update(known)


def kept_whole(model_class: Any, config: Any) -> list[str]:
    """Return the modules that are not quantised: the head, which may be trained, and poolers, which may be new."""
    with torch.device("meta"):
        model = model_class.from_config(config)
    poolers = {name.rpartition(".")[2] for name, _ in model.named_modules() if name.endswith("pooler")}
    return [*head_names(model), *sorted(poolers)]


def hold_still(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on a processor, which it does at the first evaluation.

    Its repacked form rounds the scales of the blocks to bf16: the frozen model would change in the middle of a run, and
    a run that was stopped and resumed would be another.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]


def is_quantized(model: nn.Module) -> bool:
    """Say whether the frozen weights of a model are quantised."""
    return bool(getattr(model, "is_quantized", False))


def dequantize(model: PreTrainedModel) -> None:
    """Put plain linear modules in fp32 in the place of quantised ones: the numbers that these computed with."""
    if not is_quantized(model):
        return
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it warns that this makes a model larger
    try:
        plain: Any = model
        plain.dequantize(dtype=torch.float32)
    finally:
        transformers_logging.set_verbosity(verbosity)
    model.requires_grad_(False)


def numbers_in(tensor: Tensor) -> int:
    """Return how many weights a parameter holds: two 4-bit numbers are in one byte."""
    return 2 * tensor.numel() if getattr(tensor, "quant_state", None) is not None else tensor.numel()
