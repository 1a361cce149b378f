"""Trains a recorded PEFT run as one of several processes: `python -m torch.distributed.run ... -m` this module.

Arguments: folder of the base model, runs folder, folder of the Trainer, rows of a batch in each process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dynlora.integrations.transformers import RecordCallback
from tests.custom_loop.test_trainer_callback import Rows, arguments
from tests.integrations.test_record_callback import adapted

STEPS = 4


def main(base: Path, runs_dir: Path, folder: Path, rows: int) -> None:
    """Train twice: with the loss averaged over tokens by the Trainer, which is its default, and without."""
    from transformers import Trainer, TrainingArguments

    for name, averages in (("as it is", True), ("each by itself", False)):
        model = adapted(base)
        for module in model.modules():
            if hasattr(module, "p") and hasattr(module, "inplace"):
                module.p = 0.0  # dropout draws for each process by itself
        settings = arguments(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=rows,
            save_strategy="no",
            max_grad_norm=0,
            average_tokens_across_devices=averages,
            lr_scheduler_type="constant",
            learning_rate=1e-3,
        )
        callback = RecordCallback(name, runs_dir, every=1, keep_adapter=False)
        Trainer(model, TrainingArguments(**settings), train_dataset=Rows(), callbacks=[callback]).train()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
