"""Memory of a step of `dynamic` beside plain `lora`: at the start, and after the first reallocation.

    python -m benchmarks.memory [--model minilm] [--rank 8] [--steps 60]

Counted, not timed: weights, gradients and moments, and what autograd keeps for a real batch; see `benchmarks.costs`.
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

from transformers.utils import logging as transformers_logging

from benchmarks import costs, results
from dynlora import strategies
from dynlora.config import parse_config
from dynlora.engine.recorder import NullRecorder
from dynlora.training.build import build_trainer, make_accelerator
from dynlora.training.inputs import load_inputs

GOAL = 1.005
"""Greatest ratio to `lora`."""


def measured(strategy: str, model: str, rank: int, steps: int) -> dict[str, Any]:
    """Return the memory of a step in MiB at the start and after the first reallocation, and the ranks' sum."""
    config = parse_config(
        {
            "model": {"name": model},
            "adapter": {"rank": rank},
            "strategy": {"name": strategy},
            "data": {"max_eval": 64},
            "train": {"steps": steps},
        }
    )
    inputs = load_inputs(config)
    trainer = build_trainer(inputs, NullRecorder(), make_accelerator())
    order, _ = trainer.begin()
    trainer.model.train()
    start = costs.memory(trainer, order)
    events = strategies.build("dynamic", {}).events(steps, rank)  # of both, so that both look at the same batch
    for _ in range(events[0] + 1):
        trainer.probe_step(order)
    return {"start": start, "later": costs.memory(trainer, order), "ranks": sum(trainer.adapters.ranks)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60, help="of the run whose first steps are taken")
    parser.add_argument("--quick", action="store_true", help="the same, kept apart: it takes no minute")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    measurements = {
        name: measured(name, arguments.model, arguments.rank, arguments.steps) for name in ("lora", "dynamic")
    }
    ratio = {
        when: measurements["dynamic"][when]["total"] / measurements["lora"][when]["total"]
        for when in ("start", "later")
    }
    for when, value in ratio.items():
        print(f"{when:6} dynamic / lora {value:.4f} (goal {GOAL}: {'met' if value <= GOAL else 'missed'})")
    results.write(
        "memory-quick" if arguments.quick else "memory",
        {"mib": measurements, "ratio": ratio, "goal": GOAL},
        "benchmarks.memory",
    )


if __name__ == "__main__":
    main()
