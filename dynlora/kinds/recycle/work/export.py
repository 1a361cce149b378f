"""The meta-LoRA for others: an adapter that PEFT loads for feature extraction, and how its features are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dynlora import assets, strategies
from dynlora.engine.evaluation.export import AdapterFacts, peft_adapter, uniform_adapter, uniform_peft, write_peft
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.hardware import autocast_context
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.few_shot import load_meta
from dynlora.peft_adapter.forms import UNIFORM, Form
from dynlora.store.meta import section, text
from dynlora.store.reader import RunReader
from dynlora.training.folder_work import staged

CARD = """# {name}

A meta-LoRA of dynlora (`dynlora recycle`): features for few-shot classification by prototypes, without training.

```python
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = PeftModel.from_pretrained(AutoModel.from_pretrained("{base}"), "{folder}").eval()
batch = tokenizer(["a text"], padding=True, truncation=True, max_length={length}, return_tensors="pt")
with torch.no_grad():
    hidden = model(**batch).last_hidden_state
{pooling}
```

The prototype of a class is the mean of the features of its examples. A text belongs to the class whose prototype has
the smallest squared Euclidean distance.
"""

POOLING = {
    "mean": 'mask = batch["attention_mask"].unsqueeze(-1)\nfeatures = (hidden * mask).sum(1) / mask.sum(1)',
    "last": 'last = batch["attention_mask"].sum(1) - 1  # of texts that are padded on the right\n'
    "features = hidden[torch.arange(len(hidden)), last]",
}


def export_meta(folder: Path, out: Path, form: Form) -> dict[str, Any]:
    """Write the meta-LoRA of a recycle as PEFT loads it; nothing is left at `out` unless all could be written.

    Args:
        folder: of the run.
        out: a new or empty folder, or a new file that ends in .zip.
        form: in PEFT's format.

    Raises:
        ConfigError: when the run kept no meta-LoRA, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    settings, run = RecycleSettings.of_run(folder), load_meta(folder)
    with RunReader(folder) as reader:
        name = text(section(reader.meta().get("config"), "model").get("name")) or ""
    base = assets.shared_model_name(name)
    model = AdaptedModel(
        run.model.base,
        run.model.adapters,
        strategies.build("lora", {}),
        run.model.base.task,
        run.model.max_length,
        autocast_context("fp32", torch.device("cpu")),
    )
    facts = AdapterFacts(base, settings.lora_alpha, settings.rank, title=settings.title())
    if form.ranks == UNIFORM:
        tensors, config = uniform_peft(model, uniform_adapter(model), facts)
    else:
        tensors, config = peft_adapter(model, facts)
    config |= {"task_type": "FEATURE_EXTRACTION", "modules_to_save": None}
    with staged(out) as staging:
        write_peft(model, staging, tensors, config)
        card = CARD.format(
            name=settings.title(),
            base=base,
            folder=out.name,
            length=run.model.max_length,
            pooling=POOLING[run.model.pooling],
        )
        (staging / "README.md").write_text(card, "utf-8")
    written = {"folder": str(out), "format": form.format, "form": form.name}
    return {**written, "pooling": run.model.pooling, "parameters": _count(tensors)}


def _count(tensors: dict[str, Any]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
