"""From a config to a trainer that is ready to start: data, model, strategy, adapters, optimizer, evaluation."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from dynlora.config import PROBE_ROWS, RunConfig
from dynlora.engine.adapt import adapt
from dynlora.engine.data import held_back
from dynlora.engine.data.batches import BatchOrder, Tokens, calibration_batches
from dynlora.engine.data.held_back import HeldBack, set_apart
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.evaluate import Evaluation, sample
from dynlora.engine.evaluation.generate import LONGEST, Limits
from dynlora.engine.evaluation.retention import GeneralText
from dynlora.engine.evaluation.written import EXACT_MATCH, Prompts, TokenTrace
from dynlora.engine.loop.adapter_state import load_adapter_state, load_head_state, saved_sizes
from dynlora.engine.loop.checkpoint import load_optimizer_state, moved
from dynlora.engine.loop.hardware import autocast_context
from dynlora.engine.loop.optimizer import build_optimizer
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.base_model import BaseModel, checkpoint_blocks, head_parameters, hidden_head
from dynlora.engine.recorder import NullRecorder, Recorder
from dynlora.engine.strategy import Batch
from dynlora.errors import AssetError, ConfigError, DynloraError, first_line
from dynlora.jobs.environment import process_number
from dynlora.tasks import WritingTask
from dynlora.training.inputs import Inputs, usable, usable_rows


@contextmanager
def explained(config: RunConfig, *, while_: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Turn whatever fails inside the block into a ConfigError; the traceback goes to the log at level debug.

    Args:
        config: of the run.
        while_: asked when something fails; where it says no, the error stays what it is.

    Raises:
        ConfigError: in the place of an error that is not ours.
    """
    try:
        yield
    except (DynloraError, OSError):  # of files and disks, which another model does not mend
        raise
    except Exception as error:  # whatever a model, a tokenizer or a method raises
        if not while_():
            raise
        logger.debug("before the first step", exc_info=True)
        raise ConfigError(_sentence(config, error)) from error


def _sentence(config: RunConfig, error: Exception) -> str:
    """Return the settings to change, and why."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error):
        return f"train.batch_size={config.train.batch_size}: the memory does not suffice; lower it or data.max_length"
    return (
        f"model.name={config.model.name}: cannot be trained with strategy.name={config.strategy.name} "
        f"({first_line(error)}); use another model or another method"
    )


logger = logging.getLogger(__name__)

CALIBRATION_BATCHES = 8
"""Training batches that fix the gates' standardisation."""

MOST_CALIBRATED = 512
"""Examples of each of these batches at most: a step may have any number of them."""


def build_trainer(
    inputs: Inputs, recorder: Recorder, accelerator: Accelerator, state: Mapping[str, Any] | None = None
) -> Trainer:
    """Put the adapters in and return a trainer at step 0, or at the step of a saved `state`.

    Args:
        inputs: what `load_inputs` returned; the base model is adapted in place.
        recorder: takes what the trainer emits.
        accelerator: device and processes.
        state: of a checkpoint.
    """
    config, base, data = inputs.config, inputs.base, inputs.data
    autocast = autocast_context(inputs.precision(accelerator.device), accelerator.device)
    base.model.to(accelerator.device)  # pyright: ignore
    tokens, reserve = _training_rows(inputs, recorder)
    evaluation, position = _evaluation(inputs, tokens, autocast, is_kept=type(recorder) is not NullRecorder)
    _say(recorder, "Adding the adapters")
    sizes = None if state is None else saved_sizes(state["adapters"])
    with autocast() if config.model.dtype != "fp32" else nullcontext():  # a start may look at data
        adapters = put_adapters(inputs, tokens, accelerator, sizes)
    tokens = _sequences(inputs, tokens, recorder)
    if config.train.gradient_checkpointing:
        checkpoint_blocks(base)
    if state is not None:
        load_adapter_state(adapters, state["adapters"])
    for note in adapters.notes:
        recorder.log("info", note)
    model = accelerator.prepare_model(base.model)
    inputs.strategy.attach_held_back(
        HeldBack(model, inputs.strategy.forward, reserve, config.train.batch_size, autocast, data.task)
    )
    head = head_parameters(base)
    rates = config.train.model_copy(update={"head_lr": config.head_lr})
    optimizer = build_optimizer(inputs.strategy, adapters, head.values(), rates, hidden_head(base))
    if state is not None:
        load_head_state(head, state["head"])
        load_optimizer_state(optimizer, state["optimizer"])
        inputs.strategy.load_state_dict(moved(state["strategy"], accelerator.device))
    else:
        inputs.strategy.start(adapters)
    evaluation.define(recorder, len(adapters), position, adapters.gates is not None)
    trainer = Trainer(
        config=config,
        model=model,
        adapters=adapters,
        strategy=inputs.strategy,
        optimizer=optimizer,
        tokens=tokens,
        evaluation=evaluation,
        accelerator=accelerator,
        autocast=autocast,
        recorder=recorder,
        total=inputs.total,
    )
    if state is not None:
        trainer.step, trainer.best, trainer.metrics = state["step"], state["best"], state["metrics"]
        trainer.timing.train_s, trainer.timing.evaluated_s = state["train_s"], state.get("evaluated_s", 0.0)
        trainer.outlook.load_state_dict(state.get("outlook", {}))
    return trainer


def _training_rows(inputs: Inputs, recorder: Recorder) -> tuple[Tokens, Tokens]:
    """Return the rows to learn from, and those that the strategy sets apart."""
    data = inputs.data
    _say(recorder, f"Tokenizing {len(data.train) + len(data.held_out):,} texts")
    encoded = inputs.encoded("train")
    _check_tokens(inputs.base, encoded)
    for note in encoded.notes:
        recorder.log("warning", f"Training data: {note}")
    return set_apart(usable(encoded), inputs.strategy.reserved_share(), inputs.config.seed)


def _sequences(inputs: Inputs, tokens: Tokens, recorder: Recorder) -> Tokens:
    """Return what a forward pass takes a number of, and say where several rows were packed into one."""
    sequences = inputs.sequences(tokens)
    if sequences is not tokens:
        _say(recorder, f"Packed {len(tokens):,} texts into {len(sequences):,} sequences")
    return sequences


def _check_tokens(base: BaseModel, tokens: Tokens) -> None:
    """Refuse tokens that the model has no embedding for: the tokenizer is another model's.

    Raises:
        AssetError: naming the highest.
    """
    known = len(base.model.get_input_embeddings().weight)  # pyright: ignore[reportArgumentType]
    highest = max(max(row["input_ids"], default=0) for row in tokens.features) if tokens.features else 0
    if max(highest, tokens.pad["input_ids"]) >= known:
        raise AssetError(
            f"model.name={base.folder}: its tokenizer gives token {max(highest, tokens.pad['input_ids']):,}, and the "
            f"model has embeddings for {known:,}; save the tokenizer that the model was trained with in its folder"
        )


def _say(recorder: Recorder, message: str) -> None:
    """Say what happens before the first step, at once: it can take long."""
    recorder.log("info", message)
    recorder.commit()


def put_adapters(
    inputs: Inputs, tokens: Tokens | None, accelerator: Accelerator, sizes: Mapping[str, tuple[int, int]] | None
) -> Adapters:
    """Put the strategy's adapters into the base model, and calibrate their gates where they are new."""
    config, base = inputs.config, inputs.base

    def batches(n: int) -> list[Batch]:
        """Return the first n batches of training."""
        if tokens is None:
            return []
        order = BatchOrder(tokens.length, min(config.train.batch_size, MOST_CALIBRATED), config.seed)
        return [tokens.batch(order[index], accelerator.device) for index in range(n)]

    def probe_batches(n: int) -> list[Batch]:
        """Return n batches of rows that a method may look at before training."""
        return [] if tokens is None else list(calibration_batches(tokens, n, config.seed, accelerator.device))

    adapters = adapt(
        base,
        inputs.strategy,
        rank=config.adapter.rank,
        lora_alpha=config.adapter.lora_alpha,
        dropout=config.adapter.dropout,
        targets=config.adapter.targets,
        total=inputs.total,
        seed=config.seed,
        batches=probe_batches,
        sizes=sizes,
    )
    if inputs.strategy.resizes and accelerator.num_processes == 1:  # several remember the shapes they exchange
        for module in adapters:
            module.hold_live()
    if adapters.gates is not None and sizes is None:
        adapters.gates.calibrate(base.model, [dict(batch) for batch in batches(CALIBRATION_BATCHES)])
    return adapters


SHARDED = {
    "FSDP": "ACCELERATE_USE_FSDP",
    "DeepSpeed": "ACCELERATE_USE_DEEPSPEED",
    "Megatron-LM": "ACCELERATE_USE_MEGATRON_LM",
    "tensor parallelism": "ACCELERATE_USE_PARALLELISM_CONFIG",
}
"""What cuts weights into pieces, and the variable that `accelerate launch` sets for it."""


def make_accelerator() -> Accelerator:
    """Return device and processes as `accelerate launch` or the machine has them.

    Several processes on a machine without accelerators talk through gloo: accelerate needs to be told.

    Raises:
        ConfigError: where accelerate is set to cut weights into pieces, which dynlora cannot adapt, or to something
            that this machine has not.
    """
    for name, variable in SHARDED.items():
        if os.environ.get(variable, "").lower() == "true":
            raise ConfigError(
                f"{variable}=true: {name} cuts weights into fixed pieces, and ranks change inside of them; launch with "
                "accelerate launch --multi_gpu, where every process holds the whole model"
            )
    several = process_number("WORLD_SIZE", 1) > 1
    try:
        return Accelerator(
            cpu=several and not torch.accelerator.is_available(),
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
    except (ValueError, RuntimeError, ImportError) as error:  # what accelerate makes of its variables
        raise ConfigError(
            f"accelerate cannot start as its variables say ({first_line(error)}); start several processes with "
            "`accelerate launch -m dynlora train`, or unset RANK, WORLD_SIZE, LOCAL_RANK and ACCELERATE_*"
        ) from None


def _evaluation(inputs: Inputs, train: Tokens, autocast: Any, *, is_kept: bool) -> tuple[Evaluation, np.ndarray]:
    """Return the held-out side ready to evaluate, and the probe set's place in the plane, (n_probe, 2).

    The place costs a look at each example: where nothing is kept it is left at zero.
    """
    config, base, data = inputs.config, inputs.base, inputs.data
    everything = inputs.encoded("held_out")
    tokens, held_out = usable(everything), data.held_out.take(usable_rows(everything))
    names, group = _groups(inputs, train, tokens, held_out, autocast)
    probe = held_back.probe_rows(tokens.label, group, PROBE_ROWS, config.seed)
    looked_at = sample(probe, group, len(tokens), config.log.eval_rows, config.seed)
    evaluation = Evaluation(
        tokens,
        held_out.text,
        held_out.text_pair,
        group,
        names,
        data.task,
        probe,
        data.metric,
        looked_at,
        _prompts(inputs, held_out, group),
        TokenTrace.of(tokens, probe, base.tokenizer) if is_kept and isinstance(data.task, WritingTask) else None,
        GeneralText.of(base.tokenizer, data.task) if config.log.retention else None,
    )
    if not is_kept:
        return evaluation, np.zeros((len(probe), 2))
    return evaluation, held_back.plane(held_back.embed(base.model, tokens, probe, 64, autocast))


def _prompts(inputs: Inputs, held_out: Rows, group: np.ndarray | None) -> Prompts | None:
    """Return the prompts that a model which writes texts continues at each evaluation, as many of each group."""
    config, task, tokenizer = inputs.config, inputs.data.task, inputs.base.tokenizer
    if not isinstance(task, WritingTask) or not config.log.generate_rows:
        return None
    rows = held_back.probe_rows(np.zeros(len(held_out)), group, config.log.generate_rows, config.seed)
    limits = Limits(config.log.generate_max, min(tokenizer.model_max_length, LONGEST))
    interim = len(rows) if inputs.data.metric == EXACT_MATCH else config.log.generate_interim
    return Prompts.of_rows(held_out, rows, interim, tokenizer, task, limits)


def _groups(
    inputs: Inputs, train: Tokens, tokens: Tokens, held_out: Rows, autocast: Any
) -> tuple[list[str], np.ndarray | None]:
    """Return the input groups' names and the index of each held-out row's group."""
    config = inputs.config
    if config.data.group_by == "clusters":
        sample = held_back.probe_rows(train.label, None, 4 * PROBE_ROWS, config.seed)
        clusters = held_back.fit_clusters(held_back.embed(inputs.base.model, train, sample, 64, autocast), config.seed)
        everything = np.arange(len(tokens))
        member = clusters.predict(held_back.embed(inputs.base.model, tokens, everything, 64, autocast))
        return [f"cluster {index + 1}" for index in range(clusters.n_clusters)], np.asarray(member)
    return named_groups(held_out)


def named_groups(rows: Rows) -> tuple[list[str], np.ndarray | None]:
    """Return the names of the groups that rows say they are in, in a natural order, and the index of each row's."""
    if rows.group is None:
        return [], None
    names = sorted(set(rows.group), key=_natural)
    index = {name: position for position, name in enumerate(names)}
    return names, np.array([index[name] for name in rows.group])


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a sort key that reads digits as numbers: 2 before 10, numbers before words."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name) if part]
