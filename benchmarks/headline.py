"""The headline once more: CLINC150 at rank 1, from nothing to a sentence in less than 30 minutes on two cores.

    python -m benchmarks.headline --data path/to/clinc150 [--seeds 3] [--processes 2] [--export] [--quick]

Uniform LoRA and `dynamic` train on seeds 1, 2, ..., with one learning rate for adapters and head, and with a fast head,
each at the rate that it has in `tuned-clinc150-r1-head`. Each line has the difference of these runs and of the
committed ones. Runs of this command are kept apart, in `benchmarks/out/kept/headline`: what was ended early continues,
and nothing is taken from where the claim comes from but the rates. `--export` trains `dynamic` once more, in a run
folder, exports it and reads the folder with PEFT: the held-out loss there is that of the run to 1e-4 nats, or the
command fails.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import results, tuned
from benchmarks.allocators import parts_of
from benchmarks.fixed_run import quiet
from benchmarks.headroom import values_of
from benchmarks.kept_runs import KeptRuns
from dynlora.config import parse_config
from dynlora.inference.export import export_run
from dynlora.inference.session import load_run
from dynlora.store import queries
from dynlora.training import run as training_run
from dynlora.training.inputs import read_data

CLAIM = "tuned-clinc150-r1-head"
"""File of results that the headline is from."""

PAIRS = (
    ("dynamic, scale", "lora"),
    ("lora, fast head", "lora"),
    ("dynamic, scale, fast head", "lora, fast head"),
)
"""Sides whose difference the sentence says."""

METHODS = tuple(dict.fromkeys(side for pair in PAIRS for side in reversed(pair)))


def sentences(figures: Mapping[str, Any], claim: Mapping[str, Any]) -> list[str]:
    """Return the differences of these runs, each beside what the committed ones give."""
    lines = [f"CLINC150, rank 1, {figures['steps']} steps, held-out loss in nats, 95 % CI:"]
    for side, other in PAIRS:
        again, before = (_difference(of, side, other) for of in (figures, claim))
        lines.append(f"{side} minus {other}: {again}; committed: {before}")
    return lines


def _difference(figures: Mapping[str, Any], side: str, other: str) -> str:
    """Return a difference with its interval and number of seeds; `diverged` where a side has no loss."""
    row = figures["methods"][side]
    if f"loss - {other}" not in row:
        return "diverged"
    mean, low, high = row[f"loss - {other}"]
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f}, n = {len(figures['seeds'])})"


MOST_EXPORT_GAP = 1e-4
"""Held-out loss of an exported adapter in PEFT minus that of its run, at most, nats."""


def exported(arguments: argparse.Namespace, lr: float) -> dict[str, float]:
    """Return the held-out loss of a run of `dynamic`, as the run recorded it and as PEFT reads its exported folder."""
    import peft
    import transformers

    values = values_of(argparse.Namespace(**{**vars(arguments), "lr": lr}), 1, parts_of("dynamic, scale")[0])
    config = parse_config(quiet(values))
    with tempfile.TemporaryDirectory() as place:
        run = training_run.train(config, Path(place)).folder
        out = Path(place) / "peft"
        export_run(run, out)
        ours, held_out = load_run(run), read_data(config).held_out
        kind: Any = getattr(transformers, ours.task.model_class().__name__)
        base = kind.from_pretrained(ours.base.folder, config=transformers.AutoConfig.from_pretrained(out))
        theirs = peft.PeftModel.from_pretrained(base, str(out)).eval()
        tokens, losses = ours.tokens(held_out), []
        for start in range(0, len(tokens), 64):
            batch = tokens.batch(np.arange(start, min(start + 64, len(tokens))))
            with torch.no_grad():
                logits = theirs(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
            losses.append(torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none"))
        recorded = float(queries.run_summary(run).metrics["loss"] or np.nan)
    return {"run": recorded, "peft": float(torch.cat(losses).mean()), "rows": len(tokens)}


def main() -> None:
    """Train, print the sentence, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", required=True, help="folder of CLINC150: train and validation, columns text and label"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="runs side by side; cores are shared among them")
    parser.add_argument("--export", action="store_true", help="one run of dynamic more, exported and read by PEFT")
    parser.add_argument("--quick", action="store_true", help="few steps and rows: does it work, nothing more")
    given = parser.parse_args()
    options = ["--data", given.data, "--seeds", str(given.seeds), "--processes", str(given.processes)]
    arguments = tuned.arguments_of([*options, *(["--quick"] if given.quick else [])])
    arguments.methods = list(METHODS)
    arguments.kept = arguments.kept if given.quick else KeptRuns.below(results.QUICK / "kept" / "headline")
    claim = json.loads((results.RESULTS / f"{CLAIM}.json").read_text("utf-8"))["figures"]
    chosen = claim["chosen"]
    seeds = list(range(tuned.FIRST_SEED, tuned.FIRST_SEED + arguments.seeds))
    tuned.train_all(arguments, [(m, seed, chosen[m]) for seed in seeds for m in METHODS])
    figures = {"seeds": seeds, "steps": arguments.steps, "methods": tuned.compared(arguments, chosen, seeds)}
    if given.export:
        figures["export"] = exported(arguments, chosen["dynamic, scale"])
    print("written:", results.write("headline-quick" if given.quick else "headline", figures, "benchmarks.headline"))
    print(*sentences(figures, claim), sep="\n")
    if given.export:
        loss = figures["export"]
        gap = loss["peft"] - loss["run"]
        print(f"exported, read by PEFT: {loss['peft']:.6f} nats; the run: {loss['run']:.6f} (n = {loss['rows']:,})")
        if not abs(gap) <= MOST_EXPORT_GAP:
            raise SystemExit(f"PEFT's loss differs from the run's by {gap:.2g} nats, more than {MOST_EXPORT_GAP:g}")


if __name__ == "__main__":
    main()
