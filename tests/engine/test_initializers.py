"""Starts from data: singular vectors, input components, weight gradients, and the LoRA-GA start against PEFT."""

from __future__ import annotations

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, LoraGAConfig, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from dynlora import attach
from dynlora.contracts.harness import (
    ARCHITECTURES,
    TASK,
    MemoryKeeper,
    make_trainer,
    same,
    tiny_config,
    tiny_model,
    tiny_tokens,
    weights,
)
from dynlora.engine.data.batches import BatchOrder, calibration_batches
from dynlora.engine.edits import Drop, Grow, apply
from dynlora.engine.initializers import (
    BATCHES,
    EXACT,
    InputComponents,
    gradient_pair,
    gradient_step,
    input_directions,
    leading,
    mean_product,
    weight_gradients,
)
from dynlora.engine.loop.optimizer import set_lr
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.model.offset_linear import OffsetLinear
from dynlora.errors import ConfigError

GA = {"name": "lora", "init": "lora_ga"}


def drawn(seed: int) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [20, EXACT + 40])
def test_leading_triplets_are_those_of_the_whole_decomposition(size: int) -> None:
    left, right = torch.randn(size, 6, generator=drawn(0)), torch.randn(6, size + 10, generator=drawn(1))
    matrix = left @ torch.diag(torch.tensor([9.0, 7, 5, 3, 2, 1])) @ right
    u, value, v = leading(matrix, 4, drawn(2))
    whole = torch.linalg.svdvals(matrix)[:4]
    assert torch.allclose(value, whole, rtol=1e-4)
    assert torch.allclose(matrix @ v.t(), u * value, rtol=1e-3, atol=1e-3 * float(whole[0]))
    assert (v.gather(1, v.abs().argmax(1, keepdim=True)) > 0).all()
    again = leading(matrix, 4, drawn(2))
    assert all(torch.equal(one, other) for one, other in zip((u, value, v), again, strict=True))


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5), seed=st.integers(0, 1000))
def test_input_components_do_not_depend_on_how_rows_come(sizes: list[int], seed: int) -> None:
    rows = torch.randn(sum(sizes), 5, generator=drawn(seed)) * torch.tensor([5.0, 3, 2, 1, 0.5]) + 4
    parts, whole = InputComponents(5, drawn(0), 0.99), InputComponents(5, drawn(0), 0.99)
    whole.add(rows)
    for part in rows.split(sizes):
        parts.add(part)
    centred = torch.linalg.svdvals(rows - rows.mean(0))
    kept = min(len(whole.values), len(parts.values))
    assert torch.allclose(whole.values, centred[: len(whole.values)], atol=1e-4)
    assert torch.allclose(parts.values[:kept], whole.values[:kept], rtol=1e-3, atol=2e-3)
    assert float(parts.scatter) == pytest.approx(float((rows - rows.mean(0)).square().sum()), rel=1e-4)
    assert torch.allclose(parts.mean, rows.mean(0), atol=1e-4)


def test_shares_of_the_variance_by_hand() -> None:
    seen = InputComponents(2, drawn(0), 0.99)
    seen.add(torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    assert seen.ratio.tolist() == pytest.approx([0.9, 0.1])
    assert torch.allclose(seen.components, torch.eye(2), atol=1e-6)
    assert not seen.settled(1)  # one batch says nothing about turning
    seen.add(torch.tensor([[30.0, 0.0], [-30.0, 0.0]]))
    assert seen.settled(2)
    seen.add(torch.tensor([[0.0, 90.0], [0.0, -90.0]]))
    assert not seen.settled(1)  # the first two changed places


def test_padding_counts_for_nothing_and_equal_inputs_share_one_decomposition() -> None:
    model = tiny_model()
    names = [
        f"bert.encoder.layer.0.{kind}"
        for kind in ("attention.self.query", "attention.self.key", "attention.output.dense", "output.dense")
    ]
    modules = {name: model.get_submodule(name) for name in names}
    batch = tiny_tokens().batch(range(8))
    wider = {name: nn.functional.pad(tensor, (0, 8)) if tensor.dim() == 2 else tensor for name, tensor in batch.items()}

    def seen(batches: list[dict[str, Tensor]]) -> dict[str, InputComponents]:
        return input_directions(model, modules, batches, lambda _: dict.fromkeys(names, 3), limit=3, seed=0)

    components, padded = seen([batch]), seen([wider])
    assert components[names[0]] is components[names[1]]
    assert len({id(components[name]) for name in names}) == 3
    assert components[names[0]].count == int(batch["attention_mask"].sum())
    for name in names:
        assert torch.allclose(components[name].values, padded[name].values, rtol=1e-3)
    assert model.training == tiny_model().training
    assert not any(module._forward_pre_hooks for module in modules.values())


def test_reading_ends_when_all_that_is_in_demand_has_converged() -> None:
    model, name = nn.Sequential(nn.Linear(4, 2)), "0"
    read: list[int] = []

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            read.append(len(x))
            return self.inner(x)

    rows = torch.randn(64, 4, generator=drawn(0)) * torch.tensor([8.0, 4.0, 2.0, 1.0])
    directions = input_directions(Model(), {name: model[0]}, [{"x": rows}] * 9, lambda _: {name: 2}, limit=4, seed=0)
    assert len(read) == 2
    assert directions[name].count == 128
    read.clear()
    input_directions(Model(), {name: model[0]}, [{"x": rows}], lambda _: {name: 2}, limit=4, seed=0)
    assert len(read) == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weight_gradients_are_those_of_the_mean_loss(architecture: str) -> None:
    model = tiny_model(architecture).requires_grad_(False)
    name, module = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D))
    batches = [tiny_tokens().batch(range(8)), tiny_tokens().batch(range(8, 16))]
    gradients = weight_gradients(model, {name: module}, batches, TASK)[name]
    module.weight.requires_grad_(True)
    for batch in batches:
        (TASK.example_loss(model(**batch).logits, batch["labels"]).mean() / 2).backward()
    expected = module.weight.grad if isinstance(module, nn.Linear) else module.weight.grad.t()
    assert torch.allclose(gradients, expected, atol=1e-7)
    module.weight.grad = None
    module.weight.requires_grad_(False)
    weight_gradients(model, {name: module}, batches, TASK)
    assert module.weight.grad is None
    assert not module.weight.requires_grad
    weight = module.weight if isinstance(module, nn.Linear) else module.weight.t()
    assert float(mean_product(module, gradients)) == pytest.approx(float((weight * gradients).abs().mean()))


def test_gradient_pair_by_hand() -> None:
    gradient = torch.zeros(16, 5)
    for k, sigma in enumerate((8.0, 4.0, 2.0, 1.0)):
        gradient[k, k] = sigma
    A, B = gradient_pair(gradient, 2, drawn(0))
    assert torch.allclose(A, torch.eye(5)[:2], atol=1e-6)
    expected = torch.zeros(16, 2)
    expected[2, 0], expected[3, 1] = 2 * 2 / 4, 1 * 2 / 4  # 16^¼ / √16
    assert torch.allclose(B.abs(), expected, atol=1e-6)
    A, B = gradient_pair(gradient, 4, drawn(0))  # only one further singular vector: the rest of B is zero
    assert A.shape == (4, 5)
    assert B[:, 1:].abs().max() < 1e-6


def test_gradient_step_fits_the_gradient_along_the_rows_of_a() -> None:
    gradient, A = torch.randn(6, 9, generator=drawn(0)), torch.randn(3, 9, generator=drawn(1))
    B = gradient_step(gradient, A, 0.05, 4.0)
    plain = gradient @ A.t() @ torch.linalg.inv(A @ A.t())
    assert torch.allclose(B / B.norm(), -plain / plain.norm(), atol=1e-5)
    assert float((4.0 * B @ A).norm()) == pytest.approx(0.05 * float(gradient.norm()), rel=1e-5)
    assert not gradient_step(torch.zeros(6, 9), A, 0.05, 4.0).any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_ga_starts_as_the_base_and_not_at_zero(architecture: str) -> None:
    batch = tiny_tokens().batch(range(6))
    base = tiny_model(architecture).eval()
    trainer = make_trainer(tiny_config("lora", strategy=GA, adapter__dropout=0.3), architecture)
    fallback = make_trainer(tiny_config("lora", strategy=GA), architecture)
    for module in fallback.adapters:
        module.fused = False
    with torch.no_grad():
        expected = base(**batch).logits
        for model in (trainer.model.eval(), fallback.model.eval()):
            assert torch.allclose(model(**batch).logits, expected, atol=1e-6)
        assert all(module.lora_B.any() for module in trainer.adapters)
        with trainer.adapters.disabled():
            assert torch.equal(trainer.model(**batch).logits, expected)
        for module in trainer.adapters:
            assert torch.allclose(module.delta_weight(), torch.zeros(()), atol=1e-6)
            module.lora_B.mul_(1000)
        moved = trainer.model(**batch).logits
    assert not torch.allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["lora", "sora", "l1ra", "diffora", "dynamic"])
def test_lora_ga_starts_as_the_base_whatever_the_components_factors(name: str) -> None:
    trainer = make_trainer(tiny_config(name, strategy={"name": name, "init": "lora_ga"}))
    for module in trainer.adapters:
        held = module.scaling * module.offset_B @ module.offset_A
        assert held.norm() > 0
        assert module.delta_weight().norm() < 1e-5 * held.norm(), module.info.name


@pytest.mark.parametrize("init", ["kaiming", "lora_ga"])
@pytest.mark.parametrize("name", ["sora", "l1ra"])
def test_last_edits_leave_the_function_whatever_the_start(name: str, init: str) -> None:
    """A component at zero that goes takes its part of the offset along; that part is not zero."""
    trainer = make_trainer(tiny_config(name, strategy={"name": name, "init": init}))
    batch = tiny_tokens().batch(range(6))
    with torch.no_grad():
        for module in trainer.adapters:
            module.lora_B.normal_(generator=drawn(0))
            if init == "lora_ga":
                module.hold()
            module.scale[0] = 0.0
        before = trainer.model.eval()(**batch).logits
        apply(trainer.adapters, trainer.strategy.finish(trainer.adapters), trainer.optimizer, step=20)
        torch.testing.assert_close(trainer.model(**batch).logits, before, rtol=1e-4, atol=1e-5)
    assert {module.active_rank() for module in trainer.adapters} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", pytest.param("dynamic", marks=pytest.mark.torture)])
def test_lora_ga_holds_the_contract(name: str) -> None:
    config = tiny_config(name, strategy={"name": name, "init": "lora_ga"}, adapter__dropout=0.1, train__lr=1e-2)
    keeper = MemoryKeeper()
    whole = make_trainer(config)
    frozen = {key: value for key, value in weights(whole).items() if "base_layer" in key}
    whole.train(keeper)
    after = weights(whole)
    assert all(torch.equal(value, after[key]) for key, value in frozen.items())
    for step in (0, 5, 15):
        resumed = make_trainer(config, state=keeper.state(step), model=tiny_model())
        resumed.train(MemoryKeeper())
        assert same(after, weights(resumed))


def test_lora_ga_in_half_precision_starts_near_the_base_and_leaves_its_weights_alone() -> None:
    trainer = make_trainer(tiny_config("lora", strategy=GA, train__precision="bf16", train__lr=1e-2), "llama")
    batch = tiny_tokens().batch(range(6))
    with torch.no_grad(), trainer.autocast():
        logits = trainer.model.eval()(**batch).logits
        with trainer.adapters.disabled():
            expected = trainer.model(**batch).logits
    assert torch.allclose(logits.float(), expected.float(), atol=2e-2)
    assert all(module.base_layer.weight.dtype is torch.float32 for module in trainer.adapters)
    assert all(module.copied_bytes() for module in trainer.adapters)
    trainer.train(MemoryKeeper())
    assert all(torch.isfinite(tensor).all() for tensor in weights(trainer).values())


def test_offset_survives_rank_zero_scaling_and_the_form_of_one_update() -> None:
    module = OffsetLinear(nn.Linear(5, 4), ModuleInfo("m", 0, "m", 5, 4), rank=2, max_rank=3, scaling=2.0)
    module.reset_parameters(0)
    with torch.no_grad():
        module.lora_B.normal_(generator=drawn(0))
        module.lora_B[:, 2] = 0
    module.hold()
    offset = 2.0 * module.lora_B @ module.lora_A
    x = torch.randn(7, 5, generator=drawn(1))
    module.scaling, module.rank = 3.0, 1
    with torch.no_grad():
        expected = module.base_layer(x) + x @ (3.0 * module.lora_B[:, :1] @ module.lora_A[:1] - offset).t()
        assert torch.allclose(module(x), expected, atol=1e-5)
        A, B = module.low_rank()
        assert len(A) == 3
        assert torch.allclose(module.base_layer(x) + 3.0 * x @ A.t() @ B.t(), expected, atol=1e-5)
        module.fused = False
        assert torch.allclose(module(x), expected, atol=1e-5)
    module.offsets = 0
    module.loaded()
    assert module.offsets == 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_component_that_goes_takes_its_offset_along(architecture: str) -> None:
    batch = tiny_tokens().batch(range(6))
    base = tiny_model(architecture).eval()
    strategy = {"name": "dynamic", "explore": 1.0, "init": "lora_ga"}
    trainer = make_trainer(tiny_config("dynamic", strategy=strategy), architecture)
    with torch.no_grad():
        expected = base(**batch).logits
        apply(trainer.adapters, [Drop(1, 0), Grow(2)], trainer.optimizer, step=3)
        assert torch.allclose(trainer.model.eval()(**batch).logits, expected, atol=1e-6), "nothing was learned yet"
        last = trainer.adapters[2]
        last.lora_B[:, last.rank - 1] = 1.0
        delta = last.scaling * torch.outer(last.lora_B[:, last.rank - 1], last.lora_A[last.rank - 1])
        assert torch.allclose(last.delta_weight(), delta, atol=1e-6), "a component that came has no offset"


def test_sharing_and_a_start_from_data_without_data_are_refused() -> None:
    with pytest.raises(ConfigError, match="lora_ga"):
        make_trainer(tiny_config("aslora", strategy={"name": "aslora", "init": "lora_ga"}))
    for name in ("adalora", "xgblora"):
        with pytest.raises(ConfigError, match="lora_ga"):
            make_trainer(tiny_config(name, strategy={"name": name, "init": "lora_ga"}))
    with pytest.raises(ConfigError, match="calibration"):
        attach(tiny_model(), strategy="lora", init="lora_ga", budget=2, steps=20)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning", "ignore:Full backward hook:UserWarning")
@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_lora_ga_follows_peft(architecture: str) -> None:
    config = tiny_config("lora", strategy=GA, train__lr=1e-3)
    ours = make_trainer(config, architecture)
    names = [module.info.name for module in ours.adapters]
    theirs_config = LoraConfig(
        task_type="SEQ_CLS",
        r=2,
        lora_alpha=4,
        target_modules=names,
        fan_in_fan_out=architecture == "gpt2",
        init_lora_weights="lora_ga",
        lora_ga_config=LoraGAConfig(direction="ArB2r", scale="stable"),
    )
    model = tiny_model(architecture)
    look = calibration_batches(tiny_tokens(), BATCHES, 0)

    def backward() -> None:
        for batch in look:
            TASK.example_loss(model(**batch).logits, batch["labels"]).mean().backward()

    torch.manual_seed(0)
    peft.tuners.lora.loraga.preprocess_loraga(model, theirs_config, backward)
    theirs = get_peft_model(model, theirs_config)
    for module in ours.adapters:
        other = theirs.base_model.model.get_submodule(module.info.name)
        A, B = other.lora_A["default"].weight.detach(), other.lora_B["default"].weight.detach()
        # PEFT takes the first dimension of a weight for d_out, which in Conv1D is d_in
        theirs_B = B * (module.info.d_out / other.base_layer.weight.shape[0]) ** 0.25
        for mine, its in ((module.lora_A.detach(), A), (module.lora_B.detach().t(), theirs_B.t())):
            assert (torch.cosine_similarity(mine, its).abs() > 0.99).all(), module.info.name  # PEFT's are approximate
            assert torch.allclose(mine.norm(dim=1), its.norm(dim=1), rtol=2e-2)
        with torch.no_grad():  # the signs of a decomposition are open, those of u_k and v_j apart
            module.lora_A.copy_(A)
            module.lora_B.copy_(B)
        module.hold()
        weight = other.base_layer.weight
        assert torch.allclose(module.frozen_weight(), weight, atol=1e-6)
    trained = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": trained, "peak_lr": config.train.lr}], weight_decay=0.01)
    order = BatchOrder(tiny_tokens().length, 8, 0)
    theirs.train()
    ours.model.train()
    for index in range(1, 21):
        set_lr(optimizer, config.train, index, 20)
        batch = tiny_tokens().batch(order[index - 1])
        labels = batch.pop("labels")
        loss = TASK.example_loss(theirs(**batch).logits, labels).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mine, _ = ours._advance(order)
        ours.optimizer.zero_grad(set_to_none=True)
        assert float(mine) == pytest.approx(loss.item(), abs=2e-6), index
