"""The student for others: an adapter that PEFT loads as CAUSAL_LM, or a plain transformers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora import assets
from dynlora.engine.evaluation.export import export_merged, export_peft
from dynlora.engine.evaluation.inference import merge
from dynlora.errors import ConfigError
from dynlora.inference.load import load_run
from dynlora.kinds.distil.settings import NOT_RECYCLE, DistilSettings
from dynlora.kinds.registry import kind_of_run
from dynlora.training.staged_folder import staged

CARD = """# {name}

The student of {teachers} adapters of `{base}`. {what}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
{load}

tokenizer = AutoTokenizer.from_pretrained("{folder}")
batch = tokenizer("a text", return_tensors="pt")
print(tokenizer.decode(model.generate(**batch, max_new_tokens=64)[0]))
```
"""

LOAD = {
    "peft": "from peft import PeftModel\n\n"
    'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{folder}").eval()',
    "merged": '\nmodel = AutoModelForCausalLM.from_pretrained("{folder}").eval()',
}
"""Lines that load each format."""


def export_student(folder: Path, out: Path, format: str = "peft") -> dict[str, Any]:
    """Write the student of a distillation; nothing is left at `out` unless all could be written.

    Args:
        folder: of the run.
        out: a new or empty folder, or a new file that ends in .zip.
        format: peft or merged.

    Raises:
        ConfigError: when the format is unknown, the run kept no student, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    if format not in LOAD:
        raise ConfigError(f"--format {format}: must be one of {', '.join(LOAD)}")
    settings, config, model = DistilSettings.of_run(folder), kind_of_run(folder).model_config(folder), load_run(folder)
    parameters = model.adapters.adapter_parameter_count()["active"]
    base = assets.shared_model_name(config.model.name)
    with staged(out) as staging:
        if format == "peft":
            export_peft(model, staging, base, config.adapter.lora_alpha, config.adapter.rank, config.model.layers)
        else:
            merge(model)
            export_merged(model, staging)
        load = LOAD[format].format(base=base, folder=out.name)
        card = CARD.format(
            name=settings.title(),
            teachers=len(set(settings.teachers)),
            base=base,
            what=NOT_RECYCLE,
            load=load,
            folder=out.name,
        )
        (staging / "README.md").write_text(card, "utf-8")
    return {"folder": str(out), "format": format, "parameters": parameters, "method": settings.method}
