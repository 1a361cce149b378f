"""The use of a recycle: from Python, the command line, the inference child and PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

from dynlora import open_run
from dynlora.errors import ConfigError, DataError
from dynlora.inference import worker
from dynlora.inference.client import InferenceChild
from dynlora.inference.worker import Answering
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.few_shot import load_meta
from dynlora.kinds.recycle.work.materials import Materials
from dynlora.kinds.recycle.work.run import averaged_features, texts_of_file
from dynlora.kinds.recycle.work.token_space import pooled
from dynlora.kinds.sources import AveragedSources
from tests.kinds.recycle.conftest import TASKS, train_teacher
from tests.kinds.recycle.test_run import settings_of
from tests.kinds.work import command
from tests.tiny import write_csv

SUPPORT = {"praise": ["great the film", "great great story"], "songs": ["music the", "music and music"]}
TEXTS = ["a great end", "the music was very great", "music"]


@pytest.fixture(scope="module")
def recycled(taught: Path, teacher_ids: list[str]) -> Path:
    """Return the folder of a recycle that the command made."""
    result = command(
        taught,
        "recycle",
        *teacher_ids,
        "--ways",
        "3",
        "--shots",
        "1,2",
        "--episodes",
        "8",
        "--iterations",
        "8",
        "--inputs",
        "5",
        "--tokens",
        "6",
        "--test-episodes",
        "10",
        "--json",
    )
    assert result.exit_code == 0, result.output
    return taught / json.loads(result.stdout)["id"]


def test_a_label_is_that_of_the_nearest_prototype(recycled: Path) -> None:
    meta = open_run(recycled).load()
    answers = meta.fewshot(SUPPORT).predict(TEXTS)
    features = meta.model.text_features(TEXTS)
    means = [meta.model.text_features(texts).mean(0) for texts in SUPPORT.values()]
    for answer, feature in zip(answers, features, strict=True):
        by_hand = {name: float((feature - mean).square().sum()) for name, mean in zip(SUPPORT, means, strict=True)}
        assert answer["distances"] == pytest.approx(by_hand, rel=1e-4)
        assert answer["label"] == min(by_hand, key=lambda name: by_hand[name])
        assert answer["nearest"]["text"] in [text for texts in SUPPORT.values() for text in texts]
    assert meta.fewshot(SUPPORT).predict(["music and music"])[0]["nearest"]["distance"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("support", "message"),
    [
        ({"one": ["great"]}, "has 1 class; give examples of two classes or more"),
        ([("great", "a"), (" ", "b")], "a text or a label is empty"),
        ([("great", "a")] * 2001, "has 1 class"),
        ([("great", str(index % 2)) for index in range(2001)], "give at most 2,000"),
    ],
)
def test_support_that_cannot_be_used_is_one_sentence(recycled: Path, support: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_meta(recycled).fewshot(support)


def test_the_command_line_classifies_from_a_file(recycled: Path, tmp_path: Path) -> None:
    rows = [{"words": text, "kind": label} for label, texts in SUPPORT.items() for text in texts]
    file = write_csv(tmp_path / "support.csv", rows)
    arguments = ["fewshot", recycled.name, "--support", str(file), "--text", TEXTS[0]]
    refused = command(recycled.parent, *arguments)
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "Error: --support " in refused.output
    assert "has no column text; name one with --text-column (words, kind)" in refused.output
    teacher = load_meta(recycled).folder.parent / RecycleSettings.of_run(recycled).teachers[0]
    arguments += ["--text-column", "words", "--label-column", "kind"]
    wrong = command(teacher.parent, "fewshot", teacher.name, *arguments[2:])
    assert "is a training run, and a recycle run is needed" in wrong.output
    result = command(recycled.parent, *arguments, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    expected = load_meta(recycled).fewshot(SUPPORT).predict(TEXTS[:1])[0]
    assert document["label"] == expected["label"]
    assert document["distances"] == pytest.approx(expected["distances"], rel=1e-5)
    words = command(recycled.parent, *arguments).output
    assert words.startswith(expected["label"])


@pytest.mark.journey
def test_the_inference_child_answers_without_torch_in_its_client(recycled: Path) -> None:
    child = InferenceChild(idle_s=20)
    support = [[text, label] for label, texts in SUPPORT.items() for text in texts]
    try:
        answer = child.ask("few_shot", folder=str(recycled), support=support, texts=TEXTS)
        with pytest.raises(ConfigError, match="has 1 class"):
            child.ask("few_shot", folder=str(recycled), support=support[:1], texts=TEXTS)
    finally:
        child.stop()
    expected = load_meta(recycled).fewshot(SUPPORT).predict(TEXTS)
    assert [one["label"] for one in answer] == [one["label"] for one in expected]
    assert answer[0]["distances"] == pytest.approx(expected[0]["distances"], rel=1e-4)


def test_the_child_keeps_the_meta_lora_in_memory(recycled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering, support = Answering(), [(text, label) for label, texts in SUPPORT.items() for text in texts]
    question = {"folder": str(recycled), "support": support, "texts": TEXTS[:1]}
    line = json.dumps({"number": 1, "ask": "few_shot", "arguments": question})
    first = answering.reply(line)
    assert first["ok"], first
    kept = answering.special["recycle"]
    assert answering.reply(line) == first
    assert answering.special["recycle"] is kept

    def failing(self: Answering) -> Any:
        raise MemoryError

    monkeypatch.setattr(worker, "OPERATIONS", {**worker.OPERATIONS, "stub": failing})
    answering.special["decode"] = (("a decode",), "its roles")
    assert not answering.reply(json.dumps({"number": 2, "ask": "stub", "arguments": {}}))["ok"]
    assert answering.special == {}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_peft_loads_the_export_with_the_same_features(recycled: Path, backbone: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    result = command(recycled.parent, "export", recycled.name, "--out", str(out))
    assert result.exit_code == 0, result.output
    config = json.loads((out / "adapter_config.json").read_text("utf-8"))
    assert config["task_type"] == "FEATURE_EXTRACTION"
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(backbone), out).eval()
    batch = AutoTokenizer.from_pretrained(out)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        features = pooled(model(**batch).last_hidden_state, batch["attention_mask"], "mean")
    ours = load_meta(recycled).model.text_features(TEXTS)
    assert torch.allclose(features, ours, atol=1e-5)
    with torch.no_grad(), model.disable_adapter():
        base = pooled(model(**batch).last_hidden_state, batch["attention_mask"], "mean")
    assert not torch.allclose(base, ours, atol=1e-3)
    refused = command(recycled.parent, "export", recycled.name, "--out", str(tmp_path / "other"), "--format", "merged")
    assert refused.exit_code == 2
    assert "a meta-LoRA has no head" in refused.output


def test_an_estimate_makes_no_run(taught: Path, teacher_ids: list[str]) -> None:
    before = sorted(path.name for path in taught.iterdir())
    result = command(taught, "recycle", *teacher_ids, "--ways", "3", "--estimate", "--json")
    assert result.exit_code == 0, result.output
    estimate = json.loads(result.stdout)
    assert estimate["classes"] == 7
    assert estimate["minutes"] >= 0
    assert sorted(path.name for path in taught.iterdir()) == before


def test_predict_refuses_a_recycle_in_a_sentence(recycled: Path) -> None:
    refused = command(recycled.parent, "predict", recycled.name, "--text", "great")
    assert refused.exit_code == 2
    assert "is a recycle run; give a run that was trained" in refused.output


def test_a_file_of_a_new_task_is_the_test(taught: Path, teacher_ids: list[str], tmp_path: Path) -> None:
    rows = [{"text": f"{word} the {index}", "label": word} for word in ("lovely", "dull", "end") for index in range(9)]
    file = write_csv(tmp_path / "new.csv", rows)
    result = command(
        taught,
        "recycle",
        *teacher_ids,
        "--ways",
        "2",
        "--shots",
        "1",
        "--episodes",
        "2",
        "--iterations",
        "4",
        "--inputs",
        "4",
        "--tokens",
        "4",
        "--test-episodes",
        "6",
        "--test",
        str(file),
    )
    assert result.exit_code == 0, result.output
    assert "3 classes of new.csv (given with --test, not checked against the teachers' data)" in result.stdout
    small = write_csv(tmp_path / "small.csv", rows[:9])
    refused = command(taught, "recycle", *teacher_ids, "--ways", "2", "--shots", "1", "--test", str(small), "--json")
    assert refused.exit_code == 1
    failed = json.loads(refused.stdout)
    assert "test small.csv: has too few classes" in failed["error"]
    assert open_run(taught / failed["id"]).summary["step"] == 0
    missing = command(taught, "recycle", *teacher_ids, "--test", str(tmp_path / "none.csv"))
    assert missing.exit_code == 2
    assert "none.csv: does not exist" in missing.output


def test_a_text_that_is_repeated_in_a_test_file_counts_once(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in (("a", "x"), ("b", "y"), ("a ", "x"), ("b", "x"))]
    file = write_csv(tmp_path / "new.csv", rows)
    assert texts_of_file(file).texts == ["a", "b", "a ", "b"]
    with pytest.raises(DataError, match=r"^--test bad\.csv: has no column label; rename one to label \(text, kind\)"):
        texts_of_file(write_csv(tmp_path / "bad.csv", [{"text": "a", "kind": "x"}]), once=True)
    once = texts_of_file(file, once=True)
    assert (once.texts, once.label.tolist(), once.classes) == (["a", "b"], [0, 1], ["x", "y"])


def test_the_average_counts_a_teacher_that_left_a_module_as_it_was(
    taught: Path, teacher_ids: list[str], backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of each teacher, its base where it adapts nothing, are averaged by hand."""
    part = train_teacher(tmp_path / "runs", backbone, TASKS[2], 9, targets=["query", "value"])
    materials = Materials.load(settings_of([teacher_ids[0], str(part)]), taught)
    averaged, weights = AveragedSources(), []
    for index in range(2):
        model = materials.teacher(index)
        averaged.add(model)
        backbone_of: Any = model.base.model
        weights.append(dict(backbone_of.base_model.named_parameters()))
    layers: dict[str, Any] = {module.info.name: module.base_layer for module in materials.meta.adapters}
    monkeypatch.setattr(
        materials.meta, "text_features", lambda texts: {name: of.weight.clone() for name, of in layers.items()}
    )
    before = {name: of.weight.clone() for name, of in layers.items()}
    features: Any = averaged_features(averaged, materials.meta, [])
    assert any("intermediate" in name for name in features), "a module that one teacher alone adapts"
    for name, weight in features.items():
        mean = (weights[0][f"{name}.weight"] + weights[1][f"{name}.weight"]) / 2
        assert torch.allclose(weight, mean, atol=1e-6), name
        assert torch.equal(layers[name].weight, before[name]), "they are put back"


def test_shots_that_leave_no_question_are_one_sentence(teacher_ids: list[str]) -> None:
    with pytest.raises(ConfigError, match="leaves no question among the 5 synthetic inputs"):
        RecycleSettings.parse({"teachers": teacher_ids, "shots": [5], "inputs": 5})
