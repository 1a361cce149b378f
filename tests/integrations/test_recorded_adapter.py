"""A recorded run leaves its adapter: exported, compressed, and ablated in the loop that trained it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import dynlora
from dynlora.errors import ConfigError
from dynlora.integrations.transformers import RecordCallback
from dynlora.store.measurements import KNOCKOUT_NAME, Knockouts
from dynlora.store.summary import ADAPTER_DIR
from tests.command_line import document, run
from tests.custom_loop.test_attached import classifier
from tests.custom_loop.test_trainer_callback import Rows, arguments
from tests.integrations.test_record_callback import adapted, trained
from tests.tiny_lm import byte_tokenizer, tiny_decoder

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing:FutureWarning"
)  # PEFT and TRL ask the old name


def recorded(tiny_bert: Path, folder: Path, runs_dir: Path, *, adalora: bool = False, **how: Any) -> tuple[Any, Path]:
    """Train and record; return the model and the folder of the run."""
    callback = RecordCallback("mine", runs_dir, **how)
    model = trained(adapted(tiny_bert, adalora=adalora), folder, [callback])
    assert callback.folder is not None
    return model, callback.folder


def logits(model: Any, rows: int = 16) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.stack([Rows(rows)[i]["input_ids"] for i in range(rows)])).logits


def test_the_adapter_is_what_was_trained(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    from peft import PeftModel

    model, folder = recorded(tiny_bert, tmp_path / "out", runs_dir)
    exported = tmp_path / "exported"
    export = document(run(runs_dir, "export", folder.name, "--out", str(exported), "--json"))
    assert export["format"] == "peft"
    assert {file.suffix for file in exported.iterdir()} <= {".json", ".safetensors", ".md"}, "nothing is pickled"
    again = PeftModel.from_pretrained(classifier(tiny_bert), str(exported))  # pyright: ignore
    assert torch.equal(logits(model), logits(again))

    for command, words in (
        (["export", folder.name, "--format", "merged", "--out", str(tmp_path / "x")], "only its adapter is here"),
        (["compress", folder.name], "add --set data.path=FILE"),
    ):
        refused = run(runs_dir, *command)
        assert (refused.exit_code, words in refused.output) == (2, True)
    (tmp_path / "secret").write_text("secret", "utf-8")
    (folder / ADAPTER_DIR / "README.md").unlink(missing_ok=True)
    (folder / ADAPTER_DIR / "README.md").symlink_to(tmp_path / "secret")
    assert run(runs_dir, "export", folder.name, "--out", str(tmp_path / "x")).exit_code == 2
    assert not (tmp_path / "x").exists(), "neither a model that is not here nor what a link leads to"


@pytest.mark.slow
def test_it_is_compressed_with_the_rows_that_are_named(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, runs_dir: Path
) -> None:
    _, folder = recorded(tiny_bert, tmp_path / "out", runs_dir)
    rows = ["--set", f"data.path={tiny_data}", "--set", "data.max_length=16"]
    report = document(run(runs_dir, "compress", folder.name, *rows, "--curve", "--rows", "32", "--json"))
    assert report["full"]["parameters"] == sum(3 * cost for cost in _costs(folder))
    assert report["step"] == 12


def _costs(folder: Path) -> list[int]:
    modules = dynlora.open_run(folder).modules
    return (modules["d_in"] + modules["d_out"]).tolist()


@pytest.mark.parametrize("adalora", [False, True])
def test_an_ablation_is_what_zeroing_the_module_does(
    tiny_bert: Path, tmp_path: Path, runs_dir: Path, adalora: bool
) -> None:
    model, folder = recorded(tiny_bert, tmp_path / "out", runs_dir, adalora=adalora, ablate_rows=16)
    knockouts = Knockouts.read(folder / KNOCKOUT_NAME)
    assert knockouts is not None
    names = dynlora.open_run(folder).modules["name"].tolist()
    assert (knockouts.n_modules, knockouts.rows, knockouts.step) == (len(names), 16, 12)
    labels = torch.stack([torch.as_tensor(Rows(16)[i]["labels"]) for i in range(16)])
    whole = cross_entropy(logits(model), labels)
    assert knockouts.loss == pytest.approx(whole.item(), abs=1e-5)
    for index, name in enumerate(names):
        without = copy.deepcopy(model)
        factor = without.get_base_model().get_submodule(name).lora_B["default"]
        (factor if adalora else factor.weight).data.zero_()
        delta = (cross_entropy(logits(without), labels) - whole).item()
        assert knockouts.alone[index].delta == pytest.approx(delta, abs=1e-5)
        assert knockouts.alone[index].low <= delta + 1e-6
        assert knockouts.alone[index].high >= delta - 1e-6
    assert max(abs(effect.delta) for effect in knockouts.effects) > 0
    if not adalora:
        plain = trained(adapted(tiny_bert), tmp_path / "plain", [])
        assert torch.equal(logits(plain), logits(model)), "it changes no weight"


def test_without_an_evaluation_the_run_ends_all_the_same(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    callback = RecordCallback("mine", runs_dir, ablate_rows=8)
    with pytest.warns(UserWarning, match="no module was ablated, as the Trainer evaluated nothing"):
        trained(adapted(tiny_bert), tmp_path, [callback], eval_strategy="no")
    assert callback.folder is not None
    assert dynlora.open_run(callback.folder).status == "finished"
    assert (callback.folder / ADAPTER_DIR / "adapter_model.safetensors").is_file()


def test_trl_prefers_and_is_recorded(tmp_path: Path, runs_dir: Path) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    rows = Dataset.from_list(
        [{"prompt": f"{letter}:", "chosen": letter * 3, "rejected": "z" * 3} for letter in "abcdefgh"]
    )
    settings = DPOConfig(**arguments(tmp_path, max_steps=4, save_strategy="no"), max_length=32, bf16=False)
    callback = RecordCallback("prefers", runs_dir)
    model: Any = tiny_decoder()
    DPOTrainer(
        model,
        args=settings,
        train_dataset=rows,
        processing_class=byte_tokenizer(),
        callbacks=[callback],
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    ).train()
    assert callback.folder is not None
    record = dynlora.open_run(callback.folder)
    assert (record.status, len(record.modules)) == ("finished", 4)
    importance = record.signal("importance").drop(columns="step").to_numpy()
    assert importance.shape == (4, 4)
    assert np.isfinite(importance).all()
    assert importance[-1].sum() == pytest.approx(1, abs=1e-4)


def test_a_number_of_rows_below_zero_is_refused(runs_dir: Path) -> None:
    with pytest.raises(ConfigError, match="ablate_rows=-1: must be at least 0"):
        RecordCallback("mine", runs_dir, ablate_rows=-1)


def test_an_ablation_changes_no_weight(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    plain = trained(adapted(tiny_bert), tmp_path / "a", [])
    model, folder = recorded(tiny_bert, tmp_path / "b", runs_dir, ablate_rows=8)
    assert torch.equal(logits(plain), logits(model))
    assert dynlora.open_run(folder).status == "finished"
    kept = Knockouts.read(folder / KNOCKOUT_NAME)
    assert kept is not None
    assert kept.rows >= 8
