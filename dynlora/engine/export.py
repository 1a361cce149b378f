"""Export: a PEFT adapter folder, or a plain transformers folder with everything folded in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from dynlora.engine.inference import AdaptedModel, is_transposed
from dynlora.engine.lora_linear import LoraLinear
from dynlora.engine.models import head_parameters
from dynlora.errors import NotMergeableError

PREFIX = "base_model.model."
"""What PEFT puts before every name."""


def export_peft(model: AdaptedModel, folder: Path, base_name: str, lora_alpha: float, rank: int) -> None:
    """Write an adapter that `peft.PeftModel.from_pretrained` loads; gates must be baked before.

    `target_modules` lists the modules with rank above 0 by full name; `rank_pattern` and `alpha_pattern` hold every
    one of them, so that alpha / r is the fixed scaling whatever the rank became.

    Raises:
        NotMergeableError: while input gates are on, or when the method's update is no LoRA.
    """
    if model.adapters.gates is not None:
        raise NotMergeableError("the gates depend on the input: bake them into their means before exporting")
    live = [module for module in model.adapters if module.active_rank() > 0]
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for module in live:
        A, B = (tensor.detach().cpu().contiguous() for tensor in module.low_rank())
        ranks[module.info.name] = len(A)
        tensors[f"{PREFIX}{module.info.name}.lora_A.weight"] = A
        tensors[f"{PREFIX}{module.info.name}.lora_B.weight"] = B
    for name, tensor in head_parameters(model.base).items():
        tensors[PREFIX + name] = tensor.detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = _peft_config(model, live, ranks, base_name, lora_alpha, rank)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), "utf-8")
    model.base.tokenizer.save_pretrained(folder)


def export_merged(model: AdaptedModel, folder: Path) -> None:
    """Write model and tokenizer as a plain transformers folder; the adapters must be merged before."""
    model.base.model.save_pretrained(folder, safe_serialization=True)
    model.base.tokenizer.save_pretrained(folder)


def _peft_config(
    model: AdaptedModel,
    live: list[LoraLinear],
    ranks: Mapping[str, int],
    base_name: str,
    lora_alpha: float,
    rank: int,
) -> dict[str, Any]:
    """Return PEFT's LoraConfig as plain values."""
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(is_transposed(module) for module in live),
        "target_modules": [module.info.name for module in live],
        "rank_pattern": dict(ranks),
        "alpha_pattern": {module.info.name: module.scaling * ranks[module.info.name] for module in live},
        "modules_to_save": list(model.base.head),
        "inference_mode": True,
    }
