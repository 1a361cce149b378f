"""What the machine can do, and what is recorded of it so that a resume can be bit-equal."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers


def resolve_precision(precision: str, device: torch.device, dtype: str = "fp32") -> str:
    """Return bf16 or fp32 for a precision setting: auto is bf16 where the hardware multiplies it faster.

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
    return "bf16" if device.type == "cpu" and _is_bf16_faster_here() else "fp32"


def _is_bf16_faster_here() -> bool:
    """Say whether this processor multiplies bf16 faster than fp32.

    One with AMX does, and one of AMD's with AVX512-BF16. On a Xeon whose virtual machine hides AMX, AVX512-BF16 alone
    makes a step slower than fp32 does (`python -m benchmarks.precision` measures it).
    """
    return _has("_is_amx_tile_supported") or (_has("_is_avx512_bf16_supported") and not _is_intel())


def _has(probe: str) -> bool:
    """Return the answer of one of torch's questions to the processor; False where this version of it has none."""
    function = getattr(torch.cpu, probe, None)
    return function is not None and bool(function())


@functools.cache
def _is_intel() -> bool:
    """Say whether Intel made the processor, by what Linux or the system's own name for it says."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return any(line.startswith("vendor_id") and "Intel" in line for line in lines)
    except OSError:
        return "Intel" in platform.processor()


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
