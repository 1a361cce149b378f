"""A run's adapter for others: the files of PEFT or transformers, and a model card with a snippet that loads them."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from dynlora import assets
from dynlora.config import RunConfig
from dynlora.config_files import read_run_config
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.evaluate import summarise
from dynlora.engine.evaluation.export import export_merged, export_peft
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates, merge
from dynlora.errors import ConfigError
from dynlora.inference.load import GATE_ROWS, load_run
from dynlora.inference.model_card import Facts, Padding, model_card
from dynlora.jobs.spawn import storing
from dynlora.store import queries
from dynlora.store.origin import Origin, write_origin
from dynlora.training.inputs import read_data

FORMATS = ("peft", "merged")
ARCHIVE = ".zip"
"""Ending of an `out` that is written as one file."""


def export_run(folder: Path, out: Path, *, format: str = "peft", which: str = "last") -> dict[str, Any]:
    """Write a run's adapter for others to load; report what baking the gates changed.

    Nothing is left at `out` unless all of it could be written.

    Args:
        folder: of the run.
        out: a new or empty folder, or a new file that ends in .zip.
        format: peft or merged.
        which: last or best.

    Returns:
        folder, format, which, baked (whether there were gates), max_abs_logit_gap over the held-out rows, and the
        held-out metrics before and after baking.

    Raises:
        ConfigError: when the format is unknown or `out` is taken.
        NotMergeableError: when the format cannot hold the method's update.
        StorageError: when `out` cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: must be one of {', '.join(FORMATS)}")
    with staged(out) as staging:
        config, model = read_run_config(folder), load_run(folder, which)
        report = {"folder": str(out), "format": format, "which": which, **_bake(config, model)}
        with storing(f"the export to {out}"):
            write_adapter(staging, config, model, format)
            if format == "peft":
                whole = model.adapters.adapter_parameter_count()["active"]
                name = queries.run_summary(folder)["name"]
                write_origin(staging, Origin(folder.name, name, which, model.step, whole, whole))
            describe(staging, folder, config, model, report)
    return report


def write_adapter(staging: Path, config: RunConfig, model: AdaptedModel, format: str) -> None:
    """Write a model whose gates are baked into a folder, as PEFT or transformers loads it.

    Raises:
        NotMergeableError: when the format cannot hold the method's update.
    """
    if format == "peft":
        base = assets.shared_model_name(config.model.name)
        export_peft(model, staging, base, config.adapter.lora_alpha, config.adapter.rank)
    else:
        merge(model)
        export_merged(model, staging)


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


def describe(staging: Path, folder: Path, config: RunConfig, model: AdaptedModel, report: dict[str, Any]) -> None:
    """Write the model card and the curve of the evaluations; numbers of the adapter are those of what is exported."""
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


def check_out(out: Path) -> Path:
    """Return the place that is written to.

    Raises:
        ConfigError: when something is there already, but for an empty folder.
    """
    place = Path(os.path.realpath(out))
    if place.exists() and (place.suffix.lower() == ARCHIVE or not place.is_dir() or any(place.iterdir())):
        kind = "a file" if place.is_file() else "not an empty folder"
        raise ConfigError(f"--out {out}: exists and is {kind}; give another name")
    return place


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Lend an empty folder beside `out`, and put what was written there in its place when all went well."""
    place = check_out(out)
    is_archive = place.suffix.lower() == ARCHIVE
    with storing(f"the export to {out}"):
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield staging
        with storing(f"the export to {out}"):
            (_place_archive if is_archive else _place_folder)(staging, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _place_folder(staging: Path, out: Path) -> None:
    """Put the files in their place, all or none: a new folder by one rename, an empty one that is there file by file.

    The empty folder stays the one it is: it may be a disk of its own, or somebody's working directory.
    """
    if not out.exists():
        out.mkdir()
        staging.chmod(out.stat().st_mode & 0o777)  # a folder for the time being is its owner's alone
        staging.rename(out)
        return
    moved: list[Path] = []
    try:
        for path in sorted(staging.iterdir()):
            moved.append(out / path.name)
            shutil.move(path, moved[-1])
    except OSError:
        for path in moved:
            path.unlink(missing_ok=True)
        raise


def _place_archive(staging: Path, out: Path) -> None:
    """Pack the files, not compressed: weights do not get smaller."""
    partial = staging / "archive"
    with zipfile.ZipFile(partial, "x") as archive:
        for path in sorted(staging.iterdir()):
            if path != partial:
                archive.write(path, f"{out.stem}/{path.name}")
    partial.rename(out)
