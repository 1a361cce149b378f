"""What `train.precision=auto` computes in: what the processor multiplies faster, and one precision for a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dynlora
from dynlora.engine.loop import hardware
from dynlora.store import queries
from dynlora.training import run
from tests.tiny import tiny_config
from tests.training.interrupted import interrupted_run

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "intel", "expected"),
    [
        (True, True, True, "bf16"),
        (False, True, True, "fp32"),  # a Xeon in a virtual machine that hides AMX
        (False, True, False, "bf16"),
        (False, False, True, "fp32"),
        (False, False, False, "fp32"),
    ],
)
def test_auto_is_what_the_processor_multiplies_faster(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, intel: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(hardware, "_is_intel", lambda: intel)
    assert hardware.resolve_precision("auto", CPU) == expected
    assert hardware.resolve_precision("bf16", CPU) == "bf16"
    assert hardware.resolve_precision("fp32", CPU) == "fp32"
    assert hardware.resolve_precision("auto", CPU, "bf16") == "bf16"


def learned(folder: Path) -> bytes:
    """Return the adapter that a run ended with."""
    return (folder / "adapter" / "tensors.safetensors").read_bytes()


def test_a_run_goes_on_in_the_precision_it_began_in(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved to another processor, or continued by a version that chooses otherwise, it stays one run to the bit."""
    settings = {"train__steps": 8, "train__precision": "auto", "log__checkpoint_every": 4, "strategy": {"name": "lora"}}
    config = tiny_config(tiny_bert, tiny_data, **settings)
    monkeypatch.setattr(hardware, "_is_bf16_faster_here", lambda: True)
    whole = dynlora.train(config, tmp_path / "whole", progress=False)
    stopped = interrupted_run(config, runs_dir, monkeypatch)
    monkeypatch.setattr(hardware, "_is_bf16_faster_here", lambda: False)
    assert run.resume(runs_dir, stopped.name).state == "finished"
    assert queries.run_summary(stopped).machine["precision"] == "bf16"
    assert learned(stopped) == learned(whole.folder)
