"""What a small language model learns of word problems: `lora` and `dynamic` against PEFT's LoRA, equal parameters.

    python -m benchmarks.language_model.quality --data ../shared/data/mawps [--rows 600] [--seeds 3] [--sides ...]

Every side trains on the same rows in the same order for one pass, at the same rank, rate and schedule, without
dropout's chance being shared. PEFT's trained factors are then put into our own modules, so that one evaluation reads
the held-out loss and the exact match of all: every test problem, answered greedily, judged by its last number.
Results are written after every run, so that what was ended early is not lost.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.attribution import Racer
from benchmarks.language_model.sides import PeftSide, values_of
from dynlora.engine.evaluation.written import Prompts
from dynlora.engine.loop.trainer import Trainer

SIDES = ("peft lora", "lora", "dynamic")
BATCH, RATE = 8, 1e-3


def problems(source: Path, folder: Path, rows: int, held_out: int) -> dict[str, Any]:
    """Write problems with their equation and answer to complete, and return the data section that reads them."""
    for name, most in (("train", rows), ("test", held_out)):
        table = pd.read_parquet(source / f"{name}.parquet").sample(frac=1, random_state=0).head(most)
        if "completion" not in table:
            table["answer"] = [f"{value:.10g}" for value in table["answer"]]
            table["completion"] = table["equation"] + "\n#### " + table["answer"]
        table[["prompt", "completion", "answer"]].to_json(folder / f"{name}.jsonl", orient="records", lines=True)
    return {"path": str(folder), "max_length": 256}


def values_for(side: str, data: Mapping[str, Any], steps: int, seed: int, held_out: int) -> dict[str, Any]:
    """Return the values of one run."""
    values = values_of("dynamic" if side == "dynamic" else "lora", data, steps=steps, lr=RATE, batch_size=BATCH)
    values["data"]["max_eval"] = held_out
    values["log"] |= {"generate_rows": held_out, "generate_max": 64}
    return {**values, "seed": seed}


def trained(side: str, values: Mapping[str, Any], folder: Path, steps: int) -> tuple[Trainer, float]:
    """Return a trainer that holds what a side learned, and the seconds its steps took."""
    racer = Racer(values, folder)
    begin = time.perf_counter()
    if side != "peft lora":
        racer.block(steps)
    else:
        theirs = PeftSide(values, pieces=False)
        begin = time.perf_counter()
        theirs.block(steps)
        take_over(racer.trainer, theirs.model)
    return racer.trainer, time.perf_counter() - begin


def take_over(ours: Trainer, theirs: torch.nn.Module) -> None:
    """Put PEFT's trained factors into our modules."""
    modules = dict(theirs.named_modules())
    with torch.no_grad():
        for module in ours.adapters:
            other: Any = modules[f"base_model.model.{module.info.name}"]
            module.lora_A[: module.rank] = other.lora_A["default"].weight
            module.lora_B[:, : module.rank] = other.lora_B["default"].weight


def judged(trainer: Trainer) -> dict[str, Any]:
    """Return the loss and the correctness of every held-out row, with the parameters in use."""
    prompts = trainer.evaluation.prompts
    assert isinstance(prompts, Prompts)
    assert prompts.answer is not None
    trainer.model.eval()
    written = prompts.written(trainer.model, trainer.adapters.gates, prompts.positions(last=True))  # pyright: ignore
    texts = [str(prompts.tokenizer.decode(one.ids, skip_special_tokens=True)) for one in written]
    right = [prompts.task.is_right(answer, text) for answer, text in zip(prompts.answer, texts, strict=True)]
    count = trainer.adapters.adapter_parameter_count()
    return {
        "loss": trainer.predictions(trainer.evaluation.tokens).loss.tolist(),
        "right": dict(sorted(zip(prompts.rows.tolist(), map(int, right), strict=True))),
        "parameters": count["active"] + count["gate"],
    }


def summary(runs: Mapping[str, Mapping[str, Any]], seeds: int) -> dict[str, Any]:
    """Return every side's means, and its paired difference to PEFT's LoRA over the seeds that both have."""
    sides: dict[str, Any] = {}
    for side in SIDES:
        done = [seed for seed in range(seeds) if f"{side}, seed {seed}" in runs]
        if not done:
            continue
        arrays = {name: _array(runs, side, done, name) for name in ("loss", "right")}
        sides[side] = {"seeds": done, **{name: float(values.mean()) for name, values in arrays.items()}}
        both = [seed for seed in done if f"peft lora, seed {seed}" in runs]
        if side != "peft lora" and both:
            sides[side]["against peft lora"] = {
                name: results.mean_and_ends(_array(runs, side, both, name) - _array(runs, "peft lora", both, name))
                for name in ("loss", "right")
            }
    return sides


def _array(runs: Mapping[str, Mapping[str, Any]], side: str, seeds: list[int], name: str) -> np.ndarray:
    """Return one number of every held-out row, (seeds, rows)."""
    rows = [runs[f"{side}, seed {seed}"][name] for seed in seeds]
    return np.array([list(one.values()) if isinstance(one, dict) else one for one in rows], float)


def kept_runs(steps: int, rows: int) -> dict[str, Any]:
    """Return the runs that were written last; none where they had other settings."""
    file = results.RESULTS / "language_model-quality.json"
    figures = json.loads(file.read_text("utf-8"))["figures"] if file.exists() else {}
    return figures["runs"] if (figures.get("steps"), figures.get("rows")) == (steps, rows) else {}


def main() -> None:
    """Train, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--rows", type=int, default=600, help="training problems")
    parser.add_argument("--held-out", type=int, default=238)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--resume", action="store_true", help="keep runs of these settings that were written")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    steps = math.ceil(arguments.rows / BATCH)
    runs = kept_runs(steps, arguments.rows) if arguments.resume else {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        folder.mkdir()
        data = problems(arguments.data, folder, arguments.rows, arguments.held_out)
        for seed in range(arguments.seeds):
            for side in arguments.sides.split(","):
                if f"{side}, seed {seed}" in runs:
                    continue
                values = values_for(side, data, steps, seed, arguments.held_out)
                trainer, seconds = trained(side, values, Path(place) / f"{side}-{seed}", steps)
                scores = runs[f"{side}, seed {seed}"] = {**judged(trainer), "seconds": seconds}
                means = {"loss": float(np.mean(scores["loss"])), "right": sum(scores["right"].values())}
                print(f"{side}, seed {seed}: {json.dumps(means)} in {seconds:.0f} s", flush=True)
                figures = {"steps": steps, "rows": arguments.rows, "summary": summary(runs, arguments.seeds)}
                results.write("language_model-quality", {**figures, "runs": runs}, "benchmarks.language_model.quality")
    print(json.dumps(summary(runs, arguments.seeds), indent=2))


if __name__ == "__main__":
    main()
