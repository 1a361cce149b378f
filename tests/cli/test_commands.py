"""The command line from end to end on tiny models: what each command prints, writes and exits with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pytest
import torch
import transformers
from click.testing import CliRunner

import dynlora
from dynlora.cli.main import main
from dynlora.inference.session import load_run
from dynlora.peft_adapter import read_adapter
from dynlora.store.reader import RunReader
from tests.command_line import document, run
from tests.inference.averaged import averaged
from tests.store.builder import SUMMARY_KEYS
from tests.tiny import tiny_arguments, tiny_rows, tiny_tokenizer, write_csv

ROW = ("id", "name", "status", "strategy", "model", "data", "seed", "step", "max_steps", "metrics")
TEXTS = [row["text"] for row in tiny_rows(24, seed=7)]
ARCHITECTURES = ("bert", "gpt2")


@pytest.fixture(scope="module")
def models(tiny_bert: Path, tiny_gpt2: Path) -> dict[str, Path]:
    """A folder for each architecture."""
    return {"bert": tiny_bert, "gpt2": tiny_gpt2}


@pytest.fixture(scope="module")
def trained(
    models: dict[str, Path], tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A runs folder, and what `train` said of one gated dynamic run of each architecture."""
    runs_dir = tmp_path_factory.mktemp("trained")
    summaries = {}
    for name, model in models.items():
        arguments = tiny_arguments(model, tiny_data, "strategy.min_rank=0", "strategy.moves=4", "strategy.gates=module")
        summaries[name] = document(run(runs_dir, "train", *arguments, "--name", f"tiny {name}", "--json"))
    return runs_dir, summaries


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_train_says_all_the_contract_asks_for(
    architecture: str, trained: tuple[Path, dict[str, dict[str, Any]]], models: dict[str, Path]
) -> None:
    summary = trained[1][architecture]
    assert set(SUMMARY_KEYS) <= set(summary)
    assert (summary["status"], summary["step"], summary["max_steps"], summary["seed"]) == ("finished", 20, 20, 0)
    assert (summary["name"], summary["strategy"]) == (f"tiny {architecture}", "dynamic")
    assert summary["model_path"] == str(models[architecture].resolve())
    params, metrics = summary["params"], summary["metrics"]
    assert set(params) == {"budget", "active", "allocated", "gate", "head"}
    assert params["active"] + params["gate"] <= params["budget"]
    assert metrics["accuracy"] > 0.8
    assert summary["best"]["accuracy"] >= metrics["accuracy"]
    assert all(isinstance(value, float) for value in metrics.values())
    assert {"train_s", "step_ms_median", "strategy_ms_median"} <= set(summary["time"])
    assert summary["config"]["adapter"]["rank"] == 2
    assert len(set(summary["ranks"].values())) > 1, "capacity should have moved"


def test_show_and_runs_say_the_same(trained: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    runs_dir, summaries = trained
    shown_run = document(run(runs_dir, "show", summaries["bert"]["id"], "--json"))
    assert {key: shown_run[key] for key in SUMMARY_KEYS} == {key: summaries["bert"][key] for key in SUMMARY_KEYS}
    listed = {row["id"]: row for row in document(run(runs_dir, "runs", "--json"))}
    assert set(listed) == {item["id"] for item in summaries.values()}
    assert {key: listed[shown_run["id"]][key] for key in ROW} == {key: shown_run[key] for key in ROW}
    assert "finished at step 20/20" in run(runs_dir, "show", summaries["bert"]["id"]).stdout
    assert "tiny gpt2" in run(runs_dir, "runs").stdout


def test_compare_tells_what_differs(trained: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    runs_dir, summaries = trained
    ids = [summaries["bert"]["id"], summaries["gpt2"]["id"]]
    comparison = document(run(runs_dir, "compare", *ids, "--json"))
    assert [item["id"] for item in comparison["runs"]] == ids
    assert "model.name" in comparison["config_differences"]
    assert "train.lr" not in comparison["config_differences"]
    assert "model.name" in run(runs_dir, "compare", *ids).stdout


def test_signals_are_wide_tables(trained: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path) -> None:
    runs_dir, summaries = trained
    frames = {}
    for kind, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet), ("json", pd.read_json)):
        arguments = ["signals", summaries["bert"]["id"], "--signal", "rank", "--format", kind]
        result = run(runs_dir, *arguments)
        assert result.exit_code == 0, result.output
        frames[kind] = read(io.BytesIO(result.stdout_bytes))
        out = tmp_path / f"table.{kind}"
        assert run(runs_dir, *arguments, "--out", str(out)).exit_code == 0
        assert out.read_bytes() == result.stdout_bytes
    assert list(frames["csv"].columns) == ["step", *summaries["bert"]["ranks"]]
    for frame in frames.values():
        np.testing.assert_allclose(frame.to_numpy(float), frames["csv"].to_numpy(float), rtol=1e-5)
    assert frames["csv"].iloc[-1].drop("step").astype(int).to_dict() == summaries["bert"]["ranks"]
    assert frames["csv"]["step"].tolist() == list(range(21))


def test_evaluate_repeats_the_last_evaluation(trained: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    runs_dir, summaries = trained
    for item in summaries.values():
        evaluation = document(run(runs_dir, "evaluate", item["id"], "--json"))
        assert (evaluation["id"], evaluation["split"], evaluation["rows"], evaluation["baked"]) == (
            item["id"],
            "validation",
            80,
            False,
        )
        assert evaluation["metrics"] == pytest.approx(item["metrics"], abs=1e-6)
    baked = document(run(runs_dir, "evaluate", summaries["bert"]["id"], "--baked", "--json"))
    assert baked["baked"]
    assert baked["metrics"]["loss"] != summaries["bert"]["metrics"]["loss"]
    assert document(run(runs_dir, "evaluate", summaries["bert"]["id"], "--split", "train", "--json"))["rows"] == 200
    best = document(run(runs_dir, "evaluate", summaries["bert"]["id"], "--which", "best", "--json"))
    assert best["metrics"]["accuracy"] == pytest.approx(summaries["bert"]["best"]["accuracy"])


def test_predict_texts_and_files(trained: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path) -> None:
    runs_dir, summaries = trained
    run_id = summaries["gpt2"]["id"]
    texts = ["great lovely superb great", "awful dull broken dull"]
    rows = document(run(runs_dir, "predict", run_id, "--text", texts[0], "--text", texts[1], "--json"))
    assert [row["text"] for row in rows] == texts
    assert [row["prediction"] for row in rows] == ["good", "bad"]
    for row in rows:
        assert set(row["probabilities"]) == {"bad", "good"}
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    write_csv(tmp_path / "table.csv", [{"text": text} for text in texts])
    for name in ("lines.txt", "table.csv"):
        assert document(run(runs_dir, "predict", run_id, "--file", str(tmp_path / name), "--json")) == rows
    assert run(runs_dir, "predict", run_id, "--text", texts[0]).stdout == f"good\t{texts[0]}\n"
    write_csv(tmp_path / "loud.csv", [{" TEXT ": text} for text in texts])
    assert document(run(runs_dir, "predict", run_id, "--file", str(tmp_path / "loud.csv"), "--json")) == rows
    for content in ("text\n", "note\nhello\n"):
        (tmp_path / "odd.csv").write_text(content)
        refused = run(runs_dir, "predict", run_id, "--file", str(tmp_path / "odd.csv"))
        assert refused.stderr.startswith(f"Error: --file {tmp_path / 'odd.csv'}: "), "not data.path, which nobody gave"


def logits_of(model: Any, folder: Path) -> torch.Tensor:
    """Return what a plain transformers or PEFT model says of `TEXTS`, with the folder's own tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    with torch.inference_mode():
        return model.eval()(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits


def baked_logits(folder: Path) -> torch.Tensor:
    """Return what the run's own model says of `TEXTS`, its gates at their means."""
    from dynlora.engine.data.text_data import Rows

    model = averaged(folder)
    return model.readings(model.tokens(Rows(TEXTS, None, np.zeros(len(TEXTS), np.int64), None)))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exports_load_elsewhere_and_agree(
    architecture: str, trained: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    runs_dir, summaries = trained
    run_id = summaries[architecture]["id"]
    reports = {
        kind: document(run(runs_dir, "export", run_id, "--out", str(tmp_path / kind), "--format", kind, "--json"))
        for kind in ("peft", "merged")
    }
    base = transformers.AutoModelForSequenceClassification.from_pretrained(summaries[architecture]["model_path"])
    adapted = peft.PeftModel.from_pretrained(base, str(tmp_path / "peft"))
    merged = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    own = baked_logits(runs_dir / run_id)
    assert type(dynlora.open_run(runs_dir / run_id).load()) is type(load_run(runs_dir / run_id))
    assert (logits_of(adapted, tmp_path / "peft") - own).abs().max() < 1e-5
    assert (logits_of(merged, tmp_path / "merged") - own).abs().max() < 1e-5
    assert merged.config.id2label == {0: "bad", 1: "good"}

    settings = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    live = {name: rank for name, rank in summaries[architecture]["ranks"].items() if rank > 0}
    assert sorted(settings["target_modules"]) == sorted(live)
    assert settings["rank_pattern"] == {"^" + name.replace(".", r"\."): rank for name, rank in live.items()}
    assert set(settings["alpha_pattern"]) == set(settings["rank_pattern"])
    assert {module.name: module.rank for module in read_adapter(tmp_path / "peft").modules} == live
    for report in reports.values():
        assert report["max_abs_logit_gap"] > 0
        assert report["metrics_before"] == pytest.approx(summaries[architecture]["metrics"], abs=1e-6)
        assert set(report["metrics_after"]) == set(report["metrics_before"])
    assert reports["peft"]["metrics_after"] == reports["merged"]["metrics_after"]
    with RunReader(runs_dir / run_id) as reader:
        assert reader.meta()["export_peft_last"]["max_abs_logit_gap"] == reports["peft"]["max_abs_logit_gap"]


def test_export_without_gates_moves_nothing(tiny_bert: Path, tiny_data: Path, runs_dir: Path, tmp_path: Path) -> None:
    arguments = tiny_arguments(tiny_bert, tiny_data, "strategy.name=lora", "train.steps=10")
    summary = document(run(runs_dir, "train", *arguments, "--json"))
    report = document(
        run(runs_dir, "export", summary["id"], "--out", str(tmp_path / "out"), "--which", "best", "--json")
    )
    assert (report["baked"], report["max_abs_logit_gap"]) == (False, 0.0)
    assert report["metrics_before"] == report["metrics_after"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    for options in (["--out", str(tmp_path / "full")], ["--out", str(tmp_path / "x"), "--format", "tar"]):
        refused = run(runs_dir, "export", summary["id"], *options)
        assert refused.exit_code == 2
        assert len(refused.stderr.splitlines()) == 1
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    for command in (
        ["evaluate", summary["id"], "--split", "test"],
        ["evaluate", summary["id"], "--which", "first"],
        ["predict", summary["id"]],
        ["predict", summary["id"], "--text", "a", "--text-pair", "b", "--text-pair", "c"],
        ["predict", summary["id"], "--file", str(tmp_path / "none.txt")],
        ["signals", summary["id"], "--signal", "entropy"],
        ["resume", summary["id"]],
    ):
        refused = run(runs_dir, *command)
        assert (refused.exit_code, len(refused.stderr.splitlines()), refused.stdout) == (2, 1, ""), (command, refused)


def test_regression_from_train_to_predict(tiny_bert: Path, runs_dir: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": 0.5 + (row["label"] == "good")} for row in tiny_rows(120)]
    path = write_csv(tmp_path / "data.csv", rows)
    summary = document(run(runs_dir, "train", *tiny_arguments(tiny_bert, path, "train.steps=30"), "--json"))
    assert set(summary["metrics"]) == {"loss", "pearson", "spearman", "mse"}
    assert summary["metrics"]["pearson"] > 0.5
    (row,) = document(run(runs_dir, "predict", summary["id"], "--text", "great lovely", "--json"))
    assert set(row) == {"text", "prediction"}
    assert isinstance(row["prediction"], float)
    assert run(runs_dir, "export", summary["id"], "--out", str(tmp_path / "out"), "--format", "merged").exit_code == 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_labels == 1
    assert (logits_of(model, tmp_path / "out") - baked_logits(runs_dir / summary["id"])).abs().max() < 1e-5


def test_pairs_from_train_to_predict(tiny_bert: Path, runs_dir: Path, tmp_path: Path) -> None:
    rows = [
        {"sentence1": row["text"], "sentence2": other["text"], "label": int(row["label"] == other["label"])}
        for row, other in zip(tiny_rows(60, seed=3), tiny_rows(60, seed=4), strict=True)
    ]
    path = write_csv(tmp_path / "pairs.csv", rows)
    arguments = tiny_arguments(tiny_bert, path, "train.steps=10", "data.max_length=24")
    summary = document(run(runs_dir, "train", *arguments, "--json"))
    ask = ["predict", summary["id"], "--text", "great", "--text-pair", "dull", "--json"]
    (row,) = document(run(runs_dir, *ask))
    assert row["text_pair"] == "dull"
    assert set(row["probabilities"]) == {"0", "1"}
    assert document(run(runs_dir, "evaluate", summary["id"], "--json"))["metrics"] == pytest.approx(
        summary["metrics"], abs=1e-6
    )


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "roberta"])
def test_texts_longer_than_the_model_takes(
    architecture: str, tiny_gpt2: Path, tiny_llama: Path, runs_dir: Path, tmp_path: Path
) -> None:
    """A tokenizer that sets no limit of its own is held to the positions the model has learned, if it has any."""
    if architecture == "roberta":
        config = transformers.RobertaConfig(
            vocab_size=40,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=66,
            pad_token_id=1,
            bos_token_id=2,
            eos_token_id=3,
            type_vocab_size=1,
        )
        transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    else:
        folder = {"gpt2": tiny_gpt2, "llama": tiny_llama}[architecture]
        transformers.AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "model")
    tokenizer = tiny_tokenizer(segments=False)
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"text": f"{row['text']} " * 60, "label": row["label"]} for row in tiny_rows(24)]
    path = write_csv(tmp_path / "long.csv", rows)
    arguments = tiny_arguments(
        tmp_path / "model", path, "data.max_length=100", "train.steps=2", "strategy.allocation=none"
    )
    preview = document(CliRunner().invoke(main, ["preflight", *arguments, "--json"]))
    assert (
        preview["tokens"]["train"]["limit"]
        == preview["tokens"]["train"]["max"]
        == (100 if architecture == "llama" else 64)
    )
    assert document(run(runs_dir, "train", *arguments, "--json"))["status"] == "finished"


def test_lists_are_json_documents(runs_dir: Path) -> None:
    for command in ("models", "datasets", "strategies"):
        result = CliRunner().invoke(main, [command, "--json"])
        assert document(result)[0]["name"]
        assert document(result)[0]["name"] in CliRunner().invoke(main, [command]).stdout
    assert "did you mean elalora?" in CliRunner().invoke(main, ["strategies", "elalor"]).stderr
    diagnosis = document(run(runs_dir, "doctor", "--json"))
    assert diagnosis["runs_dir_writable"] is True
    assert (set(diagnosis["models"]), diagnosis["missing_extras"]) == ({"minilm", "smollm2-135m"}, [])
    assert document(run(runs_dir, "runs", "--json")) == []
    assert "dynlora train" in run(runs_dir, "runs").stdout


def test_the_health_of_a_run_is_a_command(trained_run: Path) -> None:
    arguments = ["doctor", trained_run.name, "--runs-dir", str(trained_run.parent)]
    health = document(CliRunner().invoke(main, [*arguments, "--json"]))
    assert (health["id"], "the adapters learn" in health["passed"]) == (trained_run.name, True)
    lines = CliRunner().invoke(main, arguments).stdout.splitlines()
    assert lines[0] == health["conclusion"]
    assert any(line.startswith("Passed: the adapters learn") for line in lines)


@pytest.mark.parametrize("limit_s", [90, pytest.param(15, marks=pytest.mark.torture, id="on a quiet machine")])
def test_unreachable_hub_is_told_within_seconds(tiny_data: Path, runs_dir: Path, limit_s: float) -> None:
    """Nothing listens where the hub is said to be; Python's own start counts."""
    arguments = tiny_arguments(Path("someone/some-model"), tiny_data)
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dynlora", "train", *arguments, "--runs-dir", str(runs_dir)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )
    assert done.returncode == 2, done.stderr
    assert time.monotonic() - start < limit_s
    assert "someone/some-model" in done.stderr
    assert "local folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(runs_dir.iterdir())


def test_preflight_counts_what_dropout_keeps(tiny_bert: Path, tiny_data: Path) -> None:
    kept = []
    for dropout in (0.0, 0.5):
        arguments = tiny_arguments(tiny_bert, tiny_data, f"adapter.dropout={dropout}", f"model.dropout={dropout}")
        preview = document(CliRunner().invoke(main, ["preflight", *arguments, "--json"]))
        kept.append(preview["memory_mib"]["activations"])
    assert kept[0] < kept[1]


def test_preflight_counts_what_train_makes(
    tiny_bert: Path, tiny_data: Path, trained: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    arguments = tiny_arguments(tiny_bert, tiny_data, "strategy.min_rank=0", "strategy.moves=4", "strategy.gates=module")
    before = sorted(tiny_data.rglob("*"))
    estimate = document(CliRunner().invoke(main, ["preflight", *arguments, "--json"]))
    assert sorted(tiny_data.rglob("*")) == before
    params = trained[1]["bert"]["params"]
    assert {key: estimate["params"][key] for key in ("budget", "gate", "head")} == {
        key: params[key] for key in ("budget", "gate", "head")
    }
    assert estimate["params"]["allocated"] == estimate["params"]["active"], "memory is held for what is live"
    assert params["allocated"] == params["active"]
    assert estimate["modules"] == len(trained[1]["bert"]["ranks"]) == sum(row["modules"] for row in estimate["kinds"])
    assert sum(row["active"] for row in estimate["kinds"]) == estimate["params"]["active"]
    assert (estimate["tokens"]["train"]["rows"], estimate["tokens"]["held_out"]["rows"]) == (200, 80)
    assert estimate["schedule"]["events"]
    assert estimate["schedule"]["evaluations"] == [0, 10, 20]
    assert (estimate["precision"], estimate["device"]) == ("fp32", "cpu")
    assert estimate["time"]["step_s"] > 0
    assert estimate["memory_mib"]["total"] == pytest.approx(
        sum(estimate["memory_mib"][part] for part in ("weights", "gradients_and_moments", "activations"))
    )
    for row in estimate["preview"]:
        assert row["tokens"] == ["[CLS]", *row["text"].split(), "[SEP]"]
        assert not row["cut"]
    write_csv(tmp_path / "long.csv", [{"text": "great film " * 20, "label": row["label"]} for row in tiny_rows(20)])
    short = tiny_arguments(tiny_bert, tmp_path / "long.csv")
    estimate = document(CliRunner().invoke(main, ["preflight", *short, "--json"]))
    assert estimate["tokens"]["train"]["cut_share"] == 1
    assert [row["cut"] for row in estimate["preview"]] == [True] * len(estimate["preview"])
    assert "parameters" in CliRunner().invoke(main, ["preflight", *short]).stdout
