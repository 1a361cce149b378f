"""Frozen weights in 4 or 8 bits: what bitsandbytes makes of linear modules, and back.

QLoRA (arXiv 2305.14314) keeps W0 as 4-bit NormalFloat numbers with a scale for each block of 64, the scales quantised
again (`nf4`); LLM.int8() (arXiv 2208.07339) keeps 8-bit numbers with a scale a row (`int8`). The update of an adapter
is added in the precision of the computation, as ever. bitsandbytes is an extra: nothing here is needed without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from dynlora.engine.model.modules import head_names
from dynlora.errors import ConfigError

PACKAGE = "bitsandbytes"


def quantization_config(kind: str, compute: torch.dtype, whole: Sequence[str]) -> BitsAndBytesConfig:
    """Return how transformers quantises the linear modules of a model while it loads them.

    Args:
        kind: nf4 or int8.
        compute: the dtype that 4-bit weights are unpacked to.
        whole: names of modules that stay as they are.

    Raises:
        ConfigError: where bitsandbytes is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise ConfigError(
            f"model.quantization={kind}: needs the package {PACKAGE}, which is not installed; install it with "
            "pip install 'dynlora[quantization]'"
        )
    _import_package()
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(whole))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=list(whole),  # of both kinds, whatever its name says
    )


def _import_package() -> None:
    """Import bitsandbytes without the code that it would fetch from the hub on some processors, if it could.

    dynlora runs no code of the hub. What bitsandbytes says at every product of `int8`, that inputs are rounded, is in
    the documentation.
    """
    logging.getLogger(PACKAGE).setLevel(logging.ERROR)
    absent: Any = None  # an import of it fails then
    known = {name: sys.modules[name] for name in ("kernels",) if name in sys.modules}
    sys.modules["kernels"] = absent
    try:
        importlib.import_module(PACKAGE)
    finally:
        del sys.modules["kernels"]
        sys.modules.update(known)


def kept_whole(model_class: Any, config: Any) -> list[str]:
    """Return the modules that are not quantised: the head, which may be trained, and poolers, which may be new."""
    with torch.device("meta"):
        model = model_class.from_config(config)
    poolers = {name.rpartition(".")[2] for name, _ in model.named_modules() if name.endswith("pooler")}
    return [*head_names(model), *sorted(poolers)]


def hold_still(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on a processor, which it does at the first evaluation.

    Its repacked form rounds the scales of the blocks to bf16: the frozen model would change in the middle of a run, and
    a run that was stopped and resumed would be another.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]


def is_quantized(model: nn.Module) -> bool:
    """Say whether the frozen weights of a model are quantised."""
    return bool(getattr(model, "is_quantized", False))


def dequantize(model: PreTrainedModel) -> None:
    """Put plain linear modules in fp32 in the place of quantised ones: the numbers that these computed with."""
    if not is_quantized(model):
        return
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it warns that this makes a model larger
    try:
        plain: Any = model
        plain.dequantize(dtype=torch.float32)
    finally:
        transformers_logging.set_verbosity(verbosity)
    model.requires_grad_(False)


def numbers_in(tensor: Tensor) -> int:
    """Return how many weights a parameter holds: two 4-bit numbers are in one byte."""
    return 2 * tensor.numel() if getattr(tensor, "quant_state", None) is not None else tensor.numel()
