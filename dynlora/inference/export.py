"""A run's adapter for others: the files of PEFT or transformers, and a model card with a snippet that loads them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from dynlora import assets
from dynlora.analysis.gate_effect import REACTION, reaction_conclusion, reactions
from dynlora.config import RunConfig
from dynlora.config_files import read_run_config
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.evaluate import summarise
from dynlora.engine.evaluation.export import AdapterFacts, export_model
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates, merge
from dynlora.errors import ConfigError
from dynlora.inference.convert import convert
from dynlora.inference.gated_adapter import write_gated
from dynlora.inference.load import GATE_ROWS, load_run
from dynlora.inference.model_card import Facts, Padding, model_card
from dynlora.inference.onnx_export import export_onnx
from dynlora.peft_adapter.forms import Form, form_of
from dynlora.safe_files import open_plain
from dynlora.store import queries
from dynlora.store.origin import ORIGIN_NAME, Origin
from dynlora.store.summary import recorded_adapter
from dynlora.training.inputs import read_data
from dynlora.training.staged_folder import staged

MEASURED_ROWS = 256
"""Held-out rows on which an export says what averaging the gates changed; `measure="all"` takes all."""

SAMPLE = "sample"
MEASURES = (SAMPLE, "all")


def export_run(
    folder: Path,
    out: Path,
    *,
    format: str = "peft",
    which: str = "last",
    verdict: str | None = None,
    measure: str = SAMPLE,
) -> dict[str, Any]:
    """Write a run's adapter for others to load; report what averaging the gates changed.

    Nothing is left at `out` unless all of it could be written.

    Args:
        folder: of the run.
        out: a new or empty folder, or a new file that ends in .zip.
        format: name of a form, see `peft_adapter.forms`.
        which: last or best.
        verdict: on the run among those beside it, for the model card.
        measure: on which held-out rows the change is measured: a sample of `MEASURED_ROWS`, or all.

    Returns:
        folder, format, form, which, baked (whether gates were averaged), rows and of (how many held-out rows were
        measured), max_abs_logit_gap over them, and the metrics on them before and after.

    Raises:
        ConfigError: when the format is unknown or `out` is taken.
        NotMergeableError: when the format cannot hold the method's update.
        StorageError: when `out` cannot be written.
    """
    form = form_of(format)
    if measure not in MEASURES:
        raise ConfigError(f"--measure {measure}: must be one of {', '.join(MEASURES)}")
    if recorded := recorded_adapter(folder):
        return _export_recorded(folder, recorded, out, form, which)
    with staged(out) as staging:
        config, model = read_run_config(folder), load_run(folder, which)
        report = {"folder": str(out), "format": form.format, "form": form.name, "which": which}
        report |= _averaged(config, model, form, MEASURED_ROWS if measure == SAMPLE else None)
        write_adapter(staging, config, model, form, queries.run_summary(folder)["name"])
        if form.format == "peft":
            whole = model.adapters.adapter_parameter_count()["active"]
            name = queries.run_summary(folder)["name"]
            origin = Origin(run=folder.name, name=name, which=which, step=model.step, parameters=whole, of=whole)
            origin.write(staging / ORIGIN_NAME)
        describe(staging, folder, config, model, report, verdict)
    return report


def _export_recorded(folder: Path, adapter: Path, out: Path, form: Form, which: str) -> dict[str, Any]:
    """Write the adapter that a recorded run left, as PEFT wrote it or converted; no model is loaded.

    Raises:
        ConfigError: for a format that needs the base model.
    """
    if form.format not in ("peft", "gguf", "mlx"):
        raise ConfigError(
            f"--format {form.name}: {folder.name} was recorded, and only its adapter is here; export it as peft and "
            "merge it with PEFT's merge_and_unload"
        )
    if form.name == "peft":
        with staged(out) as staging:
            for file in sorted(adapter.iterdir()):
                source, _ = open_plain(file)
                with source, (staging / file.name).open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    else:
        convert(adapter, out, form)
    metrics = queries.run_summary(folder)["metrics"]
    return {
        "folder": str(out),
        "format": form.format,
        "form": form.name,
        "which": which,
        "baked": False,
        "max_abs_logit_gap": 0.0,
        "metrics_before": metrics,
        "metrics_after": metrics,
    }


def write_adapter(staging: Path, config: RunConfig, model: AdaptedModel, form: Form, title: str = "adapter") -> None:
    """Write a model whose gates are baked into a folder.

    Raises:
        NotMergeableError: when the form cannot hold the method's update.
    """
    base, adapter = assets.shared_model_name(config.model.name), config.adapter
    if form.format == "gated":
        write_gated(model, staging, config, base)
    elif form.format == "onnx":
        if not form.keeps_gates:
            merge(model)
        export_onnx(model, staging)
    else:
        facts = AdapterFacts(base, adapter.lora_alpha, adapter.rank, config.model.layers, title)
        export_model(model, staging, form, facts)


def _averaged(config: RunConfig, model: AdaptedModel, form: Form, rows: int | None) -> dict[str, Any]:
    """Replace the gates by their means over training rows, and return what that changed on held-out rows.

    Args:
        config: of the run.
        model: as it was trained.
        form: one that keeps the gates leaves them.
        rows: of the held-out rows that are measured; None for all.
    """
    data = read_data(config)
    sample = data.held_out if rows is None else data.held_out_sample(rows, config.seed)
    tokens = model.tokens(sample)
    before = after = _measured(model, tokens)
    is_averaged = model.adapters.gates is not None and not form.keeps_gates
    if not form.keeps_gates:
        bake_gates(model, mean_gates(model, model.tokens(data.train_sample(GATE_ROWS, config.seed))))
    if is_averaged:
        after = _measured(model, tokens)
    return {
        "baked": is_averaged,
        "rows": len(sample),
        "of": len(data.held_out),
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
        reaction=_reaction(folder, model.task.loss_unit),
    )
    for name, text in model_card(facts).items():
        (staging / name).write_text(text, "utf-8")


def _reaction(folder: Path, unit: str) -> str | None:
    """Return what reacting to the input gained in a run, a sentence; None where it was not recorded."""
    read = reactions(queries.events_frame(folder, (REACTION,)))
    return reaction_conclusion(read[0], unit) if read else None


def _padding(model: AdaptedModel) -> Padding | None:
    """Return how a decoder's texts are padded, None for any other model: its tokenizer has a class or a mask token."""
    tokenizer: Any = model.base.tokenizer
    is_encoder = tokenizer.cls_token is not None or tokenizer.mask_token is not None
    if model.base.model.config.is_encoder_decoder or (is_encoder and not model.task.facts()["generates"]):
        return None
    return Padding(
        str(tokenizer.pad_token), int(tokenizer.pad_token_id), tokenizer.pad_token_id == tokenizer.eos_token_id
    )
