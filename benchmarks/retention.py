"""What runs forget at the suggested learning rate, and at one ten times too high.

    python -m benchmarks.retention [--model smollm2-135m] [--data arithmetic] [--steps 60] [--batch 8] [--rank 8]
        [--method lora] [--times 10] [--seeds 1] [--rate 0.00016]

`dynlora advise --rate` suggests a rate, unless `--rate` gives one that it suggested before. One run trains at it, one
at `--times` of it, both with `log.retention` at each evaluation; a third trains at the suggested rate without it, and
has to end with the same bits. With `--evaluations 1` there is one before the first step and one after the last.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.settings_arguments import add_fields, given
from dynlora.analysis.retention import RETENTION, Retention, retention_conclusion, retentions
from dynlora.config import parse_config
from dynlora.store import queries
from dynlora.training import run as training_run
from dynlora.training.advice import advise_rate


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        model: its name.
        data: built-in data.
        method: of training.
        rank: of the adapters.
        steps: optimizer steps of each run.
        batch: examples of a step.
        rows: held-out examples, at most.
        evaluations: after the one before the first step.
        rate: suggested before; 0: by a test here.
        times: factor on the suggested rate that is too high.
        seeds: from 0 on.
    """

    model: str = "smollm2-135m"
    data: str = "arithmetic"
    method: str = "lora"
    rank: int = 8
    steps: int = 60
    batch: int = 8
    rows: int = 100
    evaluations: int = 4
    rate: float = 0.0
    times: float = 10.0
    seeds: int = 1


def values_of(setting: Setting, seed: int) -> dict[str, Any]:
    """Return the values of a run at the default rate, without retention."""
    return {
        "seed": seed,
        "model": {"name": setting.model},
        "data": {"name": setting.data, "max_eval": setting.rows},
        "adapter": {"rank": setting.rank},
        "strategy": {"name": setting.method},
        "train": {"steps": setting.steps, "batch_size": setting.batch},
        "log": {
            "eval_every": max(1, setting.steps // setting.evaluations),
            "checkpoint_every": setting.steps,
            "generate_rows": 0,
        },
    }


def trained(values: dict[str, Any], lr: float, retention: int, place: Path) -> Path | None:
    """Return the folder of a run at a rate; None where it did not finish."""
    config = {**values, "train": {**values["train"], "lr": lr}, "log": {**values["log"], "retention": retention}}
    outcome = training_run.train(parse_config(config), place, progress=False)
    return outcome.folder if outcome.state == "finished" else None


def measured(folder: Path | None) -> dict[str, Any] | None:
    """Return the held-out loss of a run and what it forgot, by evaluation; None of one that diverged."""
    if folder is None:
        return None
    loss = queries.scalars_frame(folder, "loss", "validation")["value"].tolist()
    read = retentions(queries.events_frame(folder, (RETENTION,)))
    return {
        "held_out_loss": loss,
        "retention": [asdict(one) for one in read],
        "forgotten": read[-1].forgotten,
    }


def one(setting: Setting, seed: int, place: Path) -> dict[str, Any]:
    """Return a suggested rate, the run at it, the run above it, and whether retention left the bits as they are."""
    values = values_of(setting, seed)
    rate = setting.rate or advise_rate(parse_config(values))["rate"]
    if rate is None:
        raise SystemExit("no rate is suggested here: choose other data or more steps")
    folders = [trained(values, lr, n, place) for lr, n in ((rate, 1), (rate * setting.times, 1), (rate, 0))]
    adapters = [None if one is None else (one / "adapter" / "tensors.safetensors").read_bytes() for one in folders]
    return {
        "rate": rate,
        "suggested": measured(folders[0]),
        "too_high": measured(folders[1]),
        "is_equal_without": adapters[0] is not None and adapters[0] == adapters[2],
    }


def main() -> None:
    """Suggest, train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="retention", help="name of the file of results")
    parser.add_argument("--quick", action="store_true", help="few steps of a small model: does it work, nothing more")
    add_fields(parser, Setting())
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    setting, out = given(arguments, Setting()), arguments.out
    if arguments.quick:
        setting = replace(setting, model="minilm", data="sentiment4", steps=20, batch=16, rows=64)
        out = f"{out}-quick"
    runs: dict[str, Any] = {}
    for seed in range(setting.seeds):
        with tempfile.TemporaryDirectory() as place:
            runs[f"seed {seed}"] = run = one(setting, seed, Path(place))
        results.write(out, {"setting": vars(setting), "runs": runs}, "benchmarks.retention")
        for name in ("suggested", "too_high"):
            side = run[name]
            told = "diverged" if side is None else retention_conclusion(Retention(**side["retention"][-1]))
            print(f"seed {seed}, {name}: {told}")
        print(json.dumps({"rate": run["rate"], "is_equal_without": run["is_equal_without"]}), flush=True)


if __name__ == "__main__":
    main()
