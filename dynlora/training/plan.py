"""A run that was checked whole and not made yet."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dynlora.config import RunConfig
from dynlora.engine.adapt import probe_of
from dynlora.engine.model.base_model import head_parameters
from dynlora.engine.model.chosen_modules import choose_modules
from dynlora.jobs.start_files import keep_start, start_meta
from dynlora.jobs.trackers import check_trackers
from dynlora.store.meta import meta_of
from dynlora.store.writer import RunWriter
from dynlora.training.initial_adapter import check_start
from dynlora.training.inputs import Inputs, load_inputs


@dataclass(frozen=True)
class PlannedRun:
    """A run that was checked whole and has no folder yet: config, what the store keeps, length, what was loaded."""

    config: RunConfig
    meta: dict[str, Any]
    max_steps: int
    inputs: Inputs

    def create(self, runs_dir: Path, state: str) -> Path:
        """Make the run folder at step 0 and return it; an adapter that the run starts from is copied into it."""
        text = self.config.to_yaml()
        return RunWriter.create(
            runs_dir,
            config_yaml=text,
            meta=self.meta,
            max_steps=self.max_steps,
            state=state,
            fill=partial(keep_start, self.config),
        )


def plan(config: RunConfig, start: Path | None = None) -> PlannedRun:
    """Check a config whole; nothing is written.

    Args:
        config: the settings.
        start: where the adapter that the run starts from is kept, if not where the settings say.

    Raises:
        DynloraError: when something the config names cannot be used.
    """
    check_trackers(config.log.to)
    inputs = load_inputs(config, start)
    trainer_check(inputs)
    return planned(inputs)


def trainer_check(inputs: Inputs) -> None:
    """Refuse targets that match nothing, and a model that the method cannot adapt, before a folder is made.

    Raises:
        ConfigError: when a target matches no module, the method refuses the model, or given ranks, or an adapter to
            start from, are those of another.
    """
    config, base, strategy = inputs.config, inputs.base, inputs.strategy
    strategy.attach_task(base.task)
    chosen = choose_modules(base, config.adapter.targets)
    chosen.check_gates(strategy.gate_mode())
    rank, alpha = config.adapter.rank, config.adapter.lora_alpha
    probe = probe_of(base, strategy, chosen, rank=rank, lora_alpha=alpha, total=inputs.total, seed=config.seed)
    strategy.check_model(chosen.modules, probe)
    source = strategy.start_source()
    if source is not None:
        check_start(source, inputs.start, config.model.name, inputs.data.labels)
        strategy.given_start().check_rest(head_parameters(base))
    if source is not None or strategy.ranks_source() is not None:
        strategy.ranks(chosen.modules, probe)


def planned(inputs: Inputs) -> PlannedRun:
    """Return what is kept of checked inputs."""
    config = inputs.config
    events = inputs.strategy.events(inputs.total, config.adapter.rank)
    own_signals = {name: asdict(signal) for name, signal in inputs.strategy.own_signals.items()}
    meta = {
        **meta_of(config, inputs.strategy.fidelity, own_signals),
        "data_digest": inputs.data.digest,
        "data_size": {"train": len(inputs.data.train), "held_out": len(inputs.data.held_out)},
        "metric": inputs.data.metric,
        "labels": inputs.data.labels,
        "task": inputs.data.task.name,
        "peft_task_type": inputs.data.task.peft_task_type,
        "task_facts": inputs.data.task.facts(),
        "planned_events": len(events),
        "first_reallocation": events[0] if events else None,
        "data_warnings": inputs.data.warnings,
        "data_repairs": inputs.data.repaired,
        **start_meta(config),
    }
    return PlannedRun(config, meta, inputs.total, inputs)
