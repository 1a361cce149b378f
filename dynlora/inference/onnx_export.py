"""A model that classifies as an ONNX graph, checked by onnxruntime before it is kept."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.errors import ConfigError, NotMergeableError

ONNX_NAME = "model.onnx"

MOST_GAP = 1e-4
"""Largest difference of an output between onnxruntime and torch."""

LONGEST_BATCH = 65_536
"""Rows that the graph takes at most."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

TRIED = (
    (["one text", "and another one that is longer"], None),
    (["a third text, alone and longer than the two before it were"], None),
    (["a text", "of a pair", "a third"], ["another text", "which is the second of the two", "one more"]),
)
"""Texts and second texts that the graph must answer as the model does: of other size and length than the first."""


class Logits(nn.Module):
    """A model as a function of tensors that gives logits.

    Attributes:
        model: of transformers.
        names: of its inputs, in their order.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        """Wrap a model."""
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits of a batch, (batch, n_labels)."""
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def export_onnx(model: AdaptedModel, folder: Path) -> None:
    """Write a model as an ONNX graph with any batch and length, and its tokenizer and names of classes.

    Args:
        model: merged, or with gates and adapters in place, which become part of the graph.
        folder: that is made.

    Raises:
        ConfigError: when the packages are missing.
        NotMergeableError: when the model writes texts, or the graph does not answer as the model does.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError:
        raise ConfigError(
            "--format onnx: needs onnx, onnxscript and onnxruntime; pip install 'dynlora[onnx]'"
        ) from None
    if model.task.facts()["generates"]:
        raise NotMergeableError("--format onnx: is for models that classify, and this one writes texts; use merged")
    tokenizer: Any = model.base.tokenizer
    taken = inspect.signature(model.base.model.forward).parameters
    names = [name for name in INPUTS if name in tokenizer.model_input_names and name in taken]
    wrapped = Logits(model.base.model, names).eval()
    batches = [_batch(tokenizer, texts, names) for texts in TRIED]  # the first is what the graph is traced with
    for module in model.adapters:
        module.fused = False  # its own function is none that a graph knows
    folder.mkdir(parents=True, exist_ok=True)
    _export(wrapped, batches[0], names, folder / ONNX_NAME)
    _check(wrapped, onnxruntime.InferenceSession(folder / ONNX_NAME), batches)
    model.base.model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batch(
    tokenizer: Any, texts: tuple[Sequence[str], Sequence[str] | None], names: Sequence[str]
) -> dict[str, Tensor]:
    first, second = texts
    tokens = tokenizer(list(first), None if second is None else list(second), padding=True, return_tensors="pt")
    return {name: tokens[name] for name in names}


def _export(model: Logits, batch: dict[str, Tensor], names: list[str], path: Path) -> None:
    rows = torch.export.Dim("batch", min=1, max=LONGEST_BATCH)
    longest = min(int(getattr(model.model.config, "max_position_embeddings", 512)), 4096)
    length = torch.export.Dim("length", min=2, max=longest)
    log = logging.getLogger("torch.onnx")
    level, log.level = log.level, logging.ERROR  # it names operators of packages that are not there
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, on names of dimensions
        torch.onnx.export(
            model,
            tuple(batch.values()),
            path,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple({0: rows, 1: length} for _ in names),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    log.level = level


def _check(model: Logits, session: Any, batches: Sequence[dict[str, Tensor]]) -> None:
    """Refuse a graph that answers otherwise than the model.

    Raises:
        NotMergeableError: naming the difference.
    """
    for batch in batches:
        with torch.no_grad():
            expected = model(*batch.values()).numpy()
        (answer,) = session.run(None, {name: tensor.numpy() for name, tensor in batch.items()})
        gap = float(np.abs(answer - expected).max())
        if not gap <= MOST_GAP:
            raise NotMergeableError(
                f"--format onnx: the graph answers otherwise than the model, by up to {gap:.2g}; use --format merged"
            )
