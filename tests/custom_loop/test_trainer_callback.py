"""A strategy in the loop of transformers' Trainer and TRL's: ranks move, checkpoints hold them, misuse is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

import dynlora
from dynlora.api import Attached
from dynlora.errors import ConfigError, NotMergeableError
from tests.custom_loop.test_attached import MOVES, classifier, logits
from tests.tiny_lm import byte_tokenizer, tiny_decoder

STEPS = 12


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Random tokens with a label that the first of them tells."""

    def __init__(self, n: int = 48) -> None:
        self.ids = torch.randint(5, 20, (n, 6), generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": int(ids[0] > 10)}


def attached_to(model: Any, **options: Any) -> Attached:
    """Attach with ranks that move often."""
    given: dict[str, Any] = {"strategy": "dynamic", "gates": "off", "budget": 3, "steps": STEPS, "lr": 1e-2}
    return dynlora.attach(model, **{**MOVES, **given, **options})


def arguments(folder: Path, **options: Any) -> dict[str, Any]:
    """Return settings of a short run on the processor."""
    return {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "save_steps": 6,
        "logging_steps": 4,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 3,
        "dataloader_pin_memory": False,
        **options,
    }


def trainer_of(attached: Attached, folder: Path, callbacks: list[Any] | None = None, **options: Any) -> Any:
    """Return a Trainer with the attached optimizer."""
    from transformers import Trainer, TrainingArguments

    return Trainer(
        attached.model,
        TrainingArguments(**arguments(folder, **options)),
        train_dataset=Rows(),
        eval_dataset=Rows(16),
        optimizers=(attached.optimizer, None),
        callbacks=[attached.callback()] if callbacks is None else callbacks,
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_from_its_checkpoint_it_ends_as_if_it_had_not_been(
    tiny_bert: Path, tmp_path: Path, accumulate: int
) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": accumulate}
    whole = attached_to(classifier(tiny_bert), dropout=0.1)
    trainer_of(whole, tmp_path, **options).train()
    assert whole.index == STEPS
    assert len(set(whole.adapters.ranks)) > 1, "ranks moved"

    again = attached_to(classifier(tiny_bert), dropout=0.1)
    trainer_of(again, tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert again.adapters.ranks == whole.adapters.ranks
    assert torch.equal(logits(again.model), logits(whole.model))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # PEFT asks the old name
def test_a_checkpoint_holds_the_adapter_as_peft_loads_it_and_training_is_as_without(
    tiny_bert: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    rows = [Rows()[index] for index in range(8)]
    batch = {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "attention_mask")}
    gated: dict[str, Any] = {"gates": "module", "calibration": [batch], "dropout": 0.1}
    attached = attached_to(classifier(tiny_bert), **gated)
    trainer_of(attached, tmp_path, callbacks=[attached.callback()], save_steps=STEPS).train()
    checkpoint = tmp_path / f"checkpoint-{STEPS}"
    assert not [path for path in checkpoint.iterdir() if path.name.startswith(".")]
    loaded: Any = PeftModel.from_pretrained(classifier(tiny_bert), checkpoint)
    exported: Any = PeftModel.from_pretrained(classifier(tiny_bert), attached.export(tmp_path / "adapter"))
    assert torch.equal(logits(loaded), logits(exported))
    assert len(set(attached.adapters.ranks)) > 1, "ranks moved"

    plain = attached_to(classifier(tiny_bert), **gated)
    trainer_of(plain, tmp_path / "plain", save_strategy="no").train()
    assert torch.equal(logits(plain.model), logits(attached.model))


def test_where_peft_has_no_form_for_the_update_a_checkpoint_says_so_once(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached = attached_to(classifier(tiny_bert))

    def refused(*_: object) -> Path:
        raise NotMergeableError("this method's update has no form in PEFT")

    monkeypatch.setattr(type(attached), "export", refused)
    with pytest.warns(UserWarning, match="checkpoint-6 holds no adapter for PEFT, and training continues") as warned:
        trainer_of(attached, tmp_path).train()
    assert len([one for one in warned if "no adapter for PEFT" in str(one.message)]) == 1
    assert attached.index == STEPS
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*/dynlora")) == ["dynlora", "dynlora"]


@pytest.mark.parametrize(("world_size", "n_gpu"), [(2, 1), (1, 2)])
def test_several_devices_are_refused_in_a_sentence(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int, n_gpu: int
) -> None:
    from transformers import TrainingArguments

    attached = attached_to(classifier(tiny_bert))
    args, state = trainer_of(attached, tmp_path).args, TrainerState(max_steps=STEPS)
    monkeypatch.setattr(TrainingArguments, "world_size", world_size)
    monkeypatch.setattr(TrainingArguments, "n_gpu", n_gpu)
    with pytest.raises(ConfigError, match="2 devices would decide each for itself; use one, or") as refused:
        attached.callback().on_train_begin(args, state, TrainerControl(), optimizer=attached.optimizer)
    assert "\n" not in str(refused.value)


def test_the_best_checkpoint_brings_its_ranks(tiny_bert: Path, tmp_path: Path) -> None:
    attached = attached_to(classifier(tiny_bert))
    trainer = trainer_of(
        attached,
        tmp_path,
        load_best_model_at_end=True,
        eval_strategy="steps",
        eval_steps=6,
        lr_scheduler_type="constant",
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    other = attached_to(classifier(tiny_bert))
    other.load(best / "dynlora")
    assert attached.index == other.index == trainer.state.best_global_step
    assert attached.adapters.ranks == other.adapters.ranks
    assert torch.equal(logits(attached.model), logits(other.model))


def test_an_optimizer_without_its_callback_is_noticed(tiny_bert: Path, tmp_path: Path) -> None:
    attached = attached_to(classifier(tiny_bert))
    with pytest.warns(UserWarning, match=r"no rank moves.*callbacks=\[attached\.callback\(\)\]"):
        trainer_of(attached, tmp_path, []).train()


@pytest.mark.parametrize(
    ("attach", "trainer", "message"),
    [
        ({}, {"max_steps": 5}, rf"attach\(steps={STEPS}\): the Trainer takes 5 steps"),
        ({"strategy": "adalora"}, {}, "adds a penalty to the loss"),
        ({}, {"optimizers": (None, None)}, r"give optimizers=\(attached\.optimizer, None\)"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    tiny_bert: Path, tmp_path: Path, attach: dict[str, Any], trainer: dict[str, Any], message: str
) -> None:
    attached = dynlora.attach(classifier(tiny_bert), **{"strategy": "lora", "budget": 3, "steps": STEPS, **attach})
    theirs = trainer_of(attached, tmp_path, **{name: value for name, value in trainer.items() if name != "optimizers"})
    if "optimizers" in trainer:
        theirs.optimizer = None  # as where it was given none: the Trainer makes its own
    with pytest.raises(ConfigError, match=message):
        theirs.train()
    assert attached.index == 0


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # PEFT and TRL ask the old name
def test_trl_trains_a_decoder_and_peft_loads_it(tmp_path: Path) -> None:
    from datasets import Dataset
    from peft import PeftModel
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    attached = attached_to(tiny_decoder(), steps=6, warmup_steps=1, allocate_every=2, final_steps=1)
    rows = Dataset.from_list([{"prompt": f"{letter}:", "completion": letter * 3} for letter in "abcdefgh"])
    settings = SFTConfig(
        **arguments(tmp_path / "run", max_steps=6, save_strategy="no"),
        max_length=32,
        bf16=False,
    )
    model: Any = attached.model
    SFTTrainer(
        model,
        settings,
        train_dataset=rows,
        processing_class=byte_tokenizer(),
        optimizers=(attached.optimizer, None),
        callbacks=[attached.callback()],
    ).train()
    assert attached.index == 6
    assert len(set(attached.adapters.ranks)) > 1
    loaded = PeftModel.from_pretrained(tiny_decoder(), attached.export(tmp_path / "adapter")).eval()
    ids = torch.randint(5, 200, (4, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = attached.model.eval()(input_ids=ids).logits, loaded(input_ids=ids).logits
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
