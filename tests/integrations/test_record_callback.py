"""A PEFT run in transformers' Trainer is recorded step by step, and trains as it would without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import dynlora
from dynlora.cli.main import main
from dynlora.integrations.observed import WatchedLayers
from dynlora.integrations.transformers import RecordCallback
from dynlora.store import queries
from tests.custom_loop.test_attached import classifier
from tests.custom_loop.test_trainer_callback import STEPS, Rows, arguments
from tests.pages.app import RUN_PAGES, charts, open_page, words
from tests.pages.conftest import _dashboard
from tests.tiny_lm import byte_tokenizer, tiny_decoder

__all__ = ["_dashboard"]  # a fixture: pages see the runs folder of the test

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing:FutureWarning"
)  # PEFT and TRL ask the old name

TARGETS = ["query", "value", "intermediate.dense"]


def adapted(folder: Path, *, adalora: bool = False) -> Any:
    """The tiny BERT with PEFT's adapters."""
    from peft import AdaLoraConfig, LoraConfig, TaskType, get_peft_model

    usual: dict[str, Any] = {"task_type": TaskType.SEQ_CLS, "target_modules": TARGETS, "lora_alpha": 8}
    torch.manual_seed(4)
    if adalora:
        config: Any = AdaLoraConfig(
            init_r=4, target_r=2, tinit=1, tfinal=2, deltaT=1, total_step=STEPS, lora_dropout=0.0, **usual
        )
    else:
        config = LoraConfig(r=3, lora_dropout=0.1, **usual)
    return get_peft_model(classifier(folder), config)  # pyright: ignore


def trained(model: Any, folder: Path, callbacks: list[Any], **options: Any) -> Any:
    """Train with transformers' Trainer; return the model."""
    from transformers import Trainer, TrainingArguments

    settings = arguments(folder, **{"save_strategy": "no", "eval_strategy": "steps", "eval_steps": 6, **options})
    Trainer(
        model, TrainingArguments(**settings), train_dataset=Rows(), eval_dataset=Rows(16), callbacks=callbacks
    ).train()
    return model


def test_a_run_is_recorded_and_trains_as_without(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    plain = trained(adapted(tiny_bert), tmp_path / "a", [])
    callback = RecordCallback("mine", runs_dir, every=4)
    looked_at = trained(adapted(tiny_bert), tmp_path / "b", [callback])
    for (name, one), other in zip(plain.named_parameters(), looked_at.parameters(), strict=True):
        assert torch.equal(one, other), name

    assert callback.folder is not None
    run = dynlora.open_run(callback.folder)
    assert run.status == "finished"
    assert (run.summary["name"], run.summary["strategy"], run.summary["task"]) == ("mine", "lora", "classification")
    assert list(run.modules["kind"].unique()) == ["attention.self.query", "attention.self.value", "intermediate.dense"]
    importance = run.signal("importance").drop(columns="step")
    assert len(importance) == STEPS
    assert importance.sum(axis=1).to_numpy() == pytest.approx([0, *[1] * (STEPS - 1)], abs=1e-5), "B is zero at first"
    assert (run.signal("rank").drop(columns="step") == 3).all(axis=None)
    assert list(run.signal("delta_norm")["step"]) == [4, 8, 12]
    assert list(run.scalars("loss", "validation")["step"]) == [6, 12]
    assert list(run.scalars("loss", "train")["step"]) == [4, 8, 12]
    assert dict(queries.run_summary(callback.folder).scaling) == pytest.approx(
        {name: 8 / 3 for name in run.modules["name"]}
    )
    for name, norm in run.signal("delta_norm").drop(columns="step").iloc[-1].items():
        update = looked_at.get_base_model().get_submodule(name).get_delta_weight("default")
        assert norm == pytest.approx(update.norm().item(), rel=1e-4)
    for page in RUN_PAGES:
        assert "may be out of date" not in words(open_page(page, run=run.id)), page
    assert charts(open_page("capacity", run=run.id))


def test_ranks_of_adalora_are_its_masks_at_every_step(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    from transformers import TrainerCallback

    model = adapted(tiny_bert, adalora=True)
    masks: list[list[int]] = []

    class Allocates(TrainerCallback):
        """What PEFT asks of whoever trains AdaLoRA."""

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **of: Any) -> None:
            model.base_model.update_and_allocate(state.global_step + 1)
            layers = [module for name, module in model.named_modules() if hasattr(module, "lora_E")]
            masks.append([int((layer.lora_E["default"] != 0).sum()) for layer in layers])

    callback = RecordCallback("adalora", runs_dir)
    trained(model, tmp_path, [Allocates(), callback])
    assert callback.folder is not None
    ranks = dynlora.open_run(callback.folder).signal("rank")
    assert ranks[ranks["step"] > 0].drop(columns="step").astype(int).to_numpy().tolist() == masks
    assert len({tuple(row) for row in masks}) > 1, "it prunes"


def test_what_breaks_is_said_once_and_training_goes_on(
    tiny_bert: Path, tmp_path: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr("dynlora.integrations.observed.spectrum", broken)
    callback = RecordCallback("mine", runs_dir, every=2)
    with pytest.warns(UserWarning, match="records no more of 'mine', and training continues: no room") as warned:
        trained(adapted(tiny_bert), tmp_path, [callback])
    assert sum("records no more" in str(one.message) for one in warned) == 1
    callback.close()
    [run] = queries.list_runs(runs_dir)["id"]
    assert queries.run_summary(runs_dir / run).status == "interrupted"
    refused = CliRunner().invoke(main, ["resume", run, "--runs-dir", str(runs_dir)])
    assert (refused.exit_code, "trained by a script with transformers" in refused.stderr) == (2, True)

    with pytest.warns(UserWarning, match="no LoRA or AdaLoRA modules"):
        trained(classifier(tiny_bert), tmp_path / "plain", [RecordCallback("none", runs_dir)])


def test_a_resume_continues_the_run(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    from transformers import Trainer, TrainingArguments

    whole = RecordCallback("whole", runs_dir)
    trained(adapted(tiny_bert), tmp_path / "out", [whole], save_strategy="steps", save_steps=6)
    assert whole.folder is not None
    before = dynlora.open_run(whole.folder).signal("importance")
    again = RecordCallback("whole", runs_dir)
    settings = arguments(tmp_path / "out", eval_strategy="steps", eval_steps=6)
    Trainer(
        adapted(tiny_bert),
        TrainingArguments(**settings),
        train_dataset=Rows(),
        eval_dataset=Rows(16),
        callbacks=[again],
    ).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
    assert again.folder == whole.folder
    assert len(queries.list_runs(runs_dir)) == 1
    run = dynlora.open_run(whole.folder)
    assert run.status == "finished"
    assert run.signal("importance").equals(before), "nothing doubles, nothing is lost, and it trains as it did"


def test_trl_is_recorded_too(tmp_path: Path, runs_dir: Path) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = Dataset.from_list([{"prompt": f"{letter}:", "completion": letter * 3} for letter in "abcdefgh"])
    settings = SFTConfig(**arguments(tmp_path, max_steps=4, save_strategy="no"), max_length=32, bf16=False)
    callback = RecordCallback("talks", runs_dir)
    model: Any = tiny_decoder()
    SFTTrainer(
        model,
        settings,
        train_dataset=rows,
        processing_class=byte_tokenizer(),
        callbacks=[callback],
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    ).train()
    assert callback.folder is not None
    run = dynlora.open_run(callback.folder)
    assert (run.status, run.summary["task"], len(run.modules)) == ("finished", "causal_lm", 4)
    assert len(run.signal("importance")) == 4


def test_every_layer_of_a_full_fine_tuning_is_recorded_and_changes_nothing(
    tiny_bert: Path, tmp_path: Path, runs_dir: Path
) -> None:
    options = {"learning_rate": 1e-4}
    plain = trained(frozen_below(classifier(tiny_bert)), tmp_path / "a", [], **options)
    callback = RecordCallback("full", runs_dir, every=6, modules="linear")
    start = {name: one.detach().clone() for name, one in classifier(tiny_bert).named_parameters()}
    model = trained(frozen_below(classifier(tiny_bert)), tmp_path / "b", [callback], **options)
    for (name, one), other in zip(plain.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert callback.folder is not None
    run = dynlora.open_run(callback.folder)
    assert (run.summary["strategy"], run.status) == ("full", "finished")
    layers = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    assert list(run.modules["name"]) == layers
    updates, gradients = run.signal("delta_norm").iloc[-1], run.signal("grad_norm").iloc[-1]
    for name in layers:
        weight = model.get_submodule(name).weight
        moved = float((weight.detach() - start[f"{name}.weight"]).norm())
        assert updates[name] == pytest.approx(moved, rel=1e-4)
        assert (gradients[name] > 0) == (moved > 0) == weight.requires_grad


def frozen_below(model: Any) -> Any:
    """Freeze the first block."""
    for parameter in model.bert.encoder.layer[0].parameters():
        parameter.requires_grad_(False)
    return model


def test_the_update_of_a_large_layer_is_estimated() -> None:
    layer = torch.nn.Linear(600, 500)
    watched = WatchedLayers(torch.nn.Sequential(layer))
    moved = torch.randn(500, 600, generator=torch.Generator().manual_seed(2)).pow(3)
    with torch.no_grad():
        layer.weight.add_(moved)
    watched.before_step()
    [norm] = watched.after_step(due=True)["delta_norm"].tolist()
    assert norm == pytest.approx(float(moved.norm()), rel=0.05)
