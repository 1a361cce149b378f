"""What `check` says of PEFT is what PEFT does, on generated folders; what it reads right, we read and convert right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dynlora.errors import AdapterError, DynloraError
from dynlora.inference.forms import convert, forms
from dynlora.peft_adapter import read_adapter
from dynlora.peft_adapter.engines import RIGHT, check_engines
from dynlora.peft_adapter.read import read_header, read_weights
from dynlora.peft_adapter.uniform import Update
from tests.peft_adapter.generated import Generated, base_model, generate, numbers, peft_itself

pytestmark = pytest.mark.filterwarnings("ignore")


def check_folder(seed: int, folder: Path) -> None:
    """Hold the rule for PEFT against PEFT, and what we read and write of a right folder against what PEFT computes."""
    generated = generate(seed, folder)
    verdict, why, answer = peft_itself(generated)
    words = f"seed {seed}, {generated.damages}: PEFT {verdict} ({why})"
    try:
        header = read_header(folder)
    except AdapterError as error:
        words += f"; check: {error}"
        for read in (read_adapter, read_weights):
            with pytest.raises(AdapterError):
                read(folder)
        header = None
    if header is None:
        assert verdict != RIGHT, words
        return
    (reading,) = check_engines(header, ("peft",))
    assert (reading.verdict == RIGHT) == (verdict == RIGHT), f"{words}; check: {reading.verdict}, {reading.reason}"
    assert (reading.reason == "") <= (verdict == RIGHT)
    if answer is not None:
        _read_as_peft_does(generated, answer)


def _read_as_peft_does(generated: Generated, answer: torch.Tensor) -> None:
    """Check that the update that we read is the one that PEFT applies, and that a conversion gives it again."""
    header = read_header(generated.folder)
    try:
        weights = read_weights(generated.folder)
    except AdapterError:
        return  # DoRA, another method: refused in a sentence
    if header.config.get("alora_invocation_tokens") or header.config.get("lora_bias") or weights.rest:
        return  # more than sums of s · B A
    init = str(header.config.get("init_lora_weights"))
    if not init.startswith(("pissa", "olora")) and generated.base == "llama":
        assert_same(_with_updates(generated, weights.updates), answer)
    for form in ("peft", "uniform"):
        out = generated.folder.with_name(f"{generated.folder.name}-{form}")
        try:
            convert(generated.folder, out, forms()[form])
        except DynloraError:
            assert init.startswith(("pissa", "olora"))
            continue
        verdict, why, converted = peft_itself(Generated(out, generated.base, (), False))
        assert verdict == RIGHT, f"{generated.damages}, {form}: {why}"
        assert converted is not None
        assert_same(converted, answer)
        (reading,) = check_engines(read_header(out), ("peft",))
        assert reading.verdict == RIGHT, reading.reason


def _with_updates(generated: Generated, updates: Mapping[str, Update]) -> torch.Tensor:
    """Return what the base model answers with s · B A added to its weights."""
    model = base_model(generated.base)
    with torch.no_grad():
        for name, (A, B, scaling) in updates.items():
            delta = torch.from_numpy(scaling * B @ A).float()
            weight = model.get_parameter(f"{name}.weight")
            weight += delta if delta.shape == weight.shape else delta.T
    return numbers(model)


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("seed", range(0, 300, 10))
def test_check_says_of_peft_what_peft_does(seed: int, tmp_path: Path) -> None:
    check_folder(seed, tmp_path / "adapter")


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(300))
def test_check_says_of_peft_what_peft_does_in_full(seed: int, tmp_path: Path) -> None:
    check_folder(seed, tmp_path / "adapter")
