"""EVA: directions and ranks from the inputs, against PEFT's own initialisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.utils.incremental_pca import IncrementalPCA

from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config, tiny_model, tiny_tokens
from dynlora.engine.data.batches import calibration_batches


def eva(**fields: Any) -> dict[str, Any]:
    """Return the strategy's settings."""
    return {"name": "eva", **fields}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning", "ignore:lora with eva:UserWarning")
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_ranks_and_directions_follow_peft(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = IncrementalPCA  # PEFT's own decomposition is a randomised one, and turns the last components a little
    monkeypatch.setattr("peft.tuners.lora.eva.IncrementalPCA", lambda **kw: exact(**{**kw, "lowrank": False}))
    settings = eva(budget="components", max_batches=64)
    ours = make_trainer(tiny_config("eva", strategy=settings), architecture)
    names = [module.info.name for module in ours.adapters]
    model = get_peft_model(
        tiny_model(architecture),
        LoraConfig(
            task_type="SEQ_CLS",
            r=2,
            lora_alpha=4,
            target_modules=names,
            init_lora_weights="eva",
            eva_config=EvaConfig(rho=2.0, tau=0.99),
        ),
    )
    batches = [{k: v for k, v in batch.items() if k != "labels"} for batch in calibration_batches(tiny_tokens(), 64, 0)]
    initialize_lora_eva_weights(model, dataloader=batches, show_progress_bar=False)
    theirs = {}
    for name in names:
        module = model.base_model.model.get_submodule(name)
        theirs[name] = module.lora_A["default"].weight if hasattr(module, "lora_A") else torch.zeros(0, 1)
    assert [module.rank for module in ours.adapters] == [len(theirs[name]) for name in names]
    assert sum(module.rank for module in ours.adapters) == 2 * len(names)
    for module in ours.adapters:
        A, other = module.lora_A.detach(), theirs[module.info.name].detach()
        if module.rank:
            cosines = torch.linalg.svdvals(A @ other.t())  # of the principal angles between the two subspaces
            assert cosines.min() > 0.9999, module.info.name
            peft_module = model.base_model.model.get_submodule(module.info.name)
            assert peft_module.scaling["default"] == pytest.approx(module.scaling)


def test_rows_are_orthonormal_and_the_budget_of_parameters_holds() -> None:
    trainer = make_trainer(tiny_config("eva"))
    ranks = [module.rank for module in trainer.adapters]
    assert len(set(ranks)) > 1
    assert max(ranks) <= 4
    for module in trainer.adapters:
        A = module.lora_A.detach()[: module.rank]
        assert torch.allclose(A @ A.t(), torch.eye(module.rank), atol=1e-5)
        assert not module.lora_B.any()
    count = trainer.adapters.adapter_parameter_count()
    assert count["budget"] - min(m.info.cost for m in trainer.adapters) < count["active"] <= count["budget"]


def test_the_largest_shares_are_taken() -> None:
    strategy = make_trainer(tiny_config("eva", strategy=eva(budget="components"))).strategy
    infos = [module.info for module in make_trainer(tiny_config("lora")).adapters][:3]

    class Seen:
        def __init__(self, *shares: float) -> None:
            self.ratio = torch.tensor(shares, dtype=torch.float64)

    probe: Any = type("Probe", (), {"rank": 2, "budget": 2 * sum(info.cost for info in infos)})
    seen: Any = [Seen(0.9, 0.05, 0.02, 0.01), Seen(0.3, 0.3, 0.2, 0.1), Seen(0.04, 0.03, 0.02, 0.01)]
    assert strategy._earned(infos, probe, seen) == [2, 4, 0]


def test_scaling_stays_or_follows_the_rank() -> None:
    fixed = make_trainer(tiny_config("eva"))
    own = make_trainer(tiny_config("eva", strategy=eva(adjust=False)))
    rooted = make_trainer(tiny_config("eva", strategy=eva(adjust=False, scaling="rank_stabilized")))
    assert {module.scaling for module in fixed.adapters} == {2.0}
    for module, other in zip(own.adapters, rooted.adapters, strict=True):
        assert module.scaling == pytest.approx(4 / max(1, module.rank))
        assert other.scaling == pytest.approx(4 / max(1, other.rank) ** 0.5)


def test_another_start_of_a_keeps_the_ranks() -> None:
    along, drawn = make_trainer(tiny_config("eva")), make_trainer(tiny_config("eva", strategy=eva(init="kaiming")))
    assert [m.rank for m in along.adapters] == [m.rank for m in drawn.adapters]
    assert not torch.allclose(along.adapters[0].lora_A, drawn.adapters[0].lora_A)


def test_what_was_explained_is_recorded() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("eva"), recorder=recorder)
    trainer.train(MemoryKeeper())
    shares = recorder.vectors["explained"][20]
    assert shares.shape == (len(trainer.adapters),)
    assert ((shares >= 0) & (shares <= 1.0001)).all()
    assert all((shares[i] > 0) == (m.rank > 0) for i, m in enumerate(trainer.adapters))
