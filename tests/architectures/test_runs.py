"""Whole runs of the architectures that need more than BERT does: trained, loaded, exported; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from click.testing import CliRunner

from dynlora.cli.main import main
from dynlora.config import parse_config
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint
from dynlora.inference.export import export_run
from dynlora.inference.session import evaluate_run, load_run
from dynlora.store import queries
from dynlora.training import run
from tests.architectures import tiny_models as tiny
from tests.inference.averaged import averaged
from tests.tiny import save_data, tiny_arguments, tiny_values
from tests.tiny_lm import lm_values, save_problems

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),  # of PEFT, in transformers 5
]

RUNS = [("deberta_v2", "classify"), ("t5", "classify"), ("mixtral", "write"), ("bart", "write"), ("mamba", "write")]

AUTO = {
    ("classify", "peft"): peft.AutoPeftModelForSequenceClassification,
    ("classify", "merged"): transformers.AutoModelForSequenceClassification,
    ("write", "peft"): peft.AutoPeftModelForCausalLM,
    ("write", "merged"): transformers.AutoModelForCausalLM,
}


@pytest.fixture(scope="module", params=RUNS, ids=lambda param: "-".join(param))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """Return architecture, use and folder of a finished run of `dynamic`."""
    architecture, use = request.param
    folder = tmp_path_factory.mktemp(architecture)
    (folder / "data").mkdir()
    if use == "write":
        values = lm_values(tiny.save_writer(architecture, folder / "model"), save_problems(folder / "data"))
    else:
        values = tiny_values(tiny.save_classifier(architecture, folder / "model"), save_data(folder / "data"))
    outcome = run.train(parse_config({**values, "strategy": {"name": "dynamic", "gates": "module"}}), folder / "runs")
    assert outcome.state == "finished", outcome.error
    return architecture, use, outcome.folder


def test_a_run_is_loaded_as_it_was_trained(trained: tuple[str, str, Path]) -> None:
    architecture, _, folder = trained
    assert evaluate_run(folder)["metrics"]["loss"] == pytest.approx(
        queries.run_summary(folder).metrics["loss"], rel=1e-5
    )
    bare = [module.info.name for module in load_run(folder).adapters if module.gates is None]
    assert {name.rpartition(".")[2] for name in bare} == (
        {"query_proj", "key_proj"} if architecture == "deberta_v2" else set()
    )


def test_the_log_says_what_has_no_adapter_and_what_no_gate(trained: tuple[str, str, Path]) -> None:
    architecture, use, folder = trained
    log = " ".join(queries.logs_frame(folder)["message"])
    assert ("no gate (deberta.encoder.layer.*" in log) == (architecture == "deberta_v2")
    assert ("no adapter (" in log) == (architecture in ("mamba", "bart") and use == "write")
    assert ("not adapted" in log) == (architecture == "mixtral")


@pytest.mark.parametrize("kind", ["peft", "merged"])
def test_exports_say_what_the_run_says(kind: str, trained: tuple[str, str, Path], tmp_path: Path) -> None:
    _, use, folder = trained
    export_run(folder, tmp_path / "out", format=kind)
    more = {"num_labels": 2} if use == "classify" and kind != "merged" else {}
    loaded = AUTO[use, "merged" if kind == "merged" else "peft"].from_pretrained(tmp_path / "out", **more).eval()
    model = averaged(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    inputs = tokenizer(["great a film", "dull the a"] if use == "classify" else ["a2:", "b1:"], return_tensors="pt")
    with torch.no_grad():
        logits, own = loaded(**inputs).logits, model.base.model(**inputs).logits
    torch.testing.assert_close(logits, own, atol=1e-5, rtol=1e-5)


def test_a_saved_adapter_of_an_earlier_version_has_a_gate_everywhere(tmp_path: Path) -> None:
    """It named no module without one."""
    from dynlora.engine.loop.adapter_state import load_adapter_state
    from tests.architectures.test_contract import trainer_of

    trainer = trainer_of("bert", "classify", "dynamic")
    from dynlora.engine.loop.adapter_state import adapter_state

    state = adapter_state(trainer.adapters)
    del state["gates"]["has_gate"]
    load_adapter_state(trainer.adapters, state)
    assert all(module.gates is not None for module in trainer.adapters)


@pytest.fixture
def classified(tmp_path: Path) -> tuple[Path, Path]:
    """Return folders of a tiny BERT and of data."""
    (tmp_path / "data").mkdir()
    return tiny.save_classifier("bert", tmp_path / "model"), save_data(tmp_path / "data")


@pytest.mark.parametrize("command", ["preflight", "train"])
def test_a_tokenizer_of_another_model_is_one_sentence(
    command: str, classified: tuple[Path, Path], tmp_path: Path
) -> None:
    model, data = classified
    config = json.loads((model / "config.json").read_text("utf-8"))
    small = transformers.BertConfig.from_dict({**config, "vocab_size": 8})
    transformers.AutoModel.from_config(small).save_pretrained(model)
    place = ["--runs-dir", str(tmp_path / "runs")] if command == "train" else []
    result = CliRunner().invoke(main, [command, *tiny_arguments(model, data), *place])
    assert result.exit_code == {"preflight": 2, "train": 1}[command], result.output
    assert "its tokenizer gives token 2" in result.output
    assert "the model has embeddings for 8; save the tokenizer that the model was trained with" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (
            "Trainer.probe_step",
            RuntimeError("mat1 and mat2 shapes cannot be multiplied\nmore"),
            "=dynamic (RuntimeError: mat1 and mat2 shapes",
        ),
        ("build_trainer", KeyError("last_hidden_state"), "=dynamic (KeyError: 'last_hidden_state'); use"),
        (
            "load_inputs",
            torch.OutOfMemoryError("CUDA out of memory"),
            "train.batch_size=8: the memory does not suffice; lower it",
        ),
    ],
)
def test_whatever_fails_in_the_check_is_one_sentence(
    place: str,
    error: Exception,
    message: str,
    classified: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(f"dynlora.training.preflight.{place}", fails)
    result = CliRunner().invoke(main, ["preflight", *tiny_arguments(*classified)])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_run_that_fails_before_its_first_step_says_what_to_change(
    classified: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: Any, **_options: Any) -> None:
        raise ValueError("All examples must have the same number of <eos> tokens.")

    monkeypatch.setattr("dynlora.engine.loop.trainer.Trainer.predictions", fails)
    outcome = run.train(parse_config(tiny_values(*classified)), tmp_path / "runs")
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert "cannot be trained with strategy.name=dynamic (ValueError: All examples" in outcome.error
    assert outcome.error.endswith("use another model or another method")


def test_the_saved_state_keeps_which_modules_have_a_gate(trained: tuple[str, str, Path]) -> None:
    *_, folder = trained
    place = find_checkpoint(folder / "adapter")
    assert place is not None
    kept = read_checkpoint(folder / "adapter")["adapters"]["gates"]["has_gate"]
    assert kept.dtype == torch.bool
    assert kept.tolist() == [module.gates is not None for module in load_run(folder).adapters]
