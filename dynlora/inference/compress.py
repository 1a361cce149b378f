"""A finished adapter made smaller, or weaker: the curve of its sizes and strengths, the best of them, and its files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.analysis.retention import Retention
from dynlora.analysis.stats import per_token
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import read_run_config
from dynlora.engine.compress.components import METHODS
from dynlora.engine.compress.plain import COMPARED, SHARES, Curve, Measured, Rows, Truncatable, as_plain_lora
from dynlora.engine.data.text_data import TextData
from dynlora.engine.evaluation.evaluate import Predictions, summarise
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.evaluation.retention import GeneralText
from dynlora.errors import ConfigError
from dynlora.inference.export import describe, write_adapter
from dynlora.inference.forms import Form, form_of
from dynlora.inference.session import (
    Examined,
    average_gates,
    check_strength,
    drawn_rows,
    finite,
    load_run,
    on_accelerator,
)
from dynlora.jobs import launch
from dynlora.jobs.export import is_kept, recovery_name, recovery_values, start_folder
from dynlora.jobs.queue import put_in_queue
from dynlora.store import queries
from dynlora.store.measurements import OFFERED, WEIGHTINGS, Compressed, Half, Size
from dynlora.store.summary import ORIGIN_NAME, Origin
from dynlora.tasks import WritingTask
from dynlora.training.folder_work import staged
from dynlora.training.inputs import read_data, usable
from dynlora.training.run import plan

MOST_STRENGTHS = 50


@dataclass(frozen=True)
class AtStrength:
    """A model whose adapter is multiplied by a number.

    Attributes:
        strength: that number; 0 is the base model with the trained head, 1 the adapter as it was trained.
        loss: mean on the held-out rows, of texts over their tokens.
        low, high: its 95 % interval over the rows.
        difference: of the loss to that at strength 1, on the same rows.
        difference_low, difference_high: its 95 % interval.
        metrics: of the task.
        retention: against the base model on general text.
    """

    strength: float
    loss: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    metrics: dict[str, float | None]
    retention: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @property
    def forgotten(self) -> Retention:
        """What was forgotten."""
        read = Retention.of(0, self.retention)
        assert read is not None, "measured here, and not read from anybody's run"
        return read

    @property
    def is_like_trained(self) -> bool:
        """Whether the interval of the difference to strength 1 includes 0."""
        return self.difference_low <= 0 <= self.difference_high


def checked_strengths(strengths: Sequence[float]) -> list[float]:
    """Return strengths in rising order, each once.

    Raises:
        ConfigError: for none, too many, or one out of range.
    """
    chosen = sorted(set(strengths))
    if not 0 < len(chosen) <= MOST_STRENGTHS:
        raise ConfigError(f"--strengths: {len(chosen)} strengths given; give 1 to {MOST_STRENGTHS}, such as 0,0.5,1")
    for one in chosen:
        check_strength(one, "--strengths ")
    return chosen


def strength_curve(examined: Examined, strengths: Sequence[float], rows: int) -> Iterator[AtStrength]:
    """Yield what the model is at each strength, on at most `rows` held-out rows that are the same at each."""
    model, sample = examined.model, examined.sample(rows)
    tokens = model.tokens(sample)
    text = GeneralText.of(model.base.tokenizer, model.task)
    trained = _sums(model, model.predictions(tokens))
    for strength in strengths:
        with model.adapters.scaled(strength):
            predictions = model.predictions(tokens)
            measured = text.measured(model.base.model, model.adapters, model.strategy.forward, model.autocast)
        sums, counts = _sums(model, predictions)
        loss, gap = per_token(sums, counts), per_token(sums - trained[0], counts)
        metrics = summarise(predictions, tokens.label, model.task)
        yield AtStrength(
            strength=strength,
            loss=loss["mean"],
            low=loss["low"],
            high=loss["high"],
            difference=gap["mean"],
            difference_low=gap["low"],
            difference_high=gap["high"],
            metrics={name: finite(value) for name, value in metrics.items()},
            retention=measured,
        )


def _sums(model: AdaptedModel, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss of each row, summed over what counts in it, and how many that are: tokens, or the row itself."""
    if isinstance(model.task, WritingTask):
        return predictions.output[:, 0].astype(float), predictions.output[:, 2].astype(float)
    return predictions.loss.astype(float), np.ones(len(predictions.loss))


def best_of(curve: Sequence[AtStrength]) -> AtStrength:
    """Return the strength with the lowest held-out loss, of equal ones the weakest: it forgets least."""
    return min(curve, key=lambda one: (one.loss, one.strength))


ROWS = 512
"""Held-out rows that the sizes are measured on, unless told otherwise."""

SEEN_ROWS = 256
"""Training rows that the effect of a component is measured on."""

LEAST_ROWS = 20
"""Fewest held-out rows that can be halved and still say something."""


@dataclass
class Compression:
    """One adapter whose sizes are measured.

    Attributes:
        config: of the run it comes from.
        curve: measures sizes.
        weighting: what a component's effect is measured by.
    """

    config: RunConfig
    curve: Curve
    weighting: str

    @classmethod
    def of_run(
        cls, folder: Path, *, which: str = "last", rows: int = ROWS, weighting: str = WEIGHTINGS[0]
    ) -> Compression:
        """Load a run's adapter; its gates are replaced by their means, as in an export.

        Raises:
            ConfigError: when the run kept no such adapter, or has too few held-out rows.
            NotMergeableError: when the method's update cannot be taken apart.
        """
        config, model = read_run_config(folder), load_run(folder, which)
        data = read_data(config)
        average_gates(model, data, config.seed)
        return cls.of_model(config, as_plain_lora(model), data, rows=rows, weighting=weighting)

    @classmethod
    def of_model(
        cls, config: RunConfig, model: AdaptedModel, data: TextData, *, rows: int = ROWS, weighting: str = WEIGHTINGS[0]
    ) -> Compression:
        """Take a model with plain LoRA and the data that it was trained on.

        Raises:
            ConfigError: when there is no such weighting, or too few held-out rows.
        """
        if weighting not in WEIGHTINGS:
            raise ConfigError(f"--weighting {weighting}: must be one of {', '.join(WEIGHTINGS)}")
        on_accelerator(model)
        held_out = usable(model.tokens(drawn_rows(data.held_out, rows, config.seed)))
        if len(held_out) < LEAST_ROWS:
            raise ConfigError(
                f"--rows: {len(held_out)} held-out examples are too few; the sizes need at least {LEAST_ROWS}"
            )
        seen = usable(model.tokens(data.train_sample(SEEN_ROWS, config.seed)))
        adapter = Truncatable.of(model, seen, weighting)
        return cls(config, Curve.of(adapter, Rows.halved(held_out, config.seed), config.seed), weighting)

    @property
    def names(self) -> list[str]:
        """Names of the modules."""
        return [module.info.name for module in self.curve.adapter.model.adapters]

    def check_share(self, share: float) -> None:
        """Refuse a size that keeps nothing, which no other library would load.

        Raises:
            ConfigError: when it holds no component.
        """
        if not any(len(positions) for positions in self.curve.keep(OFFERED, share)):
            adapter = self.curve.adapter
            least = min((table.cost for table in adapter.tables if len(table)), default=0) / max(adapter.parameters, 1)
            raise ConfigError(
                f"--budget {share:g}: keeps none of the {adapter.parameters:,} parameters, and an empty adapter is not "
                f"written; give a larger fraction, from {least:.2g}"
            )

    def empty(self, which: str, planned: int) -> Compressed:
        """Return the record of the whole adapter, before any size was measured."""
        curve = self.curve
        rows = len(curve.rows.tokens)
        whole = _half(curve.whole_size, curve.rows.reporting)
        step, parameters = curve.adapter.model.step, curve.adapter.parameters
        return Compressed(
            which=which,
            step=step,
            weighting=self.weighting,
            rows=rows,
            parameters=parameters,
            modules=tuple(self.names),
            whole=whole,
            planned=planned,
        )

    def measured(self, method: str, share: float) -> Size:
        """Measure one size; the model keeps it until the next one is measured."""
        measurement, rows = self.curve.measured(method, share), self.curve.rows
        return Size(
            method=method,
            share=share,
            parameters=measurement.parameters,
            ranks=measurement.ranks,
            chosen_on=_half(measurement, rows.choosing),
            reported_on=_half(measurement, rows.reporting),
        )

    def sizes(self, which: str, plan: Sequence[tuple[str, float]]) -> Iterator[Compressed]:
        """Yield what is known, first without any size, then after each of the plan: a method and a share."""
        compressed = self.empty(which, len(plan))
        yield compressed
        for method, share in plan:
            compressed = compressed.having(self.measured(method, share))
            yield compressed


def whole_curve() -> list[tuple[str, float]]:
    """Return every size to measure, the largest first, and beside some of them the other ways to choose."""
    return [(method, share) for share in SHARES for method in METHODS if method == OFFERED or share in COMPARED]


def kept_sizes(folder: Path, which: str, file: Path, rows: int) -> tuple[Iterator[dict[str, Any]], int]:
    """Return what measures the sizes of a run's adapter one by one and keeps them, and how many there are.

    The file is written when all are measured: what stands there before stays whole until then.
    """
    plan = whole_curve()

    def steps() -> Iterator[dict[str, Any]]:
        for compressed in Compression.of_run(folder, which=which, rows=rows).sizes(which, plan):
            if len(compressed.sizes) == compressed.planned:
                compressed.write(file)
            if compressed.sizes:
                yield {"share": compressed.sizes[-1].share, "method": compressed.sizes[-1].method}

    return steps(), len(plan)


def _half(measurement: Measured, rows: np.ndarray) -> Half:
    """Return what a size is worth on some rows, as the store keeps it; numbers that are not finite are left out."""
    worth = asdict(measurement.on(rows))
    worth["metrics"] = {name: value for name, value in worth["metrics"].items() if math.isfinite(value)}
    return Half(**worth)


def write_size(
    compression: Compression,
    out: Path,
    size: Size,
    *,
    run: Path | None,
    which: str,
    name: str = "",
    form: Form | None = None,
) -> dict[str, Any]:
    """Write one size of an adapter, and return what was written and what it costs.

    Args:
        compression: the adapter.
        out: a new or empty folder, or a new file that ends in .zip.
        size: as it was measured.
        run: folder of the run, for the model card; None for an adapter brought along, which gets none.
        which: last or best.
        name: of the folder of an adapter brought along.
        form: to write it in; None for PEFT's.

    Raises:
        ConfigError: when `out` is taken.
        StorageError: when it cannot be written.
    """
    form = form or form_of()
    whole, cost = compression.empty(which, 0).whole, size.reported_on
    compression.curve.keep(size.method, size.share)
    adapter, rows = compression.curve.adapter, len(compression.curve.rows.reporting)
    model, of = adapter.model, adapter.parameters
    report: dict[str, Any] = {
        "folder": str(out),
        "format": form.format,
        "form": form.name,
        "which": which,
        "baked": False,
        "metrics_before": dict(whole.metrics),
        "metrics_after": dict(cost.metrics),
        "compressed": {
            "share": size.parameters / of,
            "parameters": size.parameters,
            "of": of,
            "rows": rows,
            "difference": cost.difference,
            "low": cost.low,
            "high": cost.high,
        },
    }
    with staged(out) as staging:
        write_adapter(staging, compression.config, model, form, name or compression.config.title)
        origin = Origin(
            run=None if run is None else run.name,
            name=name if run is None else queries.run_summary(run).name,
            which=which,
            step=model.step,
            parameters=size.parameters,
            of=of,
        )
        origin.write(staging / ORIGIN_NAME)
        if run is not None:
            describe(staging, run, compression.config, model, report)
    return report


def queue_recovery(
    subject: Compression, compressed: Compressed, size: Size, steps: int, *, run: Path | None, name: str, runs_dir: Path
) -> dict[str, Any]:
    """Keep one size of an adapter in the runs folder, and queue a run that starts from it.

    Args:
        subject: the adapter.
        compressed: its measured sizes.
        size: one of them.
        steps: optimizer steps to train.
        run: folder of the run that it comes from; None for an adapter brought along.
        name: of that run's folder, or of the adapter's.
        runs_dir: folder of the runs.

    Returns:
        id, status and steps of the new run, and the folder that it starts from.

    Raises:
        DynloraError: when the adapter cannot be written, or the run cannot be trained; no run is made then.
    """
    start = start_folder(runs_dir, name, compressed, size)
    if not is_kept(start):
        write_size(subject, start, size, run=run, which=compressed.which, name=name)
    title = name if run is None else queries.run_summary(run).name
    called = recovery_name(title, size.parameters / compressed.parameters, steps)
    planned = plan(parse_config(recovery_values(subject.config.model_dump(mode="json"), start, steps, called)))
    (folder,) = put_in_queue(runs_dir, [partial(planned.create, runs_dir, "queued")])
    launch.wake(runs_dir)
    return {"id": folder.name, "status": "queued", "steps": steps, "start_from": str(start)}
