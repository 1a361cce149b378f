"""The adapter with its gates, for Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dynlora.inference.forms import Form

if TYPE_CHECKING:
    from dynlora.engine.evaluation.export import AdapterFacts
    from dynlora.engine.evaluation.inference import AdaptedModel


class Gated(Form):
    """A folder that `dynlora.load` puts on its base model."""

    name, order, format = "gated", 80, "gated"
    goes_to = "Python, gates kept"
    help = "The adapter as it was trained, its gates too: `dynlora.load(FOLDER)` puts it on the base model."
    keeps_gates = True
    python = """
import dynlora
from transformers import AutoTokenizer

model = dynlora.load("FOLDER")  # or dynlora.load("FOLDER", base) with a transformers model of yours
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
"""

    def write(self, model: AdaptedModel, folder: Path, facts: AdapterFacts) -> None:
        """Write the saved adapter, the settings that rebuild its modules, and the tokenizer."""
        from dynlora.inference.gated_adapter import write_gated

        assert facts.config is not None, "a loop of one's own is exported as an adapter alone"
        write_gated(model, folder, facts.config, facts.base_name)
