"""Dynamic LoRA in a training loop of one's own: three lines change, the rest stays as it was.

Run it: python examples/own_loop.py
"""

from __future__ import annotations

import torch
from torch import nn

import dynlora

STEPS = 300


def main() -> list[int]:
    """Fit a planted update of rank 4 that sits in one of three layers; return the ranks at the end."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32))
    teacher = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32))
    teacher.load_state_dict(model.state_dict())
    with torch.no_grad():
        teacher[4].weight += torch.randn(32, 4) @ torch.randn(4, 32) / 4

    attached = dynlora.attach(
        model, strategy="dynamic", budget=3, steps=STEPS, lr=1e-2, targets=["0", "2", "4"], gates="off"
    )
    for _ in range(STEPS):
        x = torch.randn(64, 32)
        loss = (model(x) - teacher(x).detach()).square().mean() + attached.penalty()
        loss.backward()
        attached.step()  # instead of optimizer.step() and zero_grad(): observes, moves weights, moves rank
    return attached.adapters.ranks


if __name__ == "__main__":
    print("ranks of the three layers:", main())
