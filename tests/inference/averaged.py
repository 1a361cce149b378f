"""The model of a run as an export without gates has it."""

from __future__ import annotations

from pathlib import Path

from dynlora.config_files import read_run_config
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates
from dynlora.inference.session import GATE_ROWS, load_run
from dynlora.training.inputs import read_data


def averaged(folder: Path) -> AdaptedModel:
    """Return the model of a run, its gates at their means."""
    model, config = load_run(folder), read_run_config(folder)
    bake_gates(model, mean_gates(model, model.tokens(read_data(config).train_sample(GATE_ROWS, config.seed))))
    return model
