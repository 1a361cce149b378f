"""Peak memory of a loss over many words, whole and in pieces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn


def memory(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return the peak memory, MiB, that the loss of 1,024 tokens and its gradient take beyond weights and states."""
    peaks: dict[str, Any] = {}
    for kind in ("whole", "in pieces"):
        code = f"from benchmarks.language_model.memory import peak_of_loss; print(peak_of_loss({kind!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks[kind] = float(done.stdout.strip().splitlines()[-1])
    return {"tokens": 1024, "words": 49152, "peak_mib": peaks, "ratio": peaks["in pieces"] / peaks["whole"]}


def peak_of_loss(kind: str) -> float:
    """Return how far the memory of this process rises while a loss and its gradient are computed, MiB."""
    from dynlora.tasks.token_loss import TokenOutput, token_loss

    torch.manual_seed(0)
    head = nn.Linear(576, 49152, bias=False).requires_grad_(False)
    states = torch.randn(8, 128, 576, requires_grad=True)
    labels = torch.randint(0, 49152, (8, 128))
    torch.nn.functional.linear(states[:1], head.weight).sum().backward()  # what is set up once
    states.grad = None
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _memory("VmRSS")
    if kind == "whole":
        logits = head(states)[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 49152), labels[:, 1:].reshape(-1))
    else:
        sums, n = token_loss(TokenOutput(states, head, head.weight, None), labels)
        loss = sums.sum() / n.sum()
    loss.backward()
    return _memory("VmHWM") - before


def _memory(name: str) -> float:
    """Return a line of what Linux knows of this process's memory, MiB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name)) / 1024
