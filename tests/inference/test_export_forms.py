"""The forms of an export: each gives the numbers of the run, and what keeps gates gives them with the gates."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

import dynlora
from dynlora.engine.evaluation.inference import AdaptedModel, merge
from dynlora.errors import AdapterError, ConfigError, NotMergeableError
from dynlora.inference.export import export_run
from dynlora.inference.forms import forms
from dynlora.inference.session import load_run
from dynlora.peft_adapter import read_adapter
from dynlora.peft_adapter.engines import ENGINES, RIGHT, check_engines
from dynlora.peft_adapter.read import expected_header, read_header
from dynlora.store import queries
from dynlora.training import run as training_run
from tests.inference.averaged import averaged
from tests.llama_cpp import logits as llama_logits
from tests.llama_cpp import write_base
from tests.tiny import tiny_config, tiny_rows, write_csv
from tests.waiting import until

TEXTS = ["the film was great", "a dull plot that never ends"]

Exported = Callable[[Path, str], Path]
"""Exports a run in a form and returns the folder."""


def answers(model: Any, tokens: Any) -> np.ndarray:
    """Logits of a model."""
    with torch.no_grad():
        return model(**tokens).logits.numpy()


def test_a_gated_classifier_answers_as_the_run_does(trained_run: Path, tmp_path: Path) -> None:
    report = export_run(trained_run, tmp_path / "out", format="gated")
    assert (report["baked"], report["max_abs_logit_gap"]) == (False, 0.0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    expected = load_run(trained_run).answers(TEXTS)
    model = dynlora.load(tmp_path / "out")
    piped: Any = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)(TEXTS)
    for answer, scores in zip(expected, piped, strict=True):
        assert {one["label"]: one["score"] for one in scores} == pytest.approx(answer["probabilities"], abs=1e-5)
    settings = AutoConfig.from_pretrained(tmp_path / "out")
    name = queries.run_summary(trained_run).config["model"]["name"]
    base = AutoModelForSequenceClassification.from_pretrained(name, config=settings)
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    np.testing.assert_allclose(answers(dynlora.load(tmp_path / "out", base), tokens), answers(model, tokens), atol=1e-6)
    assert np.abs(answers(averaged(trained_run).base.model, tokens) - answers(model, tokens)).max() > 1e-4


def test_a_gated_writer_generates_as_the_run_does(writer: Path, exported: Exported) -> None:
    out, own = exported(writer, "gated"), load_run(writer)
    (answer,) = own.answers(["a2:"])
    model, tokenizer = dynlora.load(out), AutoTokenizer.from_pretrained(out)
    ids = own.task.prompt(own.base.tokenizer, _row(own, "a2:"), 0, is_whole=True).ids  # pyright: ignore
    tokens = torch.tensor([list(ids)])
    written = model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=answer["tokens"] + 1,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    text = tokenizer.decode(written[0, tokens.shape[1] :], skip_special_tokens=True)
    assert text.startswith(answer["prediction"])
    with pytest.raises(ConfigError, match="num_beams=2: the gates follow one text each"):
        model.generate(input_ids=tokens, num_beams=2, max_new_tokens=2)
    cache = model(input_ids=tokens, use_cache=True).past_key_values
    with pytest.raises(ConfigError, match="past_key_values: the gates need the tokens before"):
        model(input_ids=tokens[:, :1], past_key_values=cache)
    with pytest.raises(ConfigError, match="adapter_names: a gated adapter cannot share a batch"):
        model(input_ids=tokens, adapter_names=["one"])


def _row(model: AdaptedModel, text: str) -> Any:
    from dynlora.engine.data.text_data import Rows

    task: Any = model.task
    return Rows([text], None, task.no_labels(1), None, task.prompt_fields([text]))


def test_a_folder_that_is_no_gated_adapter_is_refused(trained_run: Path, writer: Path, exported: Exported) -> None:
    with pytest.raises(AdapterError, match=r"holds no dynlora_adapter\.json; give a folder that"):
        dynlora.load(exported(trained_run, "peft"))
    with pytest.raises(ConfigError, match=r"base=bert: must be a transformers model; load it, or leave base out"):
        dynlora.load(exported(trained_run, "peft"), "bert")
    name = queries.run_summary(writer).config["model"]["name"]
    with pytest.raises(AdapterError, match="the base model has no module classifier"):
        dynlora.load(exported(trained_run, "gated"), AutoModelForCausalLM.from_pretrained(name))


@pytest.mark.parametrize("form", ["onnx", pytest.param("onnx-gated", marks=pytest.mark.torture)])
def test_onnx_answers_as_the_model_does_in_any_batch(form: str, trained_run: Path, exported: Exported) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    out = exported(trained_run, form)
    model = load_run(trained_run) if form == "onnx-gated" else averaged(trained_run)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(out)
    for texts in (TEXTS, ["great"], [*TEXTS, "x " * 12]):
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        inputs = {one.name: tokens[one.name].numpy() for one in session.get_inputs()}
        (logits,) = session.run(None, inputs)
        np.testing.assert_allclose(logits, answers(model.base.model, tokens), atol=1e-4)
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}


@pytest.fixture(scope="module")
def pair_run(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `dynamic` with gates on pairs of texts, as MRPC has them: alike or not."""
    folder = tmp_path_factory.mktemp("pairs")
    for name, n in (("train", 120), ("validation", 40)):
        rows = tiny_rows(2 * n, seed=len(name))
        pairs = [
            {"text": one["text"], "other": two["text"], "label": ("different", "alike")[one["label"] == two["label"]]}
            for one, two in zip(rows[:n], rows[n:], strict=True)
        ]
        write_csv(folder / f"{name}.csv", pairs)
    config = tiny_config(
        tiny_bert, folder, data__text_pair="other", data__max_length=32, strategy={"name": "dynamic", "gates": "module"}
    )
    outcome = training_run.train(config, folder / "runs", progress=False)
    assert outcome.state == "finished", outcome.error
    return outcome.folder


@pytest.mark.parametrize("form", [pytest.param("onnx", marks=pytest.mark.torture), "onnx-gated"])
def test_onnx_answers_pairs_of_texts_in_any_batch(form: str, pair_run: Path, exported: Exported) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    out = exported(pair_run, form)
    model = load_run(pair_run) if form == "onnx-gated" else averaged(pair_run)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert "token_type_ids" in [one.name for one in session.get_inputs()]
    for texts, others in (
        (TEXTS, TEXTS[::-1]),
        (["great"], ["the film was a great film"]),
        ([*TEXTS, "x " * 12] * 3, ["dull"] * 9),
    ):
        tokens = tokenizer(texts, others, padding=True, return_tensors="pt")
        assert tokens["token_type_ids"].any(), "the second text is told from the first"
        (logits,) = session.run(None, {one.name: tokens[one.name].numpy() for one in session.get_inputs()})
        np.testing.assert_allclose(logits, answers(model.base.model, tokens), atol=1e-4)
        alone = tokenizer(texts, padding=True, return_tensors="pt")
        (of_one,) = session.run(None, {one.name: alone[one.name].numpy() for one in session.get_inputs()})
        assert np.abs(of_one - logits).max() > 1e-4, "the second text is read"


def test_onnx_is_for_models_that_classify(writer: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(NotMergeableError, match="--format onnx: is for models that classify"):
        export_run(writer, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["gguf", "ollama"])
def test_llama_cpp_answers_as_the_merged_model_does(
    form: str, writer: Path, exported: Exported, tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp_py_sync")
    out = exported(writer, form)
    model = averaged(writer)
    config = {**model.base.model.config.to_dict(), "rope_theta": 10_000.0}
    name = queries.run_summary(writer).config["model"]["name"]
    plain = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    write_base({name: one.numpy() for name, one in plain.state_dict().items()}, config, tmp_path / "base.gguf")
    tokens = model.base.tokenizer("a2: b1: a a b", return_tensors="pt")
    merge(model)
    logits = llama_logits(tmp_path / "base.gguf", tokens["input_ids"][0].tolist(), out / "adapter.gguf")
    np.testing.assert_allclose(logits, answers(model.base.model, tokens)[0], atol=1e-4)
    assert (out / "Modelfile").exists() == (form == "ollama")


def test_each_form_is_read_right_by_the_engines_that_it_goes_to(writer: Path, exported: Exported) -> None:
    peft_format = {name for name in ENGINES if name != "mlx"}
    expected = {"peft": {"peft", "vllm"}, "uniform": peft_format, "mlx": {"mlx"}}
    for form, right in expected.items():
        readings = check_engines(read_header(exported(writer, form)))
        assert {one.engine for one in readings if one.verdict == RIGHT} == right
        assert set(forms()[form].engines) <= right
    ranks = {module.name: module.rank for module in read_adapter(exported(writer, "uniform")).modules}
    assert ranks == queries.run_summary(writer).ranks


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("gguf", r"adapter\.gguf is read by llama\.cpp and Ollama alone"),
        ("ollama", r"adapter\.gguf is read by llama\.cpp and Ollama alone"),
        ("merged", r"config\.json says a whole model, which is served without an adapter"),
        ("gated", r"dynlora_adapter\.json says an adapter with its gates, which only dynlora\.load reads"),
    ],
)
def test_a_form_that_is_no_adapter_beside_a_model_is_told(
    form: str, why: str, writer: Path, exported: Exported
) -> None:
    with pytest.raises(AdapterError, match=why):
        read_header(exported(writer, form))


def test_an_export_is_measured_on_a_sample_unless_all_is_asked_for(trained_run: Path, tmp_path: Path) -> None:
    from dynlora.inference import export

    rows = queries.run_summary(trained_run).data_size["held_out"]
    monkey, calls = pytest.MonkeyPatch(), list[tuple[int, int, str]]()
    monkey.setattr(export, "MEASURED_ROWS", 5)
    monkey.setattr(export.helper_job, "tell", lambda *progress: calls.append(progress))
    try:
        sample = export_run(trained_run, tmp_path / "sample")
        whole = export_run(trained_run, tmp_path / "whole", measure="all")
    finally:
        monkey.undo()
    assert [(one["rows"], one["of"]) for one in (sample, whole)] == [(5, rows), (rows, rows)]
    counts = [(done, of) for done, of, _ in calls]
    assert counts[:2] == [(5, 10), (10, 10)]
    assert [done for done, _ in counts[2:]] == [64, rows, rows + 64, 2 * rows], "batches of 64, in each of two passes"
    assert {of for _, of in counts[2:]} == {2 * rows}
    assert f"{rows} held-out examples (as trained)" in (tmp_path / "sample" / "README.md").read_text("utf-8")
    with pytest.raises(ConfigError, match="--measure some: must be one of sample, all"):
        export_run(trained_run, tmp_path / "other", measure="some")


def test_an_export_on_all_examples_is_a_job_of_its_own(trained_run: Path, tmp_path: Path) -> None:
    from dynlora.jobs.export import start_whole, whole

    run = tmp_path / trained_run.name
    shutil.copytree(trained_run, run)
    assert whole(run, "peft")[0] is None
    start_whole(run, "peft")
    until(lambda: (job := whole(run, "peft")[0]) is not None and job.status != "running", "its end")
    job, file = whole(run, "peft")
    assert job is not None
    rows = queries.run_summary(run).data_size["held_out"]
    assert (job.status, job.progress.done, job.progress.of) == ("done", 2 * rows, 2 * rows)
    assert f"on {rows} held-out examples" in job.message
    assert zipfile.is_zipfile(file)


def test_a_large_model_is_measured_on_fewer_rows(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynlora.inference import export

    monkeypatch.setattr(export, "MEASURED_WORK", 1.0)
    monkeypatch.setattr(export, "LEAST_ROWS", 3)
    assert export_run(trained_run, tmp_path / "out")["rows"] == 3


def test_where_no_gate_is_averaged_nothing_is_measured(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = queries.run_summary(trained_run).metrics
    with monkeypatch.context() as patch:
        patch.setattr(AdaptedModel, "predictions_and_readings", lambda *_, **__: pytest.fail("it was measured"))
        report = export_run(trained_run, tmp_path / "out", format="gated")
    assert (report["rows"], report["metrics_before"], report["metrics_after"]) == (0, metrics, metrics)
    whole = export_run(trained_run, tmp_path / "whole", format="gated", measure="all")
    assert whole["rows"] == whole["of"]
    assert whole["metrics_after"]["loss"] == pytest.approx(metrics["loss"], rel=1e-4)
    best = export_run(trained_run, tmp_path / "best", format="gated", which="best")
    assert best["rows"] > 0, "the training's last metrics are not those of the best adapter"


def test_a_header_is_known_before_the_export(writer: Path, exported: Exported) -> None:
    summary, written = queries.run_summary(writer), read_header(exported(writer, "peft"))
    settings, scalings = summary.config["adapter"], written.scalings
    header = expected_header(summary.ranks, scalings, settings["rank"], settings["alpha"] or 2 * settings["rank"])
    assert (header.ranks, header.scalings) == (written.ranks, pytest.approx(scalings))
    assert check_engines(header) == check_engines(written)
