"""The student for others: an adapter that PEFT loads as CAUSAL_LM, or a plain transformers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora import assets
from dynlora.inference.export import write_adapter
from dynlora.inference.load import load_run
from dynlora.kinds.distil.settings import NOT_RECYCLE, DistilSettings
from dynlora.kinds.registry import kind_of_run
from dynlora.peft_adapter.forms import form_of
from dynlora.peft_adapter.serving_text import load_block
from dynlora.training.staged_folder import staged

CARD = """# {name}

The student of {teachers} adapters of `{base}`. {what}

{load}
"""

WRITE = """
tokenizer = AutoTokenizer.from_pretrained("{folder}")
batch = tokenizer("a text", return_tensors="pt")
print(tokenizer.decode(model.generate(**batch, max_new_tokens=64)[0]))"""

LOAD = {
    "peft": "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{folder}").eval()' + WRITE,
    "merged": "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    'model = AutoModelForCausalLM.from_pretrained("{folder}").eval()' + WRITE,
}
"""Lines that load each format."""


def export_student(folder: Path, out: Path, format: str = "peft") -> dict[str, Any]:
    """Write the student of a distillation; nothing is left at `out` unless all could be written.

    Args:
        folder: of the run.
        out: a new or empty folder, or a new file that ends in .zip.
        format: name of a form, see `peft_adapter.forms`.

    Raises:
        ConfigError: when the form is unknown, the run kept no student, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    form = form_of(format)
    settings, config, model = DistilSettings.of_run(folder), kind_of_run(folder).model_config(folder), load_run(folder)
    parameters = model.adapters.adapter_parameter_count()["active"]
    base = assets.shared_model_name(config.model.name)
    with staged(out) as staging:
        write_adapter(staging, config, model, form, settings.title())
        python = {format: lines.format(base=base, folder=out.stem) for format, lines in LOAD.items()}
        card = CARD.format(
            name=settings.title(),
            teachers=len(set(settings.teachers)),
            base=base,
            what=NOT_RECYCLE,
            load=load_block(form, python, base, out.stem),
        )
        (staging / "README.md").write_text(card, "utf-8")
    written = {"folder": str(out), "format": form.format, "form": form.name}
    return {**written, "parameters": parameters, "method": settings.method}
