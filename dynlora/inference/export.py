"""A run's adapter for others: the files of PEFT or transformers, and a model card with a snippet that loads them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from dynlora import assets
from dynlora.config import RunConfig
from dynlora.config_files import read_run_config
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.evaluate import summarise
from dynlora.engine.evaluation.export import AdapterFacts, export_model
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates
from dynlora.errors import ConfigError
from dynlora.inference.load import GATE_ROWS, load_run
from dynlora.inference.model_card import Facts, Padding, model_card
from dynlora.peft_adapter.forms import Form, form_of
from dynlora.safe_files import open_plain
from dynlora.store import queries
from dynlora.store.origin import ORIGIN_NAME, Origin
from dynlora.store.recorded import recorded_adapter
from dynlora.training.inputs import read_data
from dynlora.training.staged_folder import staged


def export_run(
    folder: Path, out: Path, *, format: str = "peft", which: str = "last", verdict: str | None = None
) -> dict[str, Any]:
    """Write a run's adapter for others to load; report what baking the gates changed.

    Nothing is left at `out` unless all of it could be written.

    Args:
        folder: of the run.
        out: a new or empty folder, or a new file that ends in .zip.
        format: name of a form, see `peft_adapter.forms`.
        which: last or best.
        verdict: on the run among those beside it, for the model card.

    Returns:
        folder, format, which, baked (whether there were gates), max_abs_logit_gap over the held-out rows, and the
        held-out metrics before and after baking.

    Raises:
        ConfigError: when the format is unknown or `out` is taken.
        NotMergeableError: when the format cannot hold the method's update.
        StorageError: when `out` cannot be written.
    """
    form = form_of(format)
    if recorded := recorded_adapter(folder):
        return _export_recorded(folder, recorded, out, format, which)
    with staged(out) as staging:
        config, model = read_run_config(folder), load_run(folder, which)
        report = {"folder": str(out), "format": form.format, "form": form.name, "which": which, **_bake(config, model)}
        write_adapter(staging, config, model, form, queries.run_summary(folder)["name"])
        if form.format == "peft":
            whole = model.adapters.adapter_parameter_count()["active"]
            name = queries.run_summary(folder)["name"]
            origin = Origin(run=folder.name, name=name, which=which, step=model.step, parameters=whole, of=whole)
            origin.write(staging / ORIGIN_NAME)
        describe(staging, folder, config, model, report, verdict)
    return report


def _export_recorded(folder: Path, adapter: Path, out: Path, format: str, which: str) -> dict[str, Any]:
    """Write the adapter that a recorded run left, file by file as PEFT wrote it; nothing of it is loaded.

    Raises:
        ConfigError: for a format that needs the base model.
    """
    if format != "peft":
        raise ConfigError(
            f"--format {format}: {folder.name} was recorded, and only its adapter is here; export it as peft and "
            "merge it with PEFT's merge_and_unload"
        )
    with staged(out) as staging:
        for file in sorted(adapter.iterdir()):
            source, _ = open_plain(file)
            with source, (staging / file.name).open("wb") as copy:
                shutil.copyfileobj(source, copy)
    metrics = queries.run_summary(folder)["metrics"]
    return {
        "folder": str(out), "format": format, "form": format, "which": which, "baked": False, "max_abs_logit_gap": 0.0,
        "metrics_before": metrics, "metrics_after": metrics,
    }  # fmt: skip


def write_adapter(staging: Path, config: RunConfig, model: AdaptedModel, form: Form, title: str = "adapter") -> None:
    """Write a model whose gates are baked into a folder.

    Raises:
        NotMergeableError: when the form cannot hold the method's update.
    """
    base, adapter = assets.shared_model_name(config.model.name), config.adapter
    export_model(model, staging, form, AdapterFacts(base, adapter.lora_alpha, adapter.rank, config.model.layers, title))


def _bake(config: RunConfig, model: AdaptedModel) -> dict[str, Any]:
    """Replace the gates by their means over training rows, and return what that changed on the held-out rows."""
    data = read_data(config)
    held_out = model.tokens(data.held_out)
    before = _measured(model, held_out)
    gated = model.adapters.gates is not None
    bake_gates(model, mean_gates(model, model.tokens(data.train_sample(GATE_ROWS, config.seed))))
    after = _measured(model, held_out) if gated else before  # without gates nothing was baked
    return {
        "baked": gated,
        "max_abs_logit_gap": float((after[0] - before[0]).abs().max()),
        "metrics_before": before[1],
        "metrics_after": after[1],
    }


def _measured(model: AdaptedModel, tokens: Tokens) -> tuple[Tensor, dict[str, float]]:
    """Return what the model says of rows, (n, k), and the metrics."""
    return model.readings(tokens), summarise(model.predictions(tokens), tokens.label, model.task)


def describe(
    staging: Path,
    folder: Path,
    config: RunConfig,
    model: AdaptedModel,
    report: dict[str, Any],
    verdict: str | None = None,
) -> None:
    """Write the model card and its pictures; numbers of the adapter are those of what is exported."""
    name, base = config.model.name, assets.shared_model_name(config.model.name)
    curve = queries.scalars_frame(folder, "loss", "validation")[["step", "value"]].to_numpy(float).tolist()
    facts = Facts(
        summary={
            **queries.run_summary(folder),
            "step": model.step,
            "ranks": {module.info.name: module.rank for module in model.adapters},
            "params": model.adapters.adapter_parameter_count(),
        },
        base=base,
        is_on_hub=not Path(base).is_absolute(),
        is_rounded=bool(name in assets.MODELS and assets.MODELS[name].converted),
        model_class=model.task.model_class().__name__,
        report=report,
        curve=[(int(step), value) for step, value in curve if math.isfinite(value)],
        generates=bool(model.task.facts()["generates"]),
        padding=_padding(model),
        modules=[(module.info.layer, module.info.kind, module.rank) for module in model.adapters],
        verdict=verdict,
        layers=config.model.layers,
    )
    for name, text in model_card(facts).items():
        (staging / name).write_text(text, "utf-8")


def _padding(model: AdaptedModel) -> Padding | None:
    """Return how a decoder's texts are padded, None for any other model: its tokenizer has a class or a mask token."""
    tokenizer: Any = model.base.tokenizer
    is_encoder = tokenizer.cls_token is not None or tokenizer.mask_token is not None
    if model.base.model.config.is_encoder_decoder or (is_encoder and not model.task.facts()["generates"]):
        return None
    return Padding(
        str(tokenizer.pad_token), int(tokenizer.pad_token_id), tokenizer.pad_token_id == tokenizer.eos_token_id
    )
