"""The merge for others: an adapter that PEFT loads, or a plain transformers folder; headless where heads differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dynlora import assets
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import checked_state, load_adapter_state, saved_sizes
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint
from dynlora.engine.loop.hardware import autocast_context
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.base_model import BaseModel, load_base
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import find_modules
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError
from dynlora.inference.export import write_adapter
from dynlora.inference.load import load_run
from dynlora.kinds.merge.result import OWN, head_of
from dynlora.kinds.merge.settings import MergeSettings, stored_config
from dynlora.peft_adapter.forms import form_of
from dynlora.peft_adapter.serving_text import load_block
from dynlora.tasks.classification import Classification
from dynlora.training.folder_work import staged

CARD = """# {name}

A merge of {sources} adapters of `{base}` by dynlora (`dynlora merge`, method {method}).{head}

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

HEADLESS = (
    "\n\nThe heads of these adapters differ, so the merge has none: it gives features, and a head is put on them."
)

AUTO = {"CAUSAL_LM": "AutoModelForCausalLM", "SEQ_CLS": "AutoModelForSequenceClassification"}
"""Class of transformers by PEFT's type of task; `AutoModel` for features."""


class Features(Classification):
    """A model without a head: PEFT calls what it gives features."""

    name = "features"
    peft_task_type = "FEATURE_EXTRACTION"
    trains_head = False


def load_merge(folder: Path) -> AdaptedModel:
    """Return a merge on its base model; on the model without a head where the heads of its sources differ.

    Raises:
        ConfigError: when the run has not ended.
        CorruptRunError: when it cannot be read.
    """
    return _without_head(folder) if head_of(folder) == OWN else load_run(folder)


@torch.no_grad()
def _without_head(folder: Path) -> AdaptedModel:
    """Return the merge on the base model without a head, whose modules have names without its prefix."""
    if find_checkpoint(folder / "adapter") is None:
        raise ConfigError(f"run {folder.name}: has no adapter, since it has not ended; continue it first")
    config, state = stored_config(folder), checked_state(read_checkpoint(folder / "adapter"))["adapters"]
    task = Classification(("one", "other"))  # any head: it is left out
    whole = load_base(assets.resolve_model(config.model.name), task=task, seed=config.seed, layers=config.model.layers)
    infos = find_modules(whole.model, config.adapter.targets, whole.head)
    prefix = whole.model.base_model_prefix + "."
    base = BaseModel(whole.model.base_model, whole.tokenizer, [], whole.folder, Features())  # pyright: ignore
    base.model.requires_grad_(False)
    sizes, modules = saved_sizes(state), []
    for info in infos:
        rank, _ = sizes[info.name]
        own = replace(info, name=info.name.removeprefix(prefix))
        module = LoraLinear(base.model.get_submodule(own.name), own, rank=rank, max_rank=rank, scaling=1.0)
        replace_module(base.model, own.name, module)
        modules.append(module)
    adapters = Adapters(modules, budget=0, reference_rank=config.adapter.rank, seed=config.seed)
    load_adapter_state(adapters, {**state, "modules": _without(prefix, state["modules"])})
    strategy = Strategy()
    strategy.attach_task(base.task)
    base.model.eval()
    fp32 = autocast_context("fp32", torch.device("cpu"))
    return AdaptedModel(base, adapters, strategy, base.task, config.data.max_length, fp32)


def _without(prefix: str, modules: Mapping[str, Any]) -> dict[str, Any]:
    """Return saved modules under their names in the model without a head."""
    return {name.removeprefix(prefix): saved for name, saved in modules.items()}


def export_merge(folder: Path, out: Path, format: str = "peft") -> dict[str, Any]:
    """Write a merge; nothing is left at `out` unless all could be written.

    Args:
        folder: of the run.
        out: a new or empty folder, or a new file that ends in .zip.
        format: name of a form, see `peft_adapter.forms`.

    Raises:
        ConfigError: when the form is unknown, the run has not ended, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    form = form_of(format)
    settings, config, model = MergeSettings.of_run(folder), stored_config(folder), load_merge(folder)
    parameters = model.adapters.adapter_parameter_count()["active"]
    base = assets.shared_model_name(config.model.name)
    auto = AUTO.get(model.task.peft_task_type, "AutoModel")
    classes = f", num_labels={len(model.labels)}" if model.labels else ""
    with staged(out) as staging:
        write_adapter(staging, config, model, form, settings.title())
        named = {"auto": auto, "base": base, "folder": out.stem, "classes": classes}
        python = {format: lines.format(**named) for format, lines in LOAD.items()}
        card = CARD.format(
            name=settings.title(),
            sources=len(settings.sources),
            base=base,
            method=settings.method,
            head=HEADLESS if auto == "AutoModel" else "",
            load=load_block(form, python, base, out.stem),
        )
        (staging / "README.md").write_text(card, "utf-8")
    written = {"folder": str(out), "format": form.format, "form": form.name}
    return {**written, "parameters": parameters, "method": settings.method}
