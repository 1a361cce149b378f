"""Step by step against PEFT: the same A, batches and dropout stream give the same losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from peft.tuners.glora.config import GloraConfig
from peft.tuners.glora.layer import GloraLinear as PeftGloraLinear
from torch import Tensor, nn

from dynlora import strategies
from dynlora.contracts.harness import TASK, make_trainer, tiny_config, tiny_model, tiny_tokens
from dynlora.engine.data.batches import BatchOrder
from dynlora.engine.loop.optimizer import set_lr
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.adapters import replace_module
from dynlora.engine.model.lowrank_function import DropoutStreams

STEPS = 20

pytestmark = [
    pytest.mark.slow,  # together
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),  # PEFT asks the old name
]


class StreamDropout(nn.Module):
    """PEFT's dropout, drawing from our stream of the same module."""

    def __init__(self, streams: DropoutStreams, name: str, probability: float) -> None:
        """Draw for module `name`."""
        super().__init__()
        self.streams, self.name, self.probability = streams, name, probability

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mask our adapter would."""
        keep = 1 - self.probability
        return x * self.streams.mask(self.name, x, keep) / keep if self.training else x


def losses_of_ours(trainer: Trainer) -> list[float]:
    """Train step by step and return the losses."""
    order = BatchOrder(trainer.tokens.length, trainer.config.train.batch_size, trainer.config.seed)
    trainer.model.train()
    losses = []
    for _ in range(STEPS):
        loss, _ = trainer._advance(order)
        trainer.optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss))
    return losses


def losses_of_theirs(
    model: nn.Module, trainer: Trainer, groups: list[dict[str, Any]], streams: DropoutStreams | None = None
) -> list[float]:
    """Train a model of PEFT step by step on the same batches and return the losses."""
    config = trainer.config
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    order, tokens = BatchOrder(tiny_tokens().length, 8, 0), tiny_tokens()
    model.train()
    losses = []
    for index in range(1, STEPS + 1):
        set_lr(optimizer, config.train, index, STEPS)
        batch = tokens.batch(order[index - 1])
        labels = batch.pop("labels")
        if streams is not None:
            streams.at(index, 0, 0)
        loss = TASK.example_loss(model(**batch).logits, labels).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trained_in(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Return everything that PEFT trains, as one group."""
    return [{"params": [p for p in model.parameters() if p.requires_grad], "peak_lr": lr}]


def peft_lora(ours: Trainer, architecture: str = "bert", **fields: Any) -> Any:
    """Return PEFT's LoRA on the same model, starting at the same A."""
    sizes = {module.info.name: module.rank for module in ours.adapters if module.rank}
    config = LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=4, target_modules=list(sizes), **fields)
    model = get_peft_model(tiny_model(architecture), config)
    with torch.no_grad():
        for module in ours.adapters:
            if module.rank:
                theirs = model.base_model.model.get_submodule(module.info.name)
                theirs.lora_A["default"].weight.copy_(module.lora_A[: module.rank])
    return model


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
def test_lora_follows_peft(architecture: str, dropout: float) -> None:
    config = tiny_config("lora", adapter__dropout=dropout, train__lr=1e-3)
    ours = make_trainer(config, architecture)
    peft = peft_lora(ours, architecture, fan_in_fan_out=architecture == "gpt2")
    streams = DropoutStreams(0)
    for module in ours.adapters if dropout else ():
        theirs = peft.base_model.model.get_submodule(module.info.name)
        theirs.lora_dropout["default"] = StreamDropout(streams, module.info.name, dropout)
    expected = losses_of_theirs(peft, ours, trained_in(peft, config.train.lr), streams)
    assert losses_of_ours(ours) == pytest.approx(expected, abs=1e-6)


def test_rank_stabilised_scaling_follows_peft() -> None:
    strategy = {"name": "lora", "scaling": "rank_stabilized"}
    ours = make_trainer(tiny_config("lora", strategy=strategy, train__lr=1e-2))
    theirs = peft_lora(ours, use_rslora=True)
    expected = losses_of_theirs(theirs, ours, trained_in(theirs, 1e-2))
    assert losses_of_ours(ours) == pytest.approx(expected, abs=2e-6)


def test_a_rate_of_its_own_for_b_is_lora_plus() -> None:
    ours = make_trainer(tiny_config("lora", strategy={"name": "lora", "lr_ratio": 4.0}, train__lr=1e-3))
    theirs = peft_lora(ours)
    named = [(name, p) for name, p in theirs.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if "lora_B" in name], "peak_lr": 4e-3},
        {"params": [p for name, p in named if "lora_B" not in name], "peak_lr": 1e-3},
    ]
    expected = losses_of_theirs(theirs, ours, groups)
    assert losses_of_ours(ours) == pytest.approx(expected, abs=2e-6)


def test_eva_follows_peft_with_the_same_ranks_and_directions() -> None:
    """`test_eva` holds both against PEFT's own initialisation; here they train on."""
    ours = make_trainer(tiny_config("eva", train__lr=1e-2))
    ranks = {module.info.name: module.rank for module in ours.adapters if module.rank}
    alphas = {name: 2.0 * rank for name, rank in ranks.items()}
    assert len(set(ranks.values())) > 1
    theirs = peft_lora(ours, rank_pattern=ranks, alpha_pattern=alphas)
    expected = losses_of_theirs(theirs, ours, trained_in(theirs, 1e-2))
    assert losses_of_ours(ours) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("fields", "rank", "grown"), [({}, 2, 3), ({"normalise": False}, 4, 4)])
def test_gelora_is_peft_lora_with_the_ranks_its_dimensions_ask_for(
    fields: dict[str, Any], rank: int, grown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny models add no dimensions of their own; these grow by three in the first block and not in the second."""

    def planted(strategy: Any, model: nn.Module, batches: Any) -> None:
        strategy.dimension, strategy.error = [1.0, 4.0, 4.0], [0.1] * 3

    monkeypatch.setattr(strategies.strategy_class("gelora"), "estimate", planted)
    ours = make_trainer(
        tiny_config("gelora", strategy={"name": "gelora", **fields}, adapter__rank=rank, train__lr=1e-2)
    )
    ranks = {module.info.name: module.rank for module in ours.adapters}
    assert {module.rank for module in ours.adapters if module.info.layer == 0} == {grown}
    assert {module.rank for module in ours.adapters if module.info.layer == 1} == {1}
    assert {module.scaling for module in ours.adapters} == {2.0}
    theirs = peft_lora(ours, rank_pattern=ranks, alpha_pattern={name: 2.0 * rank for name, rank in ranks.items()})
    expected = losses_of_theirs(theirs, ours, trained_in(theirs, 1e-2))
    assert losses_of_ours(ours) == pytest.approx(expected, abs=2e-6)


def test_glora_follows_peft_on_a_fixed_path() -> None:
    path = {"name": "glora", "path": "llnvv"}
    ours = make_trainer(tiny_config("glora", strategy=path, adapter__rank=4, adapter__alpha=4, train__lr=1e-2))
    theirs = tiny_model().requires_grad_(False)
    theirs.classifier.requires_grad_(True)
    for module in ours.adapters:
        assert module.scaling == 1.0
        fields = GloraConfig(r=module.rank, config_A_B="lora", config_C="none", config_D_E="vector")
        layer = PeftGloraLinear(theirs.get_submodule(module.info.name), "default", fields)
        starts = {"A": (module.A_down, module.A_up), "B": (module.lora_B, module.lora_A), "D": module.D, "E": module.E}
        with torch.no_grad():
            for name, start in starts.items():
                support = getattr(layer, f"glora_{name}")["default"]
                tensors = {"Xd": start[0], "Xu": start[1]} if name in "AB" else {"X": start}
                for key, tensor in tensors.items():
                    getattr(support, key).copy_(tensor).requires_grad_(True)
        replace_module(theirs, module.info.name, layer)
    expected = losses_of_theirs(theirs, ours, trained_in(theirs, 1e-2))
    assert expected[-1] != expected[0]
    assert losses_of_ours(ours) == pytest.approx(expected, abs=5e-6)


def test_adalora_follows_peft() -> None:
    config = tiny_config(
        "adalora",
        strategy={
            "name": "adalora",
            "init_r": 4,
            "warmup_steps": 3,
            "final_steps": 5,
            "allocate_every": 2,
            "orth_reg_weight": 0.5,
        },
        train__lr=1e-2,
    )
    ours = make_trainer(config)
    names = [module.info.name for module in ours.adapters]
    peft = get_peft_model(
        tiny_model(),
        AdaLoraConfig(
            task_type="SEQ_CLS",
            target_modules=names,
            init_r=4,
            target_r=2,
            lora_alpha=4,
            tinit=3,
            tfinal=5,
            deltaT=2,
            beta1=0.85,
            beta2=0.85,
            orth_reg_weight=0.5,
            total_step=STEPS,
        ),
    )
    theirs = [peft.base_model.model.get_submodule(name) for name in names]
    for module, other in zip(ours.adapters, theirs, strict=True):
        with torch.no_grad():
            other.lora_A["default"].copy_(module.lora_A)
            other.lora_B["default"].copy_(module.lora_B)
            other.lora_E["default"].zero_()
    trained = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": trained, "peak_lr": config.train.lr}], weight_decay=0.01)
    tokens = tiny_tokens()
    order = BatchOrder(tokens.length, 8, 0)
    peft.train()
    ours.model.train()
    pruned = 0
    for index in range(1, STEPS):  # the last step of ours also takes the masked triplets off
        set_lr(optimizer, config.train, index, STEPS)
        out = peft(**tokens.batch(order[index - 1]))
        out.loss.backward()
        optimizer.step()
        peft.base_model.update_and_allocate(index)
        optimizer.zero_grad()
        loss, _ = ours._advance(order)
        ours.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            penalty = sum(ours.strategy.penalty(ours.adapters).values())
        assert torch.isfinite(loss + penalty)
        for module, other, kept in zip(ours.adapters, theirs, ours.strategy.pattern, strict=True):
            scale, wanted = module.scale.detach(), other.lora_E["default"].detach().flatten()
            assert torch.allclose(scale, wanted, atol=1e-6), (index, module.info.name)
            assert torch.equal(scale == 0, wanted == 0)
            assert torch.allclose(module.lora_A, other.lora_A["default"], atol=1e-6)
            pruned += sum(not keep for keep in kept)
        pattern = peft.peft_config["default"].rank_pattern
        if pattern:
            ranks = [sum(kept) for name in names for key, kept in pattern.items() if f".{name}.lora_E" in f".{key}"]
            if index >= 15 or index % 2 == 0:
                assert ranks == [sum(kept) for kept in ours.strategy.pattern]
    assert pruned
    ours._advance(order)
    assert sum(module.rank for module in ours.adapters) == 2 * len(names)
