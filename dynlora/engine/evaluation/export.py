"""What a trained model holds for others: tensors and config of PEFT, the uniform form, a plain transformers folder."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dynlora.blocks import Blocks, spans_of
from dynlora.config import RunConfig
from dynlora.engine.evaluation.inference import AdaptedModel, is_transposed
from dynlora.engine.model.base_model import head_parameters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.errors import NotMergeableError
from dynlora.peft_adapter import CONFIG_NAME, TENSORS_NAME
from dynlora.peft_adapter.adapter_config import PREFIX, whole_number
from dynlora.peft_adapter.uniform import UniformAdapter, Update, peft_tensors, short_targets, uniform


@dataclass(frozen=True)
class AdapterFacts:
    """What of a run is in the files of its adapter.

    Attributes:
        base_name: of the whole base model.
        lora_alpha: of the run.
        rank: of the run.
        blocks: which of the base model's were used; None for all.
        title: of the run, for people.
        config: of the run; None of a loop of one's own.
    """

    base_name: str
    lora_alpha: float
    rank: int
    blocks: Blocks | None = None
    title: str = "adapter"
    config: RunConfig | None = None


def write_peft(model: AdaptedModel, folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write the files of an adapter as `peft.PeftModel.from_pretrained` loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / TENSORS_NAME, {"format": "pt"})
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2), "utf-8")
    if model.base.tokenizer is None:  # of a loop of one's own
        return
    if model.task.trains_head:  # names of the classes, which PEFT does not keep
        model.base.model.config.to_json_file(folder / "config.json")  # else transformers takes it for a whole model
    save_texts(model, folder)


def uniform_adapter(model: AdaptedModel) -> UniformAdapter:
    """Return the adapter with one rank for all modules, zeros in those without; see `peft_adapter.uniform`.

    Raises:
        NotMergeableError: while input gates are on, where a method's update is not s · B A, or the adapter is empty.
    """
    _check_gates(model)
    if any("LORA" not in module.peft_forms() for module in model.adapters):
        raise NotMergeableError("--ranks uniform: the update of this method is not s · B A; use --format merged")
    _check_live([module for module in model.adapters if len(module.low_rank()[0])])
    updates, shapes = {}, {}
    for module in model.adapters:
        lora_A, lora_B = (factor.detach().float().cpu().numpy() for factor in module.low_rank())
        shapes[module.info.name] = (module.info.d_in, module.info.d_out)
        if len(lora_A):
            updates[module.info.name] = Update(lora_A, lora_B, module.scaling)
    return uniform(updates, shapes)


def uniform_peft(
    model: AdaptedModel, adapter: UniformAdapter, facts: AdapterFacts
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and config of a uniform adapter as PEFT loads it.

    Raises:
        NotMergeableError: when PEFT does not find the blocks that were chosen by number.
    """
    names = [name for name, _ in model.base.model.named_modules()]
    targets = [module.info.name for module in model.adapters]
    inside = tuple(f"{name}." for name in targets)
    others = [name for name in names if name not in targets and not name.startswith(inside)]
    config = {**_shared_config(model, "LORA", facts), **adapter.config()}
    config["target_modules"] = short_targets(targets, others)
    config["fan_in_fan_out"] = any(is_transposed(module) for module in model.adapters)
    tensors = {name: torch.from_numpy(factor) for name, factor in peft_tensors(adapter, PREFIX).items()}
    return tensors | _head(model), config


def peft_adapter(model: AdaptedModel, facts: AdapterFacts) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the config of an adapter as PEFT loads it, each module with its own rank.

    LoRA's format where it holds every module: `target_modules` lists those with an update by full name;
    `rank_pattern` and `alpha_pattern` hold every one of them, as patterns of the whole name, so that alpha / r is the
    fixed scaling whatever the rank became. Else another format of PEFT's that does.

    Raises:
        NotMergeableError: while input gates are on, when no format holds the method's update, or when PEFT does not
            find the blocks that were chosen by number.
    """
    _check_gates(model)
    forms = [module.peft_forms() for module in model.adapters]
    kind = next((name for name in SETTINGS if all(name in form for form in forms)), None)
    if kind is None:
        raise NotMergeableError("--format peft: PEFT has no format for this update; use --format merged")
    live = {module: form[kind] for module, form in zip(model.adapters, forms, strict=True) if form[kind]}
    _check_live(list(live))
    named = {f"{PREFIX}{m.info.name}.{name}": tensor for m, form in live.items() for name, tensor in form.items()}
    config = _shared_config(model, kind, facts) | SETTINGS[kind](list(live), facts.lora_alpha, facts.rank)
    config["target_modules"] = [module.info.name for module in live]
    # cloned: modules may share a tensor, and a file of safetensors may not
    copied = torch.contiguous_format
    tensors = {name: tensor.detach().cpu().clone(memory_format=copied) for name, tensor in named.items()}
    return tensors | _head(model), config


def _check_gates(model: AdaptedModel) -> None:
    if model.adapters.gates is not None:
        raise NotMergeableError("the gates depend on the input; replace them by their means before the export")


def _check_live(live: Sequence[LoraLinear]) -> None:
    if not live:
        raise NotMergeableError(
            "--format peft: the adapter is empty, no module has a rank above 0, and PEFT loads no adapter without one; "
            "keep more of it"
        )


def _shared_config(model: AdaptedModel, kind: str, facts: AdapterFacts) -> dict[str, Any]:
    """Return what PEFT's config holds of every adapter."""
    config: dict[str, Any] = {
        "peft_type": kind,
        "task_type": None if model.task.trains_head and not model.base.head else model.task.peft_task_type,
        "base_model_name_or_path": facts.base_name,
        "target_modules": [],
        "modules_to_save": list(model.base.head),
        "bias": "none",
        "inference_mode": True,
    }
    if isinstance(facts.blocks, str):
        config["layer_replication"] = _replication(model, kind, facts.blocks)
    return config


def _head(model: AdaptedModel) -> dict[str, Tensor]:
    """Return the head as PEFT names it."""
    copied = torch.contiguous_format
    head = head_parameters(model.base).items()
    return {PREFIX + name: tensor.detach().cpu().clone(memory_format=copied) for name, tensor in head}


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
    if kind != "LORA" or not any(isinstance(module, nn.ModuleList) for module in places):
        name = type(model.base.model).__name__
        raise NotMergeableError(f"--format peft: PEFT cannot choose the blocks {blocks} of {name}; use --format merged")
    return [list(span) for span in spans_of(blocks)]


def export_merged(model: AdaptedModel, folder: Path) -> None:
    """Write model and tokenizer as a plain transformers folder; the adapters must be merged before."""
    model.base.model.save_pretrained(folder, safe_serialization=True)
    save_texts(model, folder)


def save_texts(model: AdaptedModel, folder: Path) -> None:
    """Write the tokenizer with its chat template, and how texts are generated where the model can."""
    if model.base.tokenizer is None:  # of a loop of one's own
        return
    model.base.tokenizer.save_pretrained(folder)
    if model.base.model.can_generate() and model.base.model.generation_config is not None:
        model.base.model.generation_config.save_pretrained(folder)


def _lora_settings(live: Sequence[LoraLinear], lora_alpha: float, rank: int) -> dict[str, Any]:
    """Return what PEFT's LoraConfig holds beyond every config."""
    ranks = {_whole(module): len(module.low_rank()[0]) for module in live}
    return {
        "r": rank,
        "lora_alpha": whole_number(lora_alpha),
        "lora_dropout": 0.0,
        "fan_in_fan_out": any(is_transposed(module) for module in live),
        "rank_pattern": ranks,
        "alpha_pattern": {_whole(module): whole_number(module.scaling * ranks[_whole(module)]) for module in live},
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
