"""What a run will cost, told before it is made, and what the model sees of its data. Nothing is written."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from dynlora import assets
from dynlora.config import RunConfig, TrainConfig
from dynlora.config_files import with_absolute_paths
from dynlora.engine.data.batches import IGNORED, BatchOrder, Tokens, padded_tokens, sorted_batches
from dynlora.engine.data.tables import Places
from dynlora.engine.data.text_data import Rows
from dynlora.engine.loop.first_steps import check_start
from dynlora.engine.loop.schedule import checkpoint_every, eval_every
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.base_model import load_tokenizer, numbers_in
from dynlora.engine.recorder import NullRecorder
from dynlora.errors import ConfigError
from dynlora.jobs.trackers import check_trackers
from dynlora.tasks import WritingTask
from dynlora.training.build import build_trainer, explained, make_accelerator
from dynlora.training.checkpoints import parameter_counts
from dynlora.training.inputs import Inputs, data_folder, load_inputs, read_data
from dynlora.training.run import trainer_check

SHOWN_ROWS = 6
SHOWN_PIECES = 400
"""Rows of a preview, and the most pieces of text of each."""

COUNTED_ROWS = 20_000
"""Rows that are turned into tokens to count those that lose something."""

WHOLE = 2**20
"""Tokens of a row that nothing is cut from."""


def token_preview(settings: RunConfig) -> dict[str, Any]:
    """Return the tokens of a few training examples, and how many rows lose something to truncation; no model is loaded.

    Args:
        settings: a run's config, of a task that writes texts.

    Returns:
        rows (place, pieces, tokens, in_loss, cut), counted and of (rows looked at, and all), lost and cut (rows that
        lose their whole completion, or anything: count, places), longest (tokens of the longest row), limit, loss_on,
        is_chat, and notes in sentences.

    Raises:
        ConfigError: when the task has labels.
        AssetError, DataError: exactly where `train` would refuse, in the same sentence.
    """
    config = with_absolute_paths(settings)
    data = read_data(config)
    task = data.task
    if not isinstance(task, WritingTask):
        raise ConfigError(f"data.task={task.name}: every row has one label; `dynlora preflight` shows its tokens")
    tokenizer = load_tokenizer(assets.resolve_model(config.model.name))
    task.check_tokenizer(tokenizer, data.train)
    limit = min(config.data.max_length, tokenizer.model_max_length)
    rows = data.train.take(np.arange(min(COUNTED_ROWS, len(data.train))))
    encoded = task.encode_rows(tokenizer, rows, WHOLE)
    targets = encoded.targets or []
    ids = [feature["input_ids"] for feature in encoded.features]
    length = np.array([len(row) for row in ids])
    is_kept = np.array([counted(row[:limit]) > 0 for row in targets], bool)
    lost = np.flatnonzero(~is_kept & np.array([counted(row) > 0 for row in targets], bool))
    where = Places(config.data, data_folder(config), config.seed, len(data.train))
    return {
        "rows": [
            {
                "place": where.text([row]),
                "pieces": pieces(tokenizer, ids[row][:limit], targets[row][:limit]),
                "tokens": min(len(ids[row]), limit),
                "in_loss": counted(targets[row][:limit]),
                "cut": len(ids[row]) > limit,
            }
            for row in shown_rows(length)
        ],
        "counted": len(rows),
        "of": len(data.train),
        "lost": {"count": len(lost), "places": where.text(lost)},
        "cut": {"count": int((length > limit).sum()), "places": where.text(np.flatnonzero(length > limit))},
        "longest": int(length.max()),
        "limit": limit,
        "loss_on": task.settings().get("loss_on", ""),
        "is_chat": "messages" in rows.fields,
        "notes": list(encoded.notes),
    }


def shown_rows(length: np.ndarray, n: int = SHOWN_ROWS) -> list[int]:
    """Return rows of a preview: evenly spread, and the longest among them, so that a cut shows where there is one."""
    spread = np.linspace(0, len(length) - 1, min(n, len(length))).astype(int)
    return [int(row) for row in np.unique([*spread[: n - 1], int(length.argmax())])]


def counted(targets: Sequence[int]) -> int:
    """Return how many tokens count in the loss."""
    return sum(target != IGNORED for target in targets)


def pieces(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], targets: Sequence[int] | None
) -> list[dict[str, Any]]:
    """Return a row as pieces of text: a token each, or several that make one character together.

    Each has `text`, `tokens`, `loss` (whether it counts in the loss) and `special` (a token of the tokenizer's own).

    Args:
        tokenizer: of the model.
        ids: tokens of the row.
        targets: label of each; None where a row has one label, and none counts.
    """
    special, rows = set(tokenizer.all_special_ids), list[dict[str, Any]]()
    held: list[int] = []
    for index, token in enumerate(ids):
        held.append(token)
        counts = targets is not None and targets[index] != IGNORED
        text = str(tokenizer.decode(held, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        is_last = index + 1 == len(ids) or (targets is not None and (targets[index + 1] != IGNORED) != counts)
        if text.endswith("\N{REPLACEMENT CHARACTER}") and not is_last and token not in special:
            continue  # the first bytes of a character
        rows.append({"text": text, "tokens": len(held), "loss": counts, "special": token in special})
        held = []
        if len(rows) == SHOWN_PIECES:
            break
    return rows


def format_preview(document: dict[str, Any]) -> str:
    """Return a preview for a terminal: what counts in the loss in double brackets, then what is lost."""
    lines = []
    for row in document["rows"]:
        runs = groupby(row["pieces"], key=lambda one: one["loss"])
        spans = [(counts, "".join(one["text"] for one in span)) for counts, span in runs]
        text = "".join(f"[[{span}]]" if counts else span for counts, span in spans)
        lines += [f"{row['place']}: {row['in_loss']} of {row['tokens']} tokens in the loss", f"    {text!r}"]
    lost, limit = document["lost"], document["limit"]
    lines.append(
        f"{lost['count']:,} of {document['counted']:,} training examples lose their whole completion at "
        f"data.max_length={limit}{': ' + lost['places'] if lost['count'] else ''}"
    )
    return "\n".join([*lines, *document["notes"]])


FIGURE_ROWS = 8
SHOWN_CHARACTERS = 2000
"""Training examples of the preview, and the most characters of each text in it; the tokens are whole."""


@dataclass(frozen=True)
class Encoded:
    """One side of the data as tokens, rows from which nothing is learned included.

    Attributes:
        inputs: what the run is made of.
        rows: of this side.
        tokens: of each row.
    """

    inputs: Inputs
    rows: Rows
    tokens: Tokens

    @classmethod
    def of(cls, inputs: Inputs, side: str) -> Encoded:
        """Return the side `train` or `held_out`."""
        return cls(inputs, getattr(inputs.data, side), inputs.encoded(side))

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know of how rows became tokens, in sentences."""
        return self.tokens.notes

    def figures(self) -> dict[str, Any]:
        """Return rows, mean and maximum tokens a row, the limit, and the fraction of rows that are cut."""
        length = self.tokens.length
        limit = min(self.inputs.config.data.max_length, self.inputs.base.tokenizer.model_max_length)
        whole = self._whole(np.flatnonzero(length >= limit))
        return {
            "rows": len(self.rows),
            "mean": float(length.mean()),
            "max": int(length.max()),
            "limit": limit,
            "cut_share": sum(size > limit for size in whole) / len(self.rows),
        }

    def preview(self) -> list[dict[str, Any]]:
        """Return a few rows and exactly the tokens that the model sees of each, special ones included."""
        tokenizer, task = self.inputs.base.tokenizer, self.inputs.data.task
        chosen = np.array(shown_rows(self.tokens.length, FIGURE_ROWS))
        rows, whole = self.rows.take(chosen), self._whole(chosen)
        targets = self.tokens.targets
        examples = []
        for index, row in enumerate(chosen):
            ids = self.tokens.features[row]["input_ids"]
            label = None if targets is not None else task.describe(rows.label[index])
            examples.append(
                {
                    "row": int(row) + 1,
                    "text": rows.text[index][:SHOWN_CHARACTERS],
                    "text_pair": rows.text_pair[index][:SHOWN_CHARACTERS] if rows.text_pair else None,
                    "label": label,
                    "group": rows.group[index] if rows.group else None,
                    "tokens": tokenizer.convert_ids_to_tokens(ids),
                    "cut": whole[index] > len(ids),
                    **(
                        {}
                        if targets is None
                        else {
                            "pieces": pieces(tokenizer, ids, targets[row]),
                            "in_loss": counted(targets[row]),
                        }
                    ),
                }
            )
        return examples

    def _whole(self, chosen: np.ndarray) -> list[int]:
        """Return how many tokens rows have when nothing is cut."""
        if not len(chosen):
            return []
        return self.inputs.data.task.whole_lengths(self.inputs.base.tokenizer, self.rows.take(chosen))


def generation_cost(trainer: Trainer, run_s: float) -> dict[str, Any] | None:
    """Return the most that the texts of a run cost; None where nothing is written.

    Args:
        trainer: at step 0, its outlook with the time of a forward pass.
        run_s: seconds that the run takes without texts.

    Returns:
        prompts, new_tokens (most after each), tokens_per_s (over all prompts that are continued together) and seconds
        of the last evaluation; interim_prompts and interim_seconds of one before it; evaluations (that write), total_s
        and share (of the run) of all of them.
    """
    texts = trainer.texts
    if texts is None or not texts.prompts.ids:
        return None
    interim, last = texts.prompts.costs(texts.model, texts.gates)
    texts.decide(interim.seconds)
    written = trainer.outlook.interim_writings if interim.prompts else 0
    total_s = written * interim.seconds + last.seconds
    return {
        **asdict(last),
        "interim_prompts": interim.prompts,
        "interim_seconds": interim.seconds,
        "evaluations": written + 1,
        "total_s": total_s,
        "share": total_s / (run_s + total_s),
    }


def said_generation(cost: dict[str, Any]) -> str:
    """Return the cost of what is written in a line."""
    between = cost["evaluations"] - 1
    earlier = f", {cost['interim_prompts']:,} at {between:,} before it" if between else ""
    return (
        f"{cost['prompts']:,} prompts at the last evaluation{earlier}, at most {cost['new_tokens']:,} tokens each: at "
        f"most {cost['total_s']:.1f} s in all ({cost['tokens_per_s']:.0f} tokens per second), "
        f"{100 * cost['share']:.0f} % of the total time (log.generate_rows, log.generate_interim, log.generate_max)"
    )


MIB = 2**20
LOOKED_THROUGH = 32
"""First steps of a run among which the one to time is chosen."""

MOST_PROBED, PROBED = 512, 32
"""A step of more examples is not taken: so many of a batch stand for it, and what they cost is scaled."""

EVALUATED = 64
"""Held-out examples that are timed."""

MEMORY_RULE = (
    "weights, with the copies that compute in bf16; 16 bytes per trained number (itself, its gradient, two moments of "
    "AdamW); and the tensors one batch saves for its backward pass, counted on a real batch and scaled to the longest. "
    "Python and its libraries are not included."
)


def preflight(settings: RunConfig) -> dict[str, Any]:
    """Check a config whole and return what its run will cost, as plain values.

    Two steps are taken on real batches, one to warm up and one that is timed, and thrown away. Of steps with more than
    `MOST_PROBED` examples `PROBED` are taken.

    Args:
        settings: the run's config.

    Returns:
        params, kinds (parameters by module kind), modules, tokens, memory_mib, time (`generation` is None for a task
        that writes nothing), schedule, precision, device, task, writes, labels, metric, data, repaired (what was done
        to the rows, in sentences), preview (a few training examples with the tokens the model sees), and warnings in
        sentences.

    Raises:
        ConfigError, AssetError, DataError: exactly where `train` would refuse, in the same sentence; a ConfigError too
            where the model or its first steps fail in another way.
    """
    with explained(settings):
        return _looked_at(settings)


def _looked_at(settings: RunConfig) -> dict[str, Any]:
    """Load everything, take the steps, and return what they cost."""
    check_trackers(settings.log.to)
    inputs = load_inputs(settings)
    accelerator = make_accelerator()
    trainer_check(inputs)
    trainer = build_trainer(inputs, NullRecorder(), accelerator)
    encoded_sides = {side: Encoded.of(inputs, side) for side in ("train", "held_out")}
    params, kinds, modules = _parameters(trainer, inputs), _kinds(trainer), len(trainer.adapters)
    interim_s, evaluation_s = _evaluation_seconds(trainer)  # before a step changes what it checks
    memory, step_s = _probe_steps(trainer)
    schedule = _schedule(inputs, len(trainer.tokens) if settings.data.packing else len(inputs.data.train))
    evaluations = len(schedule["evaluations"])
    total_s = inputs.total * step_s + (evaluations - 1) * interim_s + evaluation_s
    writing = generation_cost(trainer, total_s)
    total_s += writing["total_s"] if writing else 0.0
    report = {
        "params": params,
        "kinds": kinds,
        "modules": modules,
        "tokens": {side: encoded.figures() for side, encoded in encoded_sides.items()},
        "memory_mib": memory,
        "time": {
            "step_s": step_s,
            "evaluation_s": evaluation_s,
            "interim_evaluation_s": interim_s,
            "total_minutes": total_s / 60,
            "generation": writing,
        },
        "schedule": schedule,
        "precision": inputs.precision(accelerator.device),
        "device": accelerator.device.type,
        "task": inputs.data.task.name,
        "labels": inputs.data.labels,
        "metric": inputs.data.metric,
        "data": settings.data.source,
        "repaired": inputs.data.repaired,
        "writes": inputs.data.task.facts()["generates"],
        "preview": encoded_sides["train"].preview(),
    }
    warnings = [*encoded_sides["train"].notes, *_warnings(inputs, report), *trainer.adapters.notes]
    return {**report, "warnings": warnings}


def _parameters(trainer: Trainer, inputs: Inputs) -> dict[str, int]:
    """Return parameters: budget, active, allocated, gate, head, and those of the frozen model."""
    count = parameter_counts(trainer, inputs)
    own = {id(tensor) for module in trainer.adapters for tensor in module.parameters(recurse=False)}
    everything = inputs.base.model.parameters()
    return count | {"frozen": sum(numbers_in(t) for t in everything if not t.requires_grad and id(t) not in own)}


def _kinds(trainer: Trainer) -> list[dict[str, Any]]:
    """Return one row per kind of module, in order of appearance: modules, shape, active and allocated parameters."""
    rows: dict[str, dict[str, Any]] = {}
    for module in trainer.adapters:
        info = module.info
        row = rows.setdefault(
            info.kind,
            {"kind": info.kind, "modules": 0, "d_in": info.d_in, "d_out": info.d_out, "active": 0, "allocated": 0},
        )
        row["modules"] += 1
        row["active"] += module.active_rank() * info.cost
        row["allocated"] += module.allocated_parameters()
    return list(rows.values())


def _probe_steps(trainer: Trainer) -> tuple[dict[str, Any], float]:
    """Take two steps; return the memory a run needs, MiB, and the seconds a step takes on average over the data.

    The second is timed: that of the first steps whose batch is nearest to the mean in size. The one before it warms up.
    """
    settings, length = trainer.config, trainer.tokens.length
    whole = _padded(trainer, settings.train.batch_size)
    usual = float(whole.mean()) * settings.train.grad_accum
    trainer.config = settings.model_copy(update={"train": _probed(settings.train)})
    accum = trainer.config.train.grad_accum
    each = _padded(trainer, trainer.config.train.batch_size)
    size = each[np.arange(LOOKED_THROUGH * accum) % len(each)].reshape(LOOKED_THROUGH, -1).sum(1)
    timed = 1 + int(np.abs(size[1:] - float(each.mean()) * accum).argmin())
    order = BatchOrder(length, trainer.config.train.batch_size, settings.seed, first=(timed - 1) * accum)
    trainer.model.train()  # as the loop does: dropout costs time and memory
    with saved_bytes(trainer.model) as saved:
        trainer.probe_step(order)
    step_s = trainer.probe_step(order) / size[timed] * usual
    trainer.config = settings
    activations = saved[0] / size[timed - 1] * float(whole.max())
    weights = sum(tensor.numel() * tensor.element_size() for tensor in trainer.model.parameters())
    weights += sum(module.copied_bytes() for module in trainer.adapters)
    learned = 12 * sum(tensor.numel() for tensor in trainer.model.parameters() if tensor.requires_grad)
    parts = {"weights": weights / MIB, "gradients_and_moments": learned / MIB, "activations": activations / MIB}
    return {"total": sum(parts.values()), **parts, "estimate": MEMORY_RULE}, step_s


def _probed(train: TrainConfig) -> TrainConfig:
    """Return the batch that is tried: the whole of a step, or a few examples of it where it has very many."""
    if train.batch_size * train.grad_accum <= MOST_PROBED:
        return train
    return train.model_copy(update={"batch_size": min(PROBED, train.batch_size), "grad_accum": 1})


def _padded(trainer: Trainer, batch_size: int) -> np.ndarray:
    """Return the padded tokens of each batch of a pass over the data, (batches,)."""
    order = BatchOrder(trainer.tokens.length, batch_size, trainer.config.seed)
    return np.array([padded_tokens(trainer.tokens.length, order[i]) for i in range(order.per_epoch)])


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[list[int]]:
    """Count the bytes autograd keeps for the backward passes inside the block, each storage once a pass."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    seen: set[tuple[int, int]] = set()
    total = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = (storage.data_ptr(), storage.nbytes())
        if key[0] not in weights and key not in seen:
            seen.add(key)
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


def _evaluation_seconds(trainer: Trainer) -> tuple[float, float]:
    """Return the seconds of an evaluation before the last, and of the last, from one batch of median length.

    Raises:
        TrainingDiverged: as the evaluation before the first step does, when a loss or an output is not finite.
    """
    tokens, sampled = trainer.evaluation.tokens, trainer.evaluation.part(last=False).rows
    first = max(0, (len(tokens) - EVALUATED) // 2)
    timed_rows = tokens.take(np.sort(np.argsort(tokens.length, kind="stable")[first : first + EVALUATED]))
    trainer.predictions(timed_rows.take(np.arange(1)))  # warms up: the first pass of a process takes longer
    start = time.perf_counter()
    predictions = trainer.predictions(timed_rows)
    seconds = time.perf_counter() - start
    check_start(trainer.config, predictions)
    trainer.outlook.token_s = seconds / max(1.0, float(timed_rows.length.sum()))
    size = max(64, trainer.config.train.batch_size)
    timed, interim, whole = (
        sum(padded_tokens(length, batch) for batch in sorted_batches(length, size))
        for length in (timed_rows.length, tokens.length[sampled], tokens.length)
    )
    return seconds * interim / timed, seconds * whole / timed


def _schedule(inputs: Inputs, n_train: int) -> dict[str, Any]:
    """Return when things happen, in optimizer steps; `n_train` rows, or packed sequences, are a pass over the data."""
    train, total = inputs.config.train, inputs.total
    every = eval_every(inputs.config, total)
    evaluations = sorted({0, *range(every, total + 1, every), total})
    return {
        "steps": total,
        "epochs": total * train.batch_size * train.grad_accum / n_train,
        "warmup_steps": max(1, round(train.warmup * total)) if train.warmup else 0,
        "shape": train.schedule,
        "events": inputs.strategy.events(total, inputs.config.adapter.rank),
        "evaluations": evaluations,
        "checkpoint_every": checkpoint_every(inputs.config, total),
    }


def _warnings(inputs: Inputs, report: dict[str, Any]) -> list[str]:
    """Return what a person should know before starting, in sentences."""
    config, rows = inputs.config, len(inputs.data.train)
    sentences = list(inputs.data.warnings)
    cut = report["tokens"]["train"]["cut_share"]
    if cut > 0.05:
        limit = report["tokens"]["train"]["limit"]
        sentences.append(
            f"{100 * cut:.0f} % of the training examples are truncated after {limit} tokens; raise data.max_length."
        )
    step = config.train.batch_size * config.train.grad_accum
    if (tried := _probed(config.train).batch_size) < step > MOST_PROBED:
        sentences.append(f"A step has {step:,} examples; memory and time were checked on {tried} and scaled.")
    if rows < config.train.batch_size:
        sentences.append(
            f"The {rows} training examples are fewer than train.batch_size={config.train.batch_size}, so some repeat."
        )
    epochs = report["schedule"]["epochs"]
    if epochs < 0.5:
        sentences.append(f"The run uses {100 * epochs:.0f} % of the training examples; raise train.steps to use more.")
    if epochs > 20:
        sentences.append(f"The run uses every training example {epochs:.0f} times and may overfit.")
    if len(inputs.data.held_out) < 50:
        sentences.append(
            f"{len(inputs.data.held_out)} held-out examples are few: one example changes the metric a lot."
        )
    if math.isfinite(report["time"]["total_minutes"]) and report["time"]["total_minutes"] > 24 * 60:
        sentences.append(f"The run will take about {report['time']['total_minutes'] / 60:.0f} hours on this machine.")
    return sentences


def format_preflight(report: dict[str, Any]) -> str:
    """Return what a run will cost, a line each."""
    params, tokens, schedule, cost = report["params"], report["tokens"]["train"], report["schedule"], report["time"]
    lines = [
        f"parameters  {params['active'] + params['gate']:,} of the budget of {params['budget']:,} in "
        f"{report['modules']} "
        f"modules ({params['gate']:,} of them gates), {params['allocated']:,} allocated; head {params['head']:,}; "
        f"frozen {params['frozen']:,}",
        *(f"            {row['kind']}: {row['modules']} of {row['d_in']} to {row['d_out']}" for row in report["kinds"]),
        f"data        {tokens['rows']:,} training examples, {report['tokens']['held_out']['rows']:,} held-out "
        f"examples; {tokens['mean']:.1f} tokens per example, at most {tokens['max']}, "
        f"{100 * tokens['cut_share']:.1f} % truncated",
        *(f"repair      {sentence}" for sentence in report["repaired"]),
        f"memory      about {report['memory_mib']['total']:,.0f} MiB, without Python and its libraries",
        f"time        {cost['step_s']:.2f} s per step, {cost['total_minutes']:.1f} minutes in total, "
        f"{report['precision']} on {report['device']}",
        *([f"generation  {said_generation(cost['generation'])}"] if cost["generation"] else []),
        f"schedule    {schedule['steps']:,} steps, {schedule['epochs']:.1f} epochs; possible reallocations after steps "
        f"{_steps(schedule['events'])}; evaluations after steps {_steps(schedule['evaluations'])}",
        *(f"warning     {sentence}" for sentence in report["warnings"]),
    ]
    return "\n".join(lines)


def _steps(steps: list[int]) -> str:
    """Return the first of some steps, how many are between, and the last."""
    if len(steps) <= 3:
        return ", ".join(f"{step:,}" for step in steps) or "(never)"
    return f"{steps[0]:,} to {steps[-1]:,} ({len(steps) - 2:,} between)"
