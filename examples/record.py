"""A PEFT run of one's own in transformers' Trainer, recorded for the dashboard with two lines.

Run it: python examples/record.py, then `dynlora ui`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from dynlora.integrations.transformers import RecordCallback


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


def main(runs_dir: str = "runs") -> Path | None:
    """Train a small random BERT with PEFT's LoRA and return the folder of the recorded run."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value", "intermediate.dense"])
    model = get_peft_model(BertForSequenceClassification(config), lora)
    callback = RecordCallback("my PEFT run", runs_dir)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=40,
            per_device_train_batch_size=16,
            learning_rate=1e-2,
            logging_steps=5,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            dataloader_pin_memory=False,
            use_cpu=True,
        )
        Trainer(model, settings, train_dataset=Rows(), callbacks=[callback]).train()
    return callback.folder


if __name__ == "__main__":
    print("recorded:", main())
