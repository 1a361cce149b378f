"""The model as an ONNX graph, for models that classify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dynlora.inference.forms import Form

if TYPE_CHECKING:
    from dynlora.engine.evaluation.export import AdapterFacts
    from dynlora.engine.evaluation.inference import AdaptedModel


class Onnx(Form):
    """The merged model as a graph."""

    name, order, format = "onnx", 60, "onnx"
    goes_to = "ONNX"
    help = "The merged model as an ONNX graph; for models that classify."
    holds_model, generates = True, False
    python = """
import json
from onnxruntime import InferenceSession
from transformers import AutoTokenizer

tokenizer, session = AutoTokenizer.from_pretrained("FOLDER"), InferenceSession("FOLDER/model.onnx")
names = {one.name for one in session.get_inputs()}
tokens = tokenizer(["Your text"], return_tensors="np", padding=True)
(logits,) = session.run(None, {name: tokens[name] for name in names})
labels = json.load(open("FOLDER/config.json"))["id2label"]
print(labels[str(logits[0].argmax())])
"""

    def write(self, model: AdaptedModel, folder: Path, facts: AdapterFacts) -> None:
        """Write the graph; without its gates the model is merged first."""
        from dynlora.engine.evaluation.inference import merge
        from dynlora.inference.export import export_onnx

        if not self.keeps_gates:
            merge(model)
        export_onnx(model, folder)


class OnnxGated(Onnx):
    """The model with its gates and adapters in place as a graph."""

    name, order = "onnx-gated", 70
    goes_to = "ONNX, gates kept"
    help = "The model as an ONNX graph whose gates react to each input, as trained; for models that classify."
    keeps_gates = True
