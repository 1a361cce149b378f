"""What the machine can do, and what is recorded of it so that a resume can be bit-equal."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any

import torch
import transformers


def resolve_precision(precision: str, device: torch.device, dtype: str = "fp32") -> str:
    """Return bf16 or fp32 for a precision setting: auto is bf16 where the hardware multiplies it.

    Args:
        precision: auto, bf16 or fp32.
        device: that computes.
        dtype: that the frozen weights are kept in; with bf16 the computation is in bf16.
    """
    if dtype == "bf16":
        return dtype
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        probes = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
        return "bf16" if any(probe() for probe in probes if probe is not None) else "fp32"
    return "fp32"


def autocast_context(precision: str, device: torch.device) -> Callable[[], Any]:
    """Return a maker of the autocast context of a precision, bf16 or fp32."""
    enabled = precision == "bf16"
    return functools.partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=enabled)


def describe_machine(device: torch.device, precision: str) -> dict[str, Any]:
    """Return what bit-equality depends on: versions, processor, threads, device and precision."""
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": precision,
    }
