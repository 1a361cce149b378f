"""A run's adapter for others: files of PEFT, transformers or ONNX, and a model card with a snippet that loads them."""

from __future__ import annotations

import inspect
import logging
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dynlora import assets
from dynlora.analysis.module_effects import REACTION, reaction_conclusion, reactions
from dynlora.analysis.retention import RETENTION, Retention, retention_conclusion, retentions
from dynlora.config import RunConfig
from dynlora.config_files import read_run_config
from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.text_data import TextData
from dynlora.engine.evaluation.evaluate import summarise
from dynlora.engine.evaluation.export import AdapterFacts
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.errors import ConfigError, NotMergeableError
from dynlora.inference.forms import Form, convert, form_of
from dynlora.inference.model_card import Facts, Padding, model_card
from dynlora.inference.session import average_gates, load_run
from dynlora.jobs import helper_job
from dynlora.safe_files import open_plain
from dynlora.store import queries
from dynlora.store.summary import ORIGIN_NAME, Origin, recorded_adapter
from dynlora.training.folder_work import staged
from dynlora.training.inputs import read_data

ONNX_NAME = "model.onnx"

MOST_GAP = 1e-4
"""Largest difference of an output between onnxruntime and torch."""

LONGEST_BATCH = 65_536
"""Rows that the graph takes at most."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

TRIED = (
    (["one text", "and another one that is longer"], None),
    (["a third text, alone and longer than the two before it were"], None),
    (["a text", "of a pair", "a third"], ["another text", "which is the second of the two", "one more"]),
)
"""Texts and second texts that the graph must answer as the model does: of other size and length than the first."""


class Logits(nn.Module):
    """A model as a function of tensors that gives logits.

    Attributes:
        model: of transformers.
        names: of its inputs, in their order.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        """Wrap a model."""
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits of a batch, (batch, n_labels)."""
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def export_onnx(model: AdaptedModel, folder: Path) -> None:
    """Write a model as an ONNX graph with any batch and length, and its tokenizer and names of classes.

    Args:
        model: merged, or with gates and adapters in place, which become part of the graph.
        folder: that is made.

    Raises:
        ConfigError: when the packages are missing.
        NotMergeableError: when the model writes texts, or the graph does not answer as the model does.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError:
        raise ConfigError(
            "--format onnx: needs onnx, onnxscript and onnxruntime; pip install 'dynlora[onnx]'"
        ) from None
    if model.task.facts()["generates"]:
        raise NotMergeableError("--format onnx: is for models that classify, and this one writes texts; use merged")
    tokenizer: Any = model.base.tokenizer
    taken = inspect.signature(model.base.model.forward).parameters
    names = [name for name in INPUTS if name in tokenizer.model_input_names and name in taken]
    wrapped = Logits(model.base.model, names).eval()
    batches = [_batch(tokenizer, texts, names) for texts in TRIED]  # the first is what the graph is traced with
    for module in model.adapters:
        module.fused = False  # its own function is none that a graph knows
    folder.mkdir(parents=True, exist_ok=True)
    _export(wrapped, batches[0], names, folder / ONNX_NAME)
    _check(wrapped, onnxruntime.InferenceSession(folder / ONNX_NAME), batches)
    model.base.model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batch(
    tokenizer: Any, texts: tuple[Sequence[str], Sequence[str] | None], names: Sequence[str]
) -> dict[str, Tensor]:
    first, second = texts
    tokens = tokenizer(list(first), None if second is None else list(second), padding=True, return_tensors="pt")
    return {name: tokens[name] for name in names}


def _export(model: Logits, batch: dict[str, Tensor], names: list[str], path: Path) -> None:
    rows = torch.export.Dim("batch", min=1, max=LONGEST_BATCH)
    longest = min(int(getattr(model.model.config, "max_position_embeddings", 512)), 4096)
    length = torch.export.Dim("length", min=2, max=longest)
    log = logging.getLogger("torch.onnx")
    level, log.level = log.level, logging.ERROR  # it names operators of packages that are not there
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, on names of dimensions
        torch.onnx.export(
            model,
            tuple(batch.values()),
            path,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple({0: rows, 1: length} for _ in names),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    log.level = level


def _check(model: Logits, session: Any, batches: Sequence[dict[str, Tensor]]) -> None:
    """Refuse a graph that answers otherwise than the model.

    Raises:
        NotMergeableError: naming the difference.
    """
    for batch in batches:
        with torch.no_grad():
            expected = model(*batch.values()).numpy()
        (answer,) = session.run(None, {name: tensor.numpy() for name, tensor in batch.items()})
        gap = float(np.abs(answer - expected).max())
        if not gap <= MOST_GAP:
            raise NotMergeableError(
                f"--format onnx: the graph answers otherwise than the model, by up to {gap:.2g}; use --format merged"
            )


MEASURED_ROWS = 256
"""Held-out rows on which an export says what averaging the gates changed; `measure="all"` takes all."""

MEASURED_WORK = 7.5e10
"""Weights times tokens of that sample, at most: a few seconds for both passes on two quiet cores."""

LEAST_ROWS = 16
"""Rows of the sample at least, however large the model."""

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
    strength: float = 1.0,
    retention: Retention | None = None,
) -> dict[str, Any]:
    """Write a run's adapter for others to load; report what averaging the gates changed.

    Nothing is left at `out` unless all of it could be written.

    Args:
        folder: of the run.
        out: a new or empty folder, or a new file that ends in .zip.
        format: name of a form, see `inference.forms`.
        which: last or best.
        verdict: on the run among those beside it, for the model card.
        measure: on which held-out rows the change is measured: a sample, or all.
        strength: the update is multiplied by it; 1 is as trained.
        retention: of the adapter at that strength, for the model card; None takes what the run recorded.

    Returns:
        folder, format, form, which, strength, baked (whether gates were averaged), rows and of (how many held-out rows
        were measured, none where the training's metrics are the export's), max_abs_logit_gap over them, and the metrics
        before and after.

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
        config, model, summary = read_run_config(folder), load_run(folder, which), queries.run_summary(folder)
        is_recorded = which == "last" and summary.status == "finished" and strength == 1
        recorded = summary.metrics if is_recorded else None
        if strength != 1:
            model.adapters.scale(strength)
        report = {"folder": str(out), "format": form.format, "form": form.name, "which": which, "strength": strength}
        report |= _averaged(config, model, form, measure, recorded or {})
        write_adapter(staging, config, model, form, summary.name)
        if form.starts_runs:
            whole = model.adapters.adapter_parameter_count()["active"]
            origin = Origin(
                run=folder.name, name=summary.name, which=which, step=model.step, parameters=whole, of=whole
            )
            origin.write(staging / ORIGIN_NAME)
        describe(staging, folder, config, model, report, verdict, retention)
    return report


def _export_recorded(folder: Path, adapter: Path, out: Path, form: Form, which: str) -> dict[str, Any]:
    """Write the adapter that a recorded run left, as PEFT wrote it or converted; no model is loaded.

    Raises:
        ConfigError: for a format that needs the base model.
    """
    if not form.is_adapter:
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
    metrics = queries.run_summary(folder).metrics
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
    facts = AdapterFacts(base, adapter.lora_alpha, adapter.rank, config.model.layers, title, config)
    form.write(model, staging, facts)


def _averaged(
    config: RunConfig, model: AdaptedModel, form: Form, measure: str, recorded: Mapping[str, float | None]
) -> dict[str, Any]:
    """Replace the gates by their means over training rows, and return what that changed on held-out rows.

    Where nothing is averaged nothing changes, and a sample would say less than the training measured.

    Args:
        config: of the run.
        model: as it was trained.
        form: one that keeps the gates leaves them.
        measure: on which held-out rows.
        recorded: the model's metrics from its training; empty where that measured another adapter.
    """
    data = read_data(config)
    is_averaged = model.adapters.gates is not None and not form.keeps_gates
    facts: dict[str, Any] = {"baked": is_averaged, "rows": 0, "of": len(data.held_out), "max_abs_logit_gap": 0.0}
    if recorded and measure == SAMPLE and not is_averaged:
        return {**facts, "metrics_before": recorded, "metrics_after": recorded}
    tokens = _sample(model, data, config.seed) if measure == SAMPLE else model.tokens(data.held_out)
    with _bar(len(tokens) * (1 + is_averaged)) as tell:
        before = after = _measured(model, tokens, tell)
        if is_averaged:
            average_gates(model, data, config.seed)
            after = _measured(model, tokens, lambda rows: tell(len(tokens) + rows))
    facts |= {"rows": len(tokens), "max_abs_logit_gap": float((after[0] - before[0]).abs().max())}
    return {**facts, "metrics_before": before[1], "metrics_after": after[1]}


def _sample(model: AdaptedModel, data: TextData, seed: int) -> Tokens:
    """Return the held-out rows that are measured: `MEASURED_ROWS`, fewer where model and texts are large."""
    tokens = model.tokens(data.held_out_sample(MEASURED_ROWS, seed))
    network: Any = model.base.model
    size = sum(tensor.numel() for tensor in network.parameters()) - network.get_input_embeddings().weight.numel()
    rows = max(LEAST_ROWS, int(MEASURED_WORK / (size * tokens.length.mean())))
    return tokens if rows >= len(tokens) else model.tokens(data.held_out_sample(rows, seed))


@contextmanager
def _bar(of: int) -> Iterator[Callable[[int], None]]:
    """Lend what is told how many rows are done: a bar on a terminal, the record of a helper process."""
    with tqdm(total=of, desc="held-out examples", unit="row", disable=None, leave=False) as bar:

        def tell(done: int) -> None:
            bar.update(done - bar.n)
            helper_job.tell(done, of, "held-out examples measured")

        yield tell


def _measured(model: AdaptedModel, tokens: Tokens, on_batch: Callable[[int], None]) -> tuple[Tensor, dict[str, float]]:
    """Return what the model says of rows, (n, k), and the metrics."""
    predictions, readings = model.predictions_and_readings(tokens, on_batch=on_batch)
    return readings, summarise(predictions, tokens.label, model.task)


def describe(
    staging: Path,
    folder: Path,
    config: RunConfig,
    model: AdaptedModel,
    report: dict[str, Any],
    verdict: str | None = None,
    retention: Retention | None = None,
) -> None:
    """Write the model card and its pictures; numbers of the adapter are those of what is exported."""
    name, base = config.model.name, assets.shared_model_name(config.model.name)
    curve = queries.scalars_frame(folder, "loss", "validation")[["step", "value"]].to_numpy(float).tolist()
    facts = Facts(
        summary=queries.run_summary(folder).model_copy(
            update={
                "step": model.step,
                "ranks": {module.info.name: module.rank for module in model.adapters},
                "params": model.adapters.adapter_parameter_count(),
            }
        ),
        base=base,
        is_on_hub=not Path(base).is_absolute(),
        is_rounded=bool(name in assets.MODELS and assets.MODELS[name].converted),
        model_class=model.task.loader(model.base.model),
        report=report,
        curve=[(int(step), value) for step, value in curve if math.isfinite(value)],
        generates=bool(model.task.facts()["generates"]),
        padding=_padding(model),
        modules=[(module.info.layer, module.info.kind, module.rank) for module in model.adapters],
        verdict=verdict,
        layers=config.model.layers,
        reaction=_reaction(folder, model.task.loss_unit),
        retention=_retention(folder, model.step, report) if retention is None else retention_conclusion(retention),
    )
    for name, text in model_card(facts).items():
        (staging / name).write_text(text, "utf-8")


def _reaction(folder: Path, unit: str) -> str | None:
    """Return what reacting to the input gained in a run, a sentence; None where it was not recorded."""
    read = reactions(queries.events_frame(folder, (REACTION,)))
    return reaction_conclusion(read[0], unit) if read else None


def _retention(folder: Path, step: int, report: Mapping[str, Any]) -> str | None:
    """Return what the adapter of a step forgot, a sentence; None where that was not recorded of what is exported."""
    if report.get("strength", 1) != 1 or "compressed" in report:
        return None
    read = {one.step: one for one in retentions(queries.events_frame(folder, (RETENTION,)))}
    return retention_conclusion(read[step]) if step in read else None


def _padding(model: AdaptedModel) -> Padding | None:
    """Return how a decoder's texts are padded, None for any other model: its tokenizer has a class or a mask token."""
    tokenizer: Any = model.base.tokenizer
    is_encoder = tokenizer.cls_token is not None or tokenizer.mask_token is not None
    if model.base.model.config.is_encoder_decoder or (is_encoder and not model.task.facts()["generates"]):
        return None
    return Padding(
        str(tokenizer.pad_token), int(tokenizer.pad_token_id), tokenizer.pad_token_id == tokenizer.eos_token_id
    )
