"""Dynamic LoRA in the loop of transformers' Trainer: the optimizer and a callback, the rest stays as it was.

Run it: python examples/trainer.py
"""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import dynlora

STEPS = 40


class Rows(Dataset[dict[str, Tensor]]):
    """Sequences of random tokens; the label says whether the first of them is large."""

    def __init__(self) -> None:
        """Draw them."""
        self.ids = torch.randint(5, 60, (256, 8), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one of them."""
        return {"input_ids": self.ids[index], "labels": (self.ids[index, 0] > 32).long()}


def main() -> list[int]:
    """Train a small random BERT and return the ranks at the end."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    model = BertForSequenceClassification(config)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=16,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            dataloader_pin_memory=False,
            use_cpu=True,
        )
        attached = dynlora.attach(model, strategy="dynamic", budget=4, steps=STEPS, lr=1e-2, gates="off")
        Trainer(
            model,
            settings,
            train_dataset=Rows(),
            optimizers=(attached.optimizer, None),
            callbacks=[attached.callback()],
        ).train()
        attached.export(f"{folder}/adapter")  # peft.PeftModel.from_pretrained loads it
    return attached.adapters.ranks


if __name__ == "__main__":
    print("ranks of the modules:", main())
