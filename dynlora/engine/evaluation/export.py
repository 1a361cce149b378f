"""Export: a PEFT adapter folder, or a plain transformers folder with everything folded in."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dynlora.blocks import Blocks, spans_of
from dynlora.engine.evaluation.inference import AdaptedModel, is_transposed
from dynlora.engine.model.base_model import head_parameters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.errors import NotMergeableError

PREFIX = "base_model.model."
"""What PEFT puts before every name."""


def export_peft(
    model: AdaptedModel, folder: Path, base_name: str, lora_alpha: float, rank: int, blocks: Blocks | None = None
) -> None:
    """Write an adapter that `peft.PeftModel.from_pretrained` loads; gates must be baked before.

    Args:
        model: with its adapters.
        folder: that is made.
        base_name: of the whole base model.
        lora_alpha: of the run.
        rank: of the run.
        blocks: which of the base model's were used; None for all.

    Raises:
        NotMergeableError: as `peft_adapter` does, or when PEFT does not find the blocks that were chosen by number;
            nothing is written then.
    """
    tensors, config = peft_adapter(model, base_name, lora_alpha=lora_alpha, rank=rank)
    if isinstance(blocks, str):
        config["layer_replication"] = _replication(model, config["peft_type"], blocks)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), "utf-8")
    if model.task.trains_head:  # names of the classes, which PEFT does not keep
        model.base.model.config.to_json_file(folder / "config.json")  # else transformers takes it for a whole model
    _save_texts(model, folder)


def peft_adapter(
    model: AdaptedModel, base_name: str, *, lora_alpha: float, rank: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the config of an adapter as PEFT loads it.

    LoRA's format where it holds every module: `target_modules` lists those with an update by full name;
    `rank_pattern` and `alpha_pattern` hold every one of them, as patterns of the whole name, so that alpha / r is the
    fixed scaling whatever the rank became. Else another format of PEFT's that does.

    Raises:
        NotMergeableError: while input gates are on, or when no format holds the method's update.
    """
    if model.adapters.gates is not None:
        raise NotMergeableError("the gates depend on the input; replace them by their means before the export")
    forms = [module.peft_forms() for module in model.adapters]
    kind = next((name for name in SETTINGS if all(name in form for form in forms)), None)
    if kind is None:
        raise NotMergeableError("--format peft: PEFT has no format for this update; use --format merged")
    if not any(form[kind] for form in forms):
        raise NotMergeableError(
            "--format peft: the adapter is empty, no module has a rank above 0, and PEFT loads no adapter without one; "
            "keep more of it"
        )
    live = {module: form[kind] for module, form in zip(model.adapters, forms, strict=True) if form[kind]}
    named = {f"{PREFIX}{m.info.name}.{name}": tensor for m, form in live.items() for name, tensor in form.items()}
    named |= {PREFIX + name: tensor for name, tensor in head_parameters(model.base).items()}
    config = {
        "peft_type": kind,
        "task_type": model.task.peft_task_type,
        "base_model_name_or_path": base_name,
        "target_modules": [module.info.name for module in live],
        "modules_to_save": list(model.base.head),
        "bias": "none",
        "inference_mode": True,
        **SETTINGS[kind](list(live), lora_alpha, rank),
    }
    # cloned: modules may share a tensor, and a file of safetensors may not
    copied = torch.contiguous_format
    return {name: tensor.detach().cpu().clone(memory_format=copied) for name, tensor in named.items()}, config


def _replication(model: AdaptedModel, kind: str, blocks: str) -> list[list[int]]:
    """Return the blocks as PEFT's `layer_replication` holds them: half-open ranges, from which it builds the stack.

    Raises:
        NotMergeableError: when PEFT has no such setting for the format or the architecture.
    """
    inner: Any = model.base.model
    while hasattr(inner, "model"):
        inner = inner.model
    inner = getattr(inner, "bert", inner)
    places = (
        getattr(inner, "layers", None),
        getattr(getattr(inner, "encoder", None), "layer", None),
        getattr(inner, "h", None),
    )
    if kind != "LORA" or not any(isinstance(place, nn.ModuleList) for place in places):
        name = type(model.base.model).__name__
        raise NotMergeableError(f"--format peft: PEFT cannot choose the blocks {blocks} of {name}; use --format merged")
    return [list(span) for span in spans_of(blocks)]


def export_merged(model: AdaptedModel, folder: Path) -> None:
    """Write model and tokenizer as a plain transformers folder; the adapters must be merged before."""
    model.base.model.save_pretrained(folder, safe_serialization=True)
    _save_texts(model, folder)


def _save_texts(model: AdaptedModel, folder: Path) -> None:
    """Write the tokenizer with its chat template, and how texts are generated where the model can."""
    model.base.tokenizer.save_pretrained(folder)
    if model.base.model.can_generate() and model.base.model.generation_config is not None:
        model.base.model.generation_config.save_pretrained(folder)


def _lora_settings(live: Sequence[LoraLinear], lora_alpha: float, rank: int) -> dict[str, Any]:
    """Return what PEFT's LoraConfig holds beyond every config."""
    ranks = {_whole(module): len(module.low_rank()[0]) for module in live}
    return {
        "r": rank,
        "lora_alpha": lora_alpha,
        "lora_dropout": 0.0,
        "fan_in_fan_out": any(is_transposed(module) for module in live),
        "rank_pattern": ranks,
        "alpha_pattern": {_whole(module): module.scaling * ranks[_whole(module)] for module in live},
    }


def _whole(module: LoraLinear) -> str:
    """Return the pattern that fits a module's name and no other: PEFT's keys are regular expressions."""
    return "^" + re.escape(module.info.name).replace(r"\-", "-")  # outside of brackets it means itself


def _glora_settings(live: Sequence[LoraLinear], lora_alpha: float, rank: int) -> dict[str, Any]:
    """Return what PEFT's GloraConfig holds beyond every config: forms that contain all others."""
    widest = max((module.max_rank for module in live), default=rank)
    return {"r": widest, "config_A_B": "lora", "config_C": "vector", "config_D_E": "vector"}


SETTINGS = {"LORA": _lora_settings, "GLORA": _glora_settings}
"""The formats of PEFT that adapters are written in, the most common first."""
