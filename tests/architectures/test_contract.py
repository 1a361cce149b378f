"""What holds for every architecture: it trains with every method that claims it, or a sentence says why not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynlora import strategies
from dynlora.config import parse_config
from dynlora.contracts.harness import WRITER, ListRecorder, MemoryKeeper, make_trainer, tiny_config, tiny_tokens
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.generate import Limits, write
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates, merge
from dynlora.engine.loop.trainer import Trainer
from dynlora.errors import AssetError, ConfigError, DynloraError
from dynlora.training.preflight import preflight
from dynlora.training.run import plan
from tests.architectures import tiny_models as tiny
from tests.tiny import save_data, tiny_values
from tests.tiny_lm import lm_values, save_problems

pytestmark = pytest.mark.slow

CASES = [(name, "classify") for name in tiny.CLASSIFIERS] + [(name, "write") for name in tiny.WRITERS]

USUAL = ("lora", "dynamic")
"""Methods that every architecture is tried with: `dynamic`, which has adapters, gates and moves, always, `lora` with a
quarter of them. The rest, and all other methods, in `make torture`."""

WRITERS_BY_MODE = [
    pytest.param(architecture, mode, marks=() if (i + j) % 3 == 0 else pytest.mark.torture)
    for i, architecture in enumerate(tiny.WRITERS)
    for j, mode in enumerate(("module", "rank", "token"))
]
"""Each architecture that writes with one kind of gates; with the others in `make torture`."""

WITHOUT_GATE = {
    "deberta_v2": {"query_proj", "key_proj"},  # they project the table of relative positions, too
}
"""Endings of the modules that have no gate, by architecture; everywhere else every module has one."""

WITHOUT_ADAPTER = {
    ("mamba", "write"): {"x_proj", "dt_proj", "out_proj"},  # the mixer's fused kernel takes their weights
    ("bart", "write"): {f"encoder_attn.{name}_proj" for name in ("q", "k", "v", "out")},  # there is no encoder
}


def ended_tokens() -> Tokens:
    """Return the harness's rows with an end token at the end of each: encoders with a decoder read the class there."""
    rows = tiny_tokens()
    features = [{**row, "input_ids": [*row["input_ids"][:-1], tiny.END]} for row in rows.features]
    return dataclasses.replace(rows, features=features)


def trainer_of(architecture: str, use: str, method: str, **overrides: Any) -> Trainer:
    """Return a trainer on a tiny model of an architecture."""
    gates = {"strategy__gates": "module"} if method == "dynamic" and "strategy" not in overrides else {}
    config = tiny_config(method, train__lr=5e-3, **gates, **overrides)
    if use == "write":
        return make_trainer(config, WRITER, model=tiny.tiny_writer(architecture))
    return make_trainer(config, model=tiny.tiny_classifier(architecture), tokens=ended_tokens())


def batch_of(trainer: Trainer, n: int = 6) -> dict[str, torch.Tensor]:
    """Return a batch without its labels."""
    return {name: tensor for name, tensor in trainer.tokens.batch(range(n)).items() if name != "labels"}


def logits(trainer: Trainer) -> torch.Tensor:
    """Return what the model says of a batch; of padding nothing is compared."""
    batch = batch_of(trainer)
    trainer.model.eval()
    with torch.no_grad():
        own_logits = trainer.model(**batch).logits
    return own_logits if own_logits.dim() == 2 else own_logits[batch["attention_mask"].bool()]


@pytest.mark.parametrize(
    ("architecture", "use", "method"),
    [
        pytest.param(*case, method, marks=() if method == "dynamic" or at % 4 == 0 else pytest.mark.torture)
        for at, case in enumerate(CASES)
        for method in USUAL
    ],
)
def test_an_architecture_trains_and_merges(architecture: str, use: str, method: str) -> None:
    trainer = trainer_of(architecture, use, method, train__steps=10, log__eval_every=10)
    with_adapters = logits(trainer)
    with trainer.adapters.disabled():
        assert torch.equal(with_adapters, logits(trainer)), "B = 0 and gates of one leave the model as it is"
    trainer.recorder = recorder = ListRecorder()
    moved = dict.fromkeys((module.info.name for module in trainer.adapters), False)
    observed = trainer.strategy.observe

    def watch(adapters: Any, step: Any) -> None:
        for module in adapters:
            if module.lora_B.grad is not None and bool(module.lora_B.grad.any()):
                moved[module.info.name] = True
        observed(adapters, step)

    trainer.strategy.observe = watch  # pyright: ignore[reportAttributeAccessIssue]
    trainer.train(MemoryKeeper())
    losses = recorder.scalars["loss", "validation"]
    assert losses[10] < losses[0]
    assert all(moved.values()), [name for name, value in moved.items() if not value]
    check_gates(trainer, architecture, recorder)
    check_merge(trainer)


def check_gates(trainer: Trainer, architecture: str, recorder: ListRecorder) -> None:
    """Check that gates move for all modules but the known ones, and are recorded; nothing where there are none."""
    if trainer.adapters.gates is None:
        return
    bare = WITHOUT_GATE.get(architecture, set())
    for module in trainer.adapters:
        assert (module.gates is None) == (module.info.name.rpartition(".")[2] in bare), module.info.name
    last = recorder.vectors["gate"][10]
    has_gate = np.array([module.gates is not None for module in trainer.adapters])
    assert (np.abs(last[has_gate] - 1) > 0).all()
    assert (last[~has_gate] == 1).all()
    assert len(recorder.vectors["gate"]) == 11
    counted = trainer.adapters.gate_parameters()
    assert counted == 9 * has_gate.sum()
    assert any("no gate" in note for note in trainer.adapters.notes) == (not has_gate.all())


def check_merge(trainer: Trainer) -> None:
    """Check that folding the adapters into the weights leaves what the model says."""
    base: Any = type("Base", (), {"model": trainer.model})()
    task = trainer.evaluation.task
    model = AdaptedModel(base, trainer.adapters, trainer.strategy, task, 16, trainer.autocast)
    bake_gates(model, mean_gates(model, trainer.tokens))
    unmerged = logits(trainer)
    merge(model)
    assert not any(name.endswith("lora_B") for name in trainer.model.state_dict())
    assert torch.allclose(logits(trainer), unmerged, atol=1e-5)


@pytest.mark.parametrize(("architecture", "use"), CASES)
def test_modules_without_effect_are_left_out_and_named(architecture: str, use: str) -> None:
    trainer = trainer_of(architecture, use, "lora")
    names = {module.info.name for module in trainer.adapters}
    linear = {
        name
        for name, module in trainer.model.named_modules()
        if isinstance(module, torch.nn.Linear) and any(part.isdigit() for part in name.split("."))
    }
    left = {name for name in linear if not name.endswith("base_layer")}
    expected = WITHOUT_ADAPTER.get((architecture, use), set())
    assert {name for name in left if not any(name.endswith(end) for end in expected)} == set()
    assert bool(left) == bool(expected)
    assert any("no adapter" in note for note in trainer.adapters.notes) == bool(expected)
    assert names


@pytest.mark.parametrize("use", ["classify", "write"])
def test_experts_in_one_tensor_are_named_and_attention_is_adapted(use: str) -> None:
    trainer = trainer_of("mixtral", use, "lora")
    assert {module.info.name.rpartition(".")[2] for module in trainer.adapters} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    }
    [note] = trainer.adapters.notes
    assert "experts.gate_up_proj" in note
    assert "not adapted" in note


@torch.no_grad()
def draw_gates(trainer: Trainer) -> None:
    """Draw gates that are far from one, and updates that they scale."""
    torch.manual_seed(0)
    trainer.adapters.gates.weight.normal_()  # pyright: ignore[reportOptionalMemberAccess]
    for module in trainer.adapters:
        module.lora_B[:, : module.rank].normal_(std=0.1)


@pytest.mark.parametrize(("architecture", "mode"), WRITERS_BY_MODE)
def test_gates_of_a_writer_do_not_see_later_tokens(architecture: str, mode: str) -> None:
    trainer = trainer_of(architecture, "write", "dynamic", strategy={"name": "dynamic", "gates": mode})
    draw_gates(trainer)
    trainer.model.eval()
    ids = torch.arange(3, 19).view(2, 8)
    other = ids.clone()
    other[:, 5:] += 20
    with torch.no_grad():
        before, changed = (
            trainer.model(input_ids=each, attention_mask=torch.ones_like(ids)).logits for each in (ids, other)
        )
    assert torch.allclose(before[:, :5], changed[:, :5], atol=1e-5)
    assert not torch.allclose(before[:, 5:], changed[:, 5:], atol=1e-3)


@pytest.mark.parametrize("architecture", tiny.CLASSIFIERS)
def test_an_example_is_classified_alike_whatever_is_beside_it(architecture: str) -> None:
    """A gate that were another example's would show here."""
    trainer = trainer_of(architecture, "classify", "dynamic")
    draw_gates(trainer)
    trainer.model.eval()
    rows = np.flatnonzero(trainer.tokens.length == trainer.tokens.length[0])[:3]
    together, alone = trainer.tokens.batch(rows), trainer.tokens.batch(rows[:1])
    for batch in (together, alone):
        batch.pop("labels")
    with torch.no_grad():
        assert torch.allclose(trainer.model(**together).logits[:1], trainer.model(**alone).logits, atol=1e-5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return folders with data to classify and to write."""
    folders = {use: tmp_path_factory.mktemp(use) for use in ("classify", "write")}
    return {"classify": save_data(folders["classify"]), "write": save_problems(folders["write"])}


@pytest.mark.parametrize(
    ("architecture", "use"),
    [
        pytest.param(*case, marks=pytest.mark.torture if case[0] in tiny.WRITERS and case[1] == "classify" else ())
        for case in CASES
    ],
)
def test_the_check_before_a_run_takes_a_step(
    architecture: str, use: str, data: dict[str, Path], tmp_path: Path
) -> None:
    save, values = (tiny.save_writer, lm_values) if use == "write" else (tiny.save_classifier, tiny_values)
    gated = {"name": "dynamic", "gates": "module"}
    report = preflight(parse_config(values(save(architecture, tmp_path), data[use], strategy=gated)))
    assert report["modules"] > 0
    assert report["params"]["active"] > 0
    assert any("no gate" in warning for warning in report["warnings"]) == (architecture in WITHOUT_GATE)


@pytest.mark.parametrize("check", [plan, preflight])
@pytest.mark.parametrize("architecture", tiny.ENCODERS_THAT_WRITE)
def test_an_encoder_that_is_to_write_is_refused(
    architecture: str, check: Any, data: dict[str, Path], tmp_path: Path
) -> None:
    model = tiny.save_writer(architecture, tmp_path)
    with pytest.raises(AssetError, match="is an encoder .* use a decoder"):
        check(parse_config(lm_values(model, data["write"])))


@pytest.mark.parametrize("check", [plan, preflight])
@pytest.mark.parametrize("architecture", ["t5", "umt5"])
def test_the_encoder_of_a_pair_alone_is_refused(
    architecture: str, check: Any, data: dict[str, Path], tmp_path: Path
) -> None:
    import transformers

    tiny.save_classifier(architecture, tmp_path)
    whole = transformers.AutoModel.from_pretrained(tmp_path)
    encoder = getattr(transformers, type(whole).__name__.replace("Model", "EncoderModel"))
    encoder.from_pretrained(tmp_path).save_pretrained(tmp_path)
    with pytest.raises(AssetError, match=r"lacks \d+ weights of the blocks .*; use a checkpoint of the whole model"):
        check(parse_config(tiny_values(tmp_path, data["classify"])))


@pytest.mark.parametrize("check", [plan, preflight])
def test_a_model_without_a_head_for_the_task_is_refused(check: Any, data: dict[str, Path], tmp_path: Path) -> None:
    tiny.save_writer("mamba", tmp_path)
    with pytest.raises(DynloraError, match=r"model\.name=.*cannot be loaded for classification"):
        check(parse_config(tiny_values(tmp_path, data["classify"])))


@pytest.mark.torture
@pytest.mark.parametrize("method", [name for name in strategies.registry() if name not in USUAL])
@pytest.mark.parametrize(("architecture", "use"), CASES)
def test_every_method_trains_every_architecture_it_claims(architecture: str, use: str, method: str) -> None:
    if (reason := refusal(architecture, use, method)) is not None:
        assert "\n" not in reason
        assert reason.split("=")[0] in ("strategy.name", "data.task"), reason
        return
    trainer = trainer_of(architecture, use, method)
    trainer.recorder = recorder = ListRecorder()
    trainer.train(MemoryKeeper())
    losses = recorder.scalars["loss", "validation"]
    assert np.isfinite(losses[20])
    assert losses[20] < losses[0] + 0.05


def refusal(architecture: str, use: str, method: str) -> str | None:
    """Return why a method does not take an architecture, None where it does."""
    try:
        trainer_of(architecture, use, method)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta_v2", "bart", "t5"])
def test_the_output_layer_of_a_head_alone_has_the_rate_of_the_head(architecture: str) -> None:
    trainer = trainer_of(architecture, "classify", "lora", train__head_lr=0.05)
    peaks = {id(tensor): group["peak_lr"] for group in trainer.optimizer.param_groups for tensor in group["params"]}
    model: Any = trainer.model
    classes = model.config.num_labels
    head = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad and "lora_" not in name}
    rates = {name: (peaks[id(one)], 0.05 if one.shape[0] == classes else 0.005) for name, one in head.items()}
    assert rates
    assert all(rate == due for rate, due in rates.values()), rates
    assert (0.005 in {rate for rate, _ in rates.values()}) == (architecture != "bert"), (
        "a head of one layer has no other"
    )
    same = trainer_of(architecture, "classify", "lora", train__head_lr=None)
    assert {group["peak_lr"] for group in same.optimizer.param_groups} == {0.005}


@pytest.mark.parametrize("architecture", ["bart", "t5"])
def test_a_method_that_compares_blocks_refuses_an_encoder_with_a_decoder(
    architecture: str, data: dict[str, Path], tmp_path: Path
) -> None:
    model = tiny.save_classifier(architecture, tmp_path)
    for check in (plan, preflight):
        with pytest.raises(ConfigError, match=r"strategy\.name=gelora: compares the states of one stack of blocks"):
            check(parse_config(tiny_values(model, data["classify"], strategy={"name": "gelora"})))


@pytest.mark.parametrize("check", [plan, preflight])
def test_members_that_cannot_be_separated_are_refused_before_the_first_step(
    check: Any, data: dict[str, Path], tmp_path: Path
) -> None:
    model = tiny.save_classifier("deberta_v2", tmp_path)
    ensemble = {"name": "lora_ensemble", "members": 2}
    with pytest.raises(
        ConfigError, match=r"query_proj.* members cannot be separated; exclude it with adapter\.targets"
    ):
        check(parse_config(tiny_values(model, data["classify"], strategy=ensemble)))
    rest = ["value_proj", "dense"]
    assert check(parse_config(tiny_values(model, data["classify"], strategy=ensemble, adapter__targets=rest)))
    alone = {"name": "lora_ensemble", "members": 1}
    assert check(parse_config(tiny_values(model, data["classify"], strategy=alone))), "there is nobody to separate"


@pytest.mark.parametrize(("architecture", "mode"), WRITERS_BY_MODE)
def test_a_text_is_written_as_if_all_of_it_were_read_anew_at_each_token(architecture: str, mode: str) -> None:
    """Caches of keys and states, and the gates' sums over what is written, carry on from token to token."""
    trainer = trainer_of(architecture, "write", "dynamic", strategy={"name": "dynamic", "gates": mode})
    draw_gates(trainer)
    model: Any = trainer.model.eval()
    prompts = [[5, 9, 14, 33], [7, 8]]
    tokenizer = type("Tokenizer", (), {"pad_token_id": tiny.PAD, "eos_token_id": tiny.END})()
    texts = write(model, tokenizer, prompts, Limits(6, 64), trainer.adapters.gates)
    for prompt, written in zip(prompts, texts, strict=True):
        ids = list(prompt)
        for token in written.ids:
            with torch.no_grad():
                read = torch.tensor([ids])
                logits = model(input_ids=read, attention_mask=torch.ones_like(read), use_cache=False).logits[0, -1]
            assert logits[token] >= logits.max() - 1e-4
            ids.append(token)
        assert written.ended or len(written.ids) == 6
