"""What lets larger models fit: checkpointed blocks, weights in bf16, 8 or 4 bits, packed texts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from dynlora.config import parse_config
from dynlora.engine.evaluation.inference import merge
from dynlora.engine.recorder import NullRecorder
from dynlora.errors import ConfigError
from dynlora.inference.export import export_run
from dynlora.inference.session import evaluate_run, load_run
from dynlora.store import queries
from dynlora.training import run
from dynlora.training.build import build_trainer, make_accelerator
from dynlora.training.inputs import load_inputs
from dynlora.training.preflight import preflight
from tests.tiny import save_tiny, tiny_values
from tests.tiny_lm import lm_values, save_lines, save_problems, save_tiny_lm


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The values of a run of `dynamic` on a tiny Llama with dropout."""
    folder = tmp_path_factory.mktemp("size")
    (folder / "data").mkdir()
    data = save_problems(folder / "data")
    return lm_values(save_tiny_lm(folder / "model"), data, adapter={"rank": 4, "dropout": 0.1})


def with_settings(values: dict[str, Any], strategy: str = "dynamic", **settings: Any) -> Any:
    """Return a config; `model__dtype=...` sets model.dtype."""
    sections = {name: dict(section) if isinstance(section, dict) else section for name, section in values.items()}
    sections["strategy"] = {"name": strategy}
    for key, value in settings.items():
        section, _, name = key.partition("__")
        sections[section][name] = value
    return parse_config(sections)


def prepared(config: Any) -> Any:
    """Return the trainer of a config before its first step."""
    return build_trainer(load_inputs(config), NullRecorder(), Accelerator(cpu=True))


def advanced(trainer: Any, steps: int = 3) -> Any:
    """Return the trainer some steps later."""
    order, signals = trainer.begin()
    trainer.model.train()
    for _ in range(steps):
        trainer.take_step(order, signals)
    return trainer


def test_checkpointed_blocks_give_the_same_gradients_to_every_adapter(writer: dict[str, Any]) -> None:
    plain = prepared(with_settings(writer))
    checkpointed = prepared(with_settings(writer, train__gradient_checkpointing=True))
    calls = {"plain": 0, "checkpointed": 0}
    for name, trainer in (("plain", plain), ("checkpointed", checkpointed)):
        block = trainer.model.model.layers[0].mlp.down_proj

        def count(*_: Any, name: str = name) -> None:
            calls[name] += 1

        block.register_forward_pre_hook(count)
        order, _ = trainer.begin()
        trainer.model.train()
        trainer._backward(order, 1)
    assert calls["checkpointed"] == calls["plain"] + 1  # a second forward in the backward pass
    for one, other in zip(plain.adapters, checkpointed.adapters, strict=True):
        assert one.lora_B.grad is not None
        assert one.lora_B.grad.abs().max() > 0
        assert torch.equal(one.lora_B.grad, other.lora_B.grad), one.info.name


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_weights_in_bf16_leave_adapters_and_head_in_fp32(
    architecture: str, writer: dict[str, Any], tmp_path: Path, tiny_data: Path
) -> None:
    if architecture == "bert":
        values = tiny_values(save_tiny("bert", tmp_path / "bert"), tiny_data)
        values["train"].pop("precision", None)
        kinds: dict[str, Any] = values
    else:
        kinds = {**writer, "train": {k: v for k, v in writer["train"].items() if k != "precision"}}
    trainer = advanced(prepared(with_settings(kinds, model__dtype="bf16")))
    trained = {name for name, tensor in trainer.model.named_parameters() if tensor.requires_grad}
    for name, tensor in trainer.model.named_parameters():
        assert tensor.dtype == (torch.float32 if name in trained else torch.bfloat16), name
    whole = advanced(prepared(with_settings(kinds, train__precision="fp32")))
    assert trainer.loss == pytest.approx(whole.loss, rel=0.02)


def test_weights_in_bf16_and_fp32_products_do_not_go_together(writer: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"train\.precision=fp32: weights kept in bf16 compute in bf16; drop"):
        with_settings(writer, model__dtype="bf16", train__precision="fp32")


@pytest.fixture(scope="module", params=["nf4", "int8"])
def quantized(request: pytest.FixtureRequest, writer: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on quantised weights."""
    config = with_settings(writer, "lora", model__quantization=request.param)
    outcome = run.train(config, tmp_path_factory.mktemp(request.param), progress=False)
    assert outcome.state == "finished", outcome.error
    return outcome.folder


def test_a_run_on_quantised_weights_learns_and_is_loaded_as_it_was_trained(quantized: Path) -> None:
    summary = queries.run_summary(quantized)
    losses = queries.scalars_frame(quantized, "loss")
    held_out = losses[losses["split"] == "validation"]["value"].tolist()
    assert held_out[-1] < held_out[0]
    assert evaluate_run(quantized)["metrics"]["loss"] == pytest.approx(summary.metrics["loss"], rel=1e-5)


def test_its_merged_export_is_of_the_weights_it_was_trained_on(quantized: Path, tmp_path: Path) -> None:
    import transformers

    export_run(quantized, tmp_path / "out", format="merged")
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert {tensor.dtype for tensor in merged.parameters()} == {torch.float32}
    model = load_run(quantized)
    ids = torch.tensor([[40, 50, 60, 70, 80]])
    with torch.no_grad():
        own, other = model.base.model(input_ids=ids).logits, merged(input_ids=ids).logits
    kind = queries.run_summary(quantized).config["model"]["quantization"]
    tolerance = 1e-4 if kind == "nf4" else 0.05 * float(own.abs().max())  # int8 rounds the inputs of its products
    assert torch.allclose(own, other, atol=tolerance)
    merge(model)
    with torch.no_grad():
        assert torch.allclose(model.base.model(input_ids=ids).logits, other, atol=1e-5)


def test_the_card_of_its_adapter_says_what_it_was_trained_on(quantized: Path, tmp_path: Path) -> None:
    export_run(quantized, tmp_path / "out")
    kind = queries.run_summary(quantized).config["model"]["quantization"]
    assert f"quantised to `{kind}` while training" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_the_check_counts_passes_over_packed_sequences(writer: dict[str, Any]) -> None:
    report = preflight(with_settings(writer, "lora", data__packing=True))
    rows = preflight(with_settings(writer, "lora"))["schedule"]["epochs"]
    assert report["schedule"]["epochs"] > 1.5 * rows


def test_rows_become_tokens_once(writer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from dynlora.engine.data import packing

    real, sides = packing.tokenize, list[int]()
    monkeypatch.setattr(packing, "tokenize", lambda *given: (sides.append(len(given[1])), real(*given))[1])
    preflight(with_settings(writer, "lora"))
    assert sorted(sides) == [40, 120]


def test_an_evaluation_leaves_quantised_weights_as_they_are(writer: dict[str, Any]) -> None:
    trainer = prepared(with_settings(writer, "lora", model__quantization="nf4"))
    layer = trainer.adapters[0].base_layer
    before, scales = layer.weight.data.clone(), layer.weight.quant_state.absmax.clone()
    assert layer.weight.dtype == torch.uint8
    trainer.predictions(trainer.evaluation.tokens)
    assert torch.equal(layer.weight.data, before)
    assert torch.equal(layer.weight.quant_state.absmax, scales)


def test_preflight_counts_four_bit_weights_as_weights(writer: dict[str, Any]) -> None:
    whole = preflight(with_settings(writer, "lora"))
    packed = preflight(with_settings(writer, "lora", model__quantization="nf4"))
    assert packed["params"]["frozen"] == whole["params"]["frozen"]
    assert packed["memory_mib"]["weights"] < whole["memory_mib"]["weights"]


def test_a_head_that_is_trained_is_not_quantised(tmp_path: Path, tiny_data: Path) -> None:
    values = tiny_values(save_tiny("bert", tmp_path / "bert"), tiny_data)
    trainer = advanced(prepared(with_settings(values, "lora", model__quantization="nf4")))
    assert trainer.model.classifier.weight.dtype == torch.float32
    assert trainer.model.classifier.weight.requires_grad
    assert type(trainer.adapters[0].base_layer).__name__ == "Linear4bit"


def test_methods_that_read_the_weights_refuse_quantised_ones(writer: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="load the model without quantisation"):
        run.train(with_settings(writer, "glora", model__quantization="nf4"), tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_quantisation_without_its_package_is_a_sentence(
    writer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "bitsandbytes" else find_spec(name, *args)
    )
    with pytest.raises(ConfigError, match=r"model\.quantization=nf4: needs the package bitsandbytes.*pip install"):
        load_inputs(with_settings(writer, model__quantization="nf4"))


def test_epochs_count_the_packed_sequences(writer: dict[str, Any]) -> None:
    values = {**writer, "train": {**writer["train"], "epochs": 2}}
    values["train"].pop("steps")
    plain, packed = (load_inputs(with_settings(values, data__packing=flag)) for flag in (False, True))
    assert plain.total == 30  # 120 rows, 8 each
    trainer = build_trainer(packed, NullRecorder(), Accelerator(cpu=True))
    assert packed.total == -(-2 * len(trainer.tokens) // 8) < plain.total


def test_epochs_count_no_rows_that_are_left_out(writer: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"prompt": "a" * 60 if index % 2 else "a:", "completion": "b"} for index in range(80)]
    values = {**writer, "data": {"path": str(save_lines(tmp_path / "rows.jsonl", rows)), "max_length": 48}}
    values["train"] = {"epochs": 1, "batch_size": 8, "lr": 1e-2, "precision": "fp32"}
    assert load_inputs(with_settings(values)).total == 5  # of 72 training rows half keep a completion


def test_packing_is_for_texts_that_are_written(tmp_path: Path, tiny_data: Path) -> None:
    values = tiny_values(save_tiny("bert", tmp_path / "bert"), tiny_data)
    with pytest.raises(ConfigError, match=r"data\.packing=true: packs the texts of language models, and in data\.task"):
        load_inputs(with_settings(values, data__packing=True))


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_weights_in_pieces_are_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match=f"{variable}=true: .* ranks change inside of them; launch with accelerate"):
        make_accelerator()


@pytest.mark.journey
def test_no_code_is_fetched_from_the_hub() -> None:
    pytest.importorskip("kernels", reason="only this package fetches code; transformers requires it since 5.25")
    code = """if True:
        import kernels

        def refuse(*_, **__):
            raise SystemExit("code was asked for")

        kernels.get_kernel = refuse  # before the packages below take it
        import torch
        from dynlora.engine.model.base_model import quantization_config
        from transformers.integrations.hub_kernels import lazy_load_kernel

        quantization_config("nf4", torch.float32, [])
        lazy_load_kernel("finegrained-fp8")  # what layers of models in 8-bit floats ask for
        assert kernels.get_kernel is refuse  # others may import it
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
