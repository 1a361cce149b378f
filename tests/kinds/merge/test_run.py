"""A whole merge: measured on every source's data, killed and resumed bit for bit, used, exported, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoModelForCausalLM

from dynlora import open_run
from dynlora.errors import ConfigError
from dynlora.inference.session import evaluate_run, load_run
from dynlora.jobs import launch
from dynlora.kinds.merge.kind import MergeKind
from dynlora.kinds.merge.result import Merge
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.merge.work.run import resume
from dynlora.kinds.run_kind import kind_of_run
from dynlora.store.writer import RunWriter
from tests.kinds.recycle.conftest import TASKS, train_teacher
from tests.kinds.test_settings import trained
from tests.kinds.work import command, meta_of, work


def settings_of(sources: list[str], **values: Any) -> MergeSettings:
    return MergeSettings.parse({"sources": sources, **values})


def merged(runs: Path, sources: list[str], **values: Any) -> Path:
    outcome = work(settings_of(sources, **values), runs)
    assert outcome.state == "finished", outcome.error
    return outcome.folder


@pytest.fixture(scope="module")
def finished(writers: Path, writer_ids: list[str]) -> Path:
    """Return the folder of a merge of three runs that write, of ranks 2, 3 (with gates) and 4."""
    return merged(writers, writer_ids)


@pytest.fixture(scope="module")
def classified(taught: Path, teacher_ids: list[str]) -> Path:
    """Return the folder of a merge of three classifiers with heads of their own."""
    return merged(taught, teacher_ids, method="ties", budget=0.5)


def test_the_record_says_what_it_is_made_of(finished: Path, writer_ids: list[str]) -> None:
    meta, result = meta_of(finished), Merge.read(finished)
    assert (meta["kind"], meta["strategy"], meta["task"]) == ("merge", "merge_stack", "causal_lm")
    assert [source.run for source in result.sources] == writer_ids
    assert [source.rank for source in result.sources] == [2, 3, 4]
    assert result.weights == (pytest.approx(1 / 3),) * 3
    modules = len(result.ranks)
    assert [(stage.name, stage.last) for stage in result.stages] == [("modules", modules), ("test", modules + 3)]
    parameters = [source["parameters"] for source in meta["merge"]["sources"]]
    assert result.budget == max(parameters), "the usual budget is that of the largest adapter"
    assert result.of == sum(parameters)
    assert 0.8 * result.budget < result.parameters <= result.budget
    assert len({row.merge for row in result.ranks}) > 1, "modules get ranks of their own"
    assert result.ranks[0].sources[::2] == (2, 4)
    assert len(meta["merge_results"]["notes"]) == 1
    assert "gates" in meta["merge_results"]["notes"][0]


def test_each_source_is_measured_beside_its_own_adapter_and_the_base(finished: Path, writer_ids: list[str]) -> None:
    results = meta_of(finished)["merge_results"]
    assert list(results["loss"]) == writer_ids
    for run, by_model in results["loss"].items():
        assert set(by_model) == {"merge", "own", "base"}
        recorded = evaluate_run(finished.parent / run)["metrics"]["loss"]
        assert by_model["own"]["mean"] == pytest.approx(recorded, rel=1e-5), "its own adapter with its gates"
        for other in ("own", "base"):
            gap = results[f"against_{other}"][run]["merge"]
            assert gap["mean"] == pytest.approx(by_model["merge"]["mean"] - by_model[other]["mean"])
            assert gap["low"] <= gap["mean"] <= gap["high"]
            assert gap["texts"] == 12
        assert by_model["merge"]["mean"] < by_model["base"]["mean"], "a merge knows something of each"


def test_one_adapter_twice_with_the_whole_budget_is_that_adapter(
    decoder: Path, tmp_path: Path, writers: Path, writer_ids: list[str]
) -> None:
    copy = tmp_path / "twin"
    shutil.copytree(writers / writer_ids[0], copy)
    folder = merged(writers, [writer_ids[0], str(copy)], rows=6)
    result = Merge.read(folder)
    assert {row.merge for row in result.ranks} == {2}
    for row in result.against_own:
        assert row.mean == pytest.approx(0, abs=1e-5)
    one, other = load_run(folder), load_run(writers / writer_ids[0])
    for ours, theirs in zip(one.adapters, other.adapters, strict=True):
        torch.testing.assert_close(ours.delta_weight(), theirs.delta_weight(), atol=1e-6, rtol=1e-4)
    shutil.rmtree(folder)


def test_the_command_merges(writers: Path, writer_ids: list[str]) -> None:
    options = ("--method", "dare", "--weights", "0.5,0.3,0.2", "--density", "0.9", "--rows", "6")
    document = json.loads(command(writers, "merge", *writer_ids, *options, "--json").stdout)
    assert (document["method"], document["status"], list(document["loss"])) == ("dare", "finished", writer_ids)
    settings = MergeSettings.of_run(writers / document["id"])
    assert (settings.weights, settings.kept_share) == ((0.5, 0.3, 0.2), 0.9)
    shutil.rmtree(writers / document["id"])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_a_merge_of_runs_that_write_is_exported_for_peft(
    finished: Path, writers: Path, decoder: Path, tmp_path: Path
) -> None:
    model = open_run(finished).load()
    assert json.loads(command(writers, "predict", finished.name, "--text", "ab", "--json").stdout)
    for format_ in ("peft", "merged"):
        result = command(writers, "export", finished.name, "--out", str(tmp_path / format_), "--format", format_)
        assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert len(set(config["rank_pattern"].values())) > 1
    assert config["rank_pattern"] == config["alpha_pattern"], "scaling is 1 whatever the rank"
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        ours = model.base.model(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(decoder), tmp_path / "peft")
        torch.testing.assert_close(theirs(input_ids=ids).logits, ours, atol=1e-5, rtol=1e-5)
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(whole(input_ids=ids).logits, ours, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_a_merge_of_classifiers_is_exported_without_a_head(
    classified: Path, taught: Path, backbone: Path, tmp_path: Path
) -> None:
    result = Merge.read(classified)
    assert result.head == "own"
    assert any("heads of the sources differ" in note for note in result.notes)
    assert {row.source for row in result.loss} == {source.run for source in result.sources}
    model = kind_of_run(classified).load(classified)
    for format_ in ("peft", "merged"):
        result = command(taught, "export", classified.name, "--out", str(tmp_path / format_), "--format", format_)
        assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("FEATURE_EXTRACTION", [])
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        ours = model.base.model(input_ids=ids).last_hidden_state
        plain = AutoModel.from_pretrained(backbone).eval()
        assert (plain(input_ids=ids).last_hidden_state - ours).abs().max() > 1e-3
        theirs = PeftModel.from_pretrained(plain, tmp_path / "peft").eval()
        torch.testing.assert_close(theirs(input_ids=ids).last_hidden_state, ours, atol=1e-5, rtol=1e-5)
        whole = AutoModel.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(whole(input_ids=ids).last_hidden_state, ours, atol=1e-5, rtol=1e-5)


def test_a_merge_without_a_head_does_not_answer(classified: Path, taught: Path) -> None:
    kind = MergeKind()
    assert (classified / "adapter").is_dir()
    assert not kind.has_model(classified)
    assert kind.usage(classified.name, taught) == ""
    result = command(taught, "predict", classified.name, "--text", "a film")
    assert (result.exit_code, "has no head to predict with; export it, or give one of its runs" in result.stderr) == (
        2,
        True,
    )


def test_equal_heads_stay_with_the_merge(taught: Path, teacher_ids: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "twin"
    shutil.copytree(taught / teacher_ids[0], copy)
    folder = merged(taught, [teacher_ids[0], str(copy)], rows=4)
    assert Merge.read(folder).head == "equal"
    one, other = (load_run(path).answers(["film great"])[0] for path in (folder, copy))
    assert one["prediction"] == other["prediction"]
    assert MergeKind().has_model(folder)
    result = command(taught, "export", folder.name, "--out", str(tmp_path / "peft"))
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
    shutil.rmtree(folder)


def test_data_that_is_gone_leaves_out_its_losses_and_gates_count_as_one(
    writers: Path, writer_ids: list[str], tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    shutil.copytree(writers / writer_ids[1], gone)
    config = gone / "config.yaml"
    config.write_text(config.read_text("utf-8").replace("texts-1", "texts-gone"), "utf-8")
    folder = merged(writers, [writer_ids[0], str(gone)], rows=4)
    results = meta_of(folder)["merge_results"]
    assert list(results["loss"]) == writer_ids[:1]
    assert any("the data of source gone cannot be read" in note for note in results["notes"])
    assert "the gates of source gone count as one in the merge: its data cannot be read" in results["notes"]
    shutil.rmtree(folder)


def refusal(runs: Path, sources: list[str], **values: Any) -> str:
    before = sorted(path.name for path in runs.iterdir())
    with pytest.raises(ConfigError) as caught:
        work(settings_of(sources, **values), runs)
    assert sorted(path.name for path in runs.iterdir()) == before, "no folder is left"
    return str(caught.value)


def test_what_makes_no_sense_is_refused_in_a_sentence(
    finished: Path, writers: Path, writer_ids: list[str], taught: Path, teacher_ids: list[str]
) -> None:
    one, other = writer_ids[:2]
    assert f"sources {one}: is one run; give two or more" in refusal(writers, [one])
    assert f"sources {one}: is given twice" in refusal(writers, [one, one])
    assert "weights 1,2,3: are 3 for 2 runs; give one for each" in refusal(writers, [one, other], weights="1,2,3")
    assert "weights" in refusal(writers, [one, other], weights="1,x")
    assert "density 0.3: is for method ties or dare; leave it out" in refusal(writers, [one, other], density=0.3)
    assert "budget 5: holds 5 parameters, fewer than one component" in refusal(writers, [one, other], budget=5)
    assert "is a merge run; give a run that trained an adapter" in refusal(writers, [one, finished.name])
    assert "give runs of one base model" in refusal(writers, [one, str(taught / teacher_ids[0])])


def test_blocks_tasks_and_states_that_do_not_fit_are_refused(
    tmp_path: Path, backbone: Path, taught: Path, teacher_ids: list[str]
) -> None:
    fewer = train_teacher(tmp_path / "runs", backbone, TASKS[0], 0, layers=1)
    message = refusal(taught, [teacher_ids[0], str(fewer)])
    assert f"source {fewer.name}: adapts the first" in message
    assert message.endswith("give runs of one base model")
    runs = tmp_path / "written"
    runs.mkdir()
    first, second = (trained(runs, task=task) for task in ("causal_lm", "regression"))
    assert f"source {second}: learned regression, and {first} learned causal_lm; give runs of one kind" in refusal(
        runs, [first, second]
    )
    facts = {"name": "a", "task": "causal_lm", "model": "m", "config": {"model": {"name": "m"}}}
    waiting = RunWriter.create(runs, config_yaml="", meta=facts, max_steps=4)
    (waiting / "adapter").mkdir()
    assert "let it finish, or give another run" in refusal(runs, [first, waiting.name])


def test_the_command_puts_a_merge_in_the_queue(
    writers: Path, writer_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "wake", lambda root: None)
    queued = json.loads(command(writers, "merge", *writer_ids[:2], "--queue", "--json").stdout)
    folder = writers / queued["id"]
    assert (queued["status"], open_run(folder).status) == ("queued", "queued")
    assert resume(folder).state == "finished"
    shutil.rmtree(folder)
