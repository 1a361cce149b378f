"""What PEFT itself saves reads as PEFT applies it: the spectrum of the weight it would add."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from torch import nn

from dynlora.peft_adapter import read_adapter


class Net(nn.Module):
    """Two blocks of two linear modules."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"up": nn.Linear(6, 9), "down": nn.Linear(9, 6)}) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer["down"](layer["up"](x))  # pyright: ignore[reportIndexIssue]
        return x


CONFIGS = {
    "lora": peft.LoraConfig(r=4, lora_alpha=6, target_modules=["up", "down"]),
    "rslora": peft.LoraConfig(r=4, lora_alpha=6, target_modules=["up", "down"], use_rslora=True),
    "patterns": peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["up", "down"],
        rank_pattern={"layers.1.up": 2},
        alpha_pattern={"layers.1.up": 5, "down": 1},
    ),
    "adalora": peft.AdaLoraConfig(init_r=5, target_r=2, lora_alpha=6, target_modules=["up", "down"], total_step=10),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_spectra_are_those_of_the_weights_that_peft_adds(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = peft.get_peft_model(Net(), CONFIGS[name])
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            nn.init.normal_(parameter)
        if "lora_E" in key:
            parameter.data[1::2] = 0
    model.to(dtype).save_pretrained(tmp_path)
    model.to(torch.float64)
    adapter = read_adapter(tmp_path)
    assert len(adapter.modules) == 4
    for module in adapter.modules:
        layer = model.get_submodule(f"base_model.model.{module.name}")
        whole = layer.get_delta_weight("default").detach().numpy()  # pyright: ignore[reportCallIssue]
        expected = np.linalg.svd(whole, compute_uv=False)[: module.max_rank]
        np.testing.assert_allclose(module.singular_values, expected, rtol=1e-5, atol=1e-6)
        assert module.rank == {"adalora": 3, "patterns": 2 if module.name == "layers.1.up" else 4}.get(name, 4)
        assert (module.layer, module.kind) in [(i, kind) for i in range(2) for kind in ("up", "down")]
