"""The adapted module: prefix, scale, saliency; and what edits do to weights, moments and component state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config, tiny_model
from dynlora.engine import edits
from dynlora.engine.allocation import scores
from dynlora.engine.loop.step_signals import spectrum
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, find_modules, head_names
from dynlora.errors import ConfigError


def adapter(d_in: int = 6, d_out: int = 5, rank: int = 3, max_rank: int = 6, seed: int = 0) -> LoraLinear:
    """Return an adapter with random A and B."""
    torch.manual_seed(seed)
    info = ModuleInfo("block.0.linear", 0, "linear", d_in, d_out)
    module = LoraLinear(nn.Linear(d_in, d_out), info, rank=rank, max_rank=max_rank, scaling=0.5)
    module.reset_parameters(seed)
    with torch.no_grad():
        module.lora_B[:, :rank] = torch.randn(d_out, rank)
    return module


def collection(*modules: LoraLinear) -> Adapters:
    """Return modules as adapters with a generous budget."""
    return Adapters(modules, budget=10_000, reference_rank=3, seed=0)


def test_rank_zero_computes_the_base_and_keeps_gradients_whole() -> None:
    module, x = adapter(rank=0), torch.randn(4, 6)
    out = module(x)
    assert torch.equal(out, module.base_layer(x))
    out.sum().backward()
    assert module.lora_A.grad is not None
    assert module.lora_B.grad is not None
    assert not module.lora_B.grad.any()


def test_buffers_of_another_size_do_not_shift_the_draw() -> None:
    small, large = adapter(max_rank=3), adapter(max_rank=9)
    assert torch.equal(small.lora_A[:3], large.lora_A[:3])


def test_saliency_is_the_derivative_of_a_factor_on_the_component() -> None:
    module, x, target = adapter().double(), torch.randn(8, 6).double(), torch.randn(8, 5).double()

    def loss() -> torch.Tensor:
        return ((module(x) - target) ** 2).mean()

    loss().backward()
    saliency = scores.saliency(module)
    of_a = (module.lora_A.detach()[:3] * module.lora_A.grad[:3]).sum(1)
    assert torch.allclose(saliency, of_a, atol=1e-12)
    for j in range(3):
        step = 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                kept = module.lora_B[:, j].clone()
                module.lora_B[:, j] *= 1 + sign * step
                values.append(float(loss()))
                module.lora_B[:, j] = kept
        assert float(saliency[j]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-8)


def test_component_sensitivity_is_the_absolute_saliency() -> None:
    modules = [adapter(), adapter(d_in=4, d_out=9, rank=2, max_rank=4, seed=1)]
    for module in modules:
        module(torch.randn(5, module.info.d_in)).pow(2).sum().backward()
    with torch.no_grad():
        sensitivity = scores.component_sensitivity(modules, torch.ones(2, 6))
    assert torch.allclose(sensitivity[0, :3], scores.saliency(modules[0]).abs())
    assert torch.allclose(sensitivity[1, :2], scores.saliency(modules[1]).abs())
    assert not sensitivity[0, 3:].any()
    assert not sensitivity[1, 2:].any()


def test_norm_and_effective_rank_need_no_full_matrix() -> None:
    module = adapter()
    sigma = torch.linalg.svdvals(module.delta_weight().detach())
    norm, effective = spectrum(module)
    assert float(norm) == pytest.approx(float(sigma.norm()), rel=1e-5)
    assert float(effective) == pytest.approx(float(sigma.square().sum() ** 2 / sigma.pow(4).sum()), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_effective_rank_of_one_component_is_one_whatever_its_size(scale: float) -> None:
    module = adapter(rank=1)
    with torch.no_grad():
        module.lora_B.mul_(scale)
    assert float(spectrum(module)[1]) == pytest.approx(1.0)


def test_an_update_of_zero_has_effective_rank_zero() -> None:
    module = adapter()
    with torch.no_grad():
        module.lora_B.zero_()
    assert [float(value) for value in spectrum(module)] == [0.0, 0.0]
    module.rank = 0
    assert [float(value) for value in spectrum(module)] == [0.0, 0.0]


def test_head_is_never_adapted() -> None:
    model = tiny_model("bert")
    head = head_names(model)
    assert head == ["classifier"]
    everywhere = find_modules(model, ["dense"], head)
    assert all(not info.name.startswith("classifier") for info in everywhere)
    with pytest.raises(ConfigError, match=r"adapter\.targets=classifier: is the head, which is trained in full"):
        find_modules(model, ["classifier"], head)


class TestEdits:
    """Structure changes through `apply`."""

    def trained(self, module: LoraLinear) -> torch.optim.AdamW:
        """Take three optimizer steps, so that there are moments."""
        optimizer = torch.optim.AdamW([module.lora_A, module.lora_B], lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            module(torch.randn(8, module.info.d_in)).pow(2).mean().backward()
            optimizer.step()
        return optimizer

    def test_growth_leaves_the_function_and_gives_the_mean_second_moment(self) -> None:
        module = adapter()
        adapters, optimizer, x = collection(module), self.trained(module), torch.randn(4, 6)
        before = module(x)
        edits.apply(adapters, [edits.Grow(0)], optimizer, step=3)
        assert module.rank == 4
        assert torch.allclose(module(x), before, atol=1e-6)
        second = optimizer.state[module.lora_B]["exp_avg_sq"]
        assert torch.allclose(second[:, 3], second[:, :3].mean(1))
        assert not optimizer.state[module.lora_B]["exp_avg"][:, 3].any()
        overlap = module.lora_A[3] @ module.lora_A[:3].t()
        assert torch.allclose(overlap, torch.zeros(3), atol=1e-5)
        assert module.lora_A[3].norm().item() == pytest.approx(module.lora_A[:3].norm(dim=1).mean().item(), rel=1e-4)

    def test_dropped_components_are_gone_and_never_drift(self) -> None:
        module = adapter()
        adapters, optimizer = collection(module), self.trained(module)
        kept_a, kept_b = module.lora_A[[0, 2]].clone(), module.lora_B[:, [0, 2]].clone()
        moments = optimizer.state[module.lora_A]["exp_avg"][[0, 2]].clone()
        edits.apply(adapters, [edits.Drop(0, 1)], optimizer, step=3)
        assert torch.equal(module.lora_A[:2], kept_a)
        assert torch.equal(module.lora_B[:, :2], kept_b)
        assert torch.equal(optimizer.state[module.lora_A]["exp_avg"][:2], moments)
        for _ in range(5):
            optimizer.zero_grad()
            module(torch.randn(8, 6)).pow(2).mean().backward()
            optimizer.step()
        for tensor in (module.lora_A[2:], module.lora_B[:, 2:]):
            assert not tensor.any()
        for parameter, dim in ((module.lora_A, 0), (module.lora_B, 1)):
            for name in ("exp_avg", "exp_avg_sq"):
                assert not optimizer.state[parameter][name].narrow(dim, 2, 4).any()

    def test_component_state_stays_beside_its_component(self) -> None:
        module = adapter()
        adapters = collection(module)
        adapters.track("worth", grown=-1.0)[0] = torch.arange(6.0)
        edits.apply(adapters, [edits.Move((edits.Drop(0, 0),), edits.Grow(0))], None, step=1)
        assert adapters.track("worth")[0].tolist() == [1, 2, -1, -1, -1, -1]

    def test_refuses_what_is_not_there(self) -> None:
        adapters = collection(adapter(rank=3, max_rank=3))
        with pytest.raises(ValueError, match="only 0 to 2 are active"):
            edits.apply(adapters, [edits.Drop(0, 3)], None, step=1)
        with pytest.raises(ValueError, match="already at max_rank=3"):
            edits.apply(adapters, [edits.Grow(0)], None, step=1)

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=12))
    def test_any_sequence_keeps_the_tail_zero(self, sequence: list[tuple[bool, int]]) -> None:
        module = adapter()
        adapters = collection(module)
        for step, (grow, position) in enumerate(sequence):
            if grow and module.rank < module.max_rank:
                edits.apply(adapters, [edits.Grow(0)], None, step=step)
            elif not grow and module.rank:
                edits.apply(adapters, [edits.Drop(0, position % module.rank)], None, step=step)
            assert not module.lora_A[module.rank :].any()
            assert not module.lora_B[:, module.rank :].any()


def test_modules_without_an_update_have_no_importance() -> None:
    trainer = make_trainer(tiny_config("lora"))
    with trainer.adapters.disabled():
        assert not trainer.probe_importance().any()


def test_a_run_whose_device_has_no_room_for_importance_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError

    class Logged(ListRecorder):
        lines: list[str] = []

        def log(self, level: str, message: str) -> None:
            self.lines.append(f"{level}: {message}")

    recorder = Logged()
    trainer = make_trainer(tiny_config("lora"), recorder=recorder)
    monkeypatch.setattr("dynlora.engine.loop.trainer.losses_without", refuse)
    keeper = MemoryKeeper()
    trainer.train(keeper)
    assert trainer.step == trainer.total
    assert "probe_importance" not in recorder.vectors
    assert "warning: Importance by input group was not recorded: the device has no room for it" in recorder.lines
