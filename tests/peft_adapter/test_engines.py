"""How engines read adapters: the rules, and twenty folders as PEFT, other trainers and we ourselves write them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from dynlora.cli.main import main
from dynlora.errors import AdapterError
from dynlora.peft_adapter.engines import ENGINES, REFUSES, RIGHT, WRONG, check_engines
from dynlora.peft_adapter.read import read_header

pytestmark = pytest.mark.filterwarnings("ignore")

EVERY = set(ENGINES)
TARGETS = ["q_proj", "v_proj"]


def llama() -> LlamaForCausalLM:
    """A random Llama of two blocks."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    ).eval()


def saved(config: Any, folder: Path) -> Path:
    """Write an adapter of PEFT's."""
    peft.get_peft_model(llama(), config).save_pretrained(folder)
    return folder


def lora(**settings: Any) -> Callable[[Path], Path]:
    """Return what writes a LoRA of PEFT's."""
    return lambda folder: saved(
        peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **settings}),
        folder,
    )


def other(kind: str, **settings: Any) -> Callable[[Path], Path]:
    """Return what writes an adapter of another method of PEFT's."""
    return lambda folder: saved(getattr(peft, kind)(**{"target_modules": TARGETS, **settings}), folder)


def changed(make: Callable[[Path], Path], **values: Any) -> Callable[[Path], Path]:
    """Return what writes an adapter and changes its configuration."""

    def write(folder: Path) -> Path:
        path = make(folder) / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return folder

    return write


def without_a_layer(folder: Path) -> Path:
    """An adapter as it was trained whose second block lacks v: its rank fell to 0."""
    lora()(folder)
    file = folder / "adapter_model.safetensors"
    save_file({name: values for name, values in load_file(file).items() if "layers.1.self_attn.v" not in name}, file)
    return folder


def named(names: Callable[[str], dict[str, str]]) -> Callable[[Path], Path]:
    """Return what writes an adapter with names of another trainer; `names` gives those of down, up and alpha."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True)
        tensors: dict[str, np.ndarray] = {}
        for module in ("down_blocks.0.attn1.to_q", "down_blocks.0.attn1.to_k"):
            for factor, name in names(module).items():
                shape = {"down": (4, 8), "up": (8, 4), "alpha": ()}[factor]
                tensors[name] = np.full(shape, 2.0, np.float32)
        save_file(tensors, folder / "pytorch_lora_weights.safetensors")
        return folder

    return write


def kohya(module: str) -> dict[str, str]:
    key = f"lora_unet_{module.replace('.', '_')}"
    return {"down": f"{key}.lora_down.weight", "up": f"{key}.lora_up.weight", "alpha": f"{key}.alpha"}


def diffusers(module: str) -> dict[str, str]:
    return {"down": f"unet.{module}.lora_A.weight", "up": f"unet.{module}.lora_B.weight"}


@dataclass
class Case:
    """A folder, and the engines that do not read it right, by their verdict."""

    write: Callable[[Path], Path]
    refuse: set[str]
    wrong: set[str]


NOT_MLX = {"mlx"}
STACKING = {"sglang", "tgi", "lorax"}
OLLAMA_TOO = {"llama.cpp", "ollama"}
EQUAL_ONLY = EVERY - {"peft", "mlx"}
CASES = {
    "LoRA": Case(lora(), NOT_MLX, set()),
    "alpha with a fraction": Case(changed(lora(), lora_alpha=8.0), {"mlx", "ollama"}, set()),
    "rsLoRA": Case(lora(use_rslora=True), NOT_MLX, OLLAMA_TOO),
    "DoRA": Case(lora(use_dora=True), EVERY - {"peft"}, set()),
    "AdaLoRA": Case(other("AdaLoraConfig", init_r=4, target_r=2, total_step=10), EVERY - {"peft"}, set()),
    "LoHa": Case(other("LoHaConfig"), EVERY - {"peft"}, set()),
    "IA3": Case(other("IA3Config", feedforward_modules=[]), EVERY - {"peft"}, set()),
    "VeRA": Case(other("VeraConfig", target_modules=["q_proj"]), EVERY - {"peft"}, set()),
    "PiSSA": Case(changed(lora(), init_lora_weights="pissa"), NOT_MLX, EQUAL_ONLY),
    "LoftQ": Case(changed(lora(), init_lora_weights="loftq", loftq_config={"loftq_bits": 4}), NOT_MLX, EQUAL_ONLY),
    "LoftQ without its settings": Case(
        changed(lora(), init_lora_weights="loftq"), NOT_MLX | {"peft"}, EQUAL_ONLY - {"peft"}
    ),
    "trained biases": Case(lora(bias="all"), EVERY - {"peft", "tgi", "lorax"}, {"tgi", "lorax"}),
    "modules trained in full": Case(
        lora(modules_to_save=["lm_head"]), EVERY - {"peft", "tgi", "lorax"}, {"tgi", "lorax"}
    ),
    "trained tokens": Case(lora(trainable_token_indices=[1, 5]), EVERY - {"peft", "tgi", "lorax"}, {"tgi", "lorax"}),
    "an embedding with its weights": Case(
        lora(target_modules=["embed_tokens"]), EVERY - {"peft", "tgi", "lorax"}, {"tgi", "lorax"}
    ),
    "a task that is none": Case(changed(lora(), task_type="EVIL"), NOT_MLX | {"peft"}, set()),
    "one rank of 8 among 4": Case(
        lora(rank_pattern={"v_proj": 8}, alpha_pattern={"v_proj": 16}), {"sglang", "mlx"}, OLLAMA_TOO
    ),
    "ranks from 4 to 16": Case(
        lora(rank_pattern={"v_proj": 16}, alpha_pattern={"v_proj": 32}), STACKING | NOT_MLX, OLLAMA_TOO
    ),
    "a layer without v": Case(without_a_layer, {"sglang", "mlx"}, {"tgi", "lorax"}),
    "other layers": Case(changed(lora(), layer_replication=[[0, 1], [0, 2]]), {"vllm", "mlx"}, set()),
    "kohya": Case(named(kohya), EVERY, set()),
    "diffusers": Case(named(diffusers), EVERY, set()),
}


@pytest.mark.parametrize("name", CASES)
def test_each_engine_reads_an_adapter_as_its_rule_says(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    header = read_header(case.write(tmp_path / "adapter"))
    readings = {reading.engine: reading for reading in check_engines(header)}
    assert {name for name, one in readings.items() if one.verdict == REFUSES} == case.refuse
    assert {name for name, one in readings.items() if one.verdict == WRONG} == case.wrong
    for reading in readings.values():
        assert reading.version
        assert re.search(r"\.(py|h|go)", reading.source)
        assert bool(reading.remedy) == (reading.verdict != RIGHT)


@pytest.mark.parametrize("command", [["check"], ["inspect"], ["convert", "--out", "OUT"]])
def test_a_module_that_lacks_a_factor_is_the_same_sentence_for_every_command(
    command: list[str], tmp_path: Path
) -> None:
    folder = lora()(tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    save_file(
        {name: values for name, values in load_file(file).items() if "1.self_attn.v_proj.lora_A" not in name}, file
    )
    run = CliRunner().invoke(main, [command[0], str(folder), *command[1:]])
    assert run.exit_code == 2
    assert "module model.layers.1.self_attn.v_proj lacks lora_A or lora_B; save the adapter again" in run.output


def test_vllm_is_told_the_rank_it_needs(tmp_path: Path) -> None:
    header = read_header(lora(r=24, lora_alpha=48)(tmp_path / "adapter"))
    (vllm,) = check_engines(header, ("vllm",))
    assert (vllm.verdict, vllm.reason) == (RIGHT, "needs --max-lora-rank 32")


def test_the_command_ends_with_one_where_an_engine_asked_for_fails(tmp_path: Path) -> None:
    folder = lora(rank_pattern={"v_proj": 16})(tmp_path / "adapter")
    run = CliRunner().invoke(main, ["check", str(folder), "--for", "vllm,sglang"])
    assert run.exit_code == 1
    assert run.output.startswith("1 of 2 engines read it right: vllm\n")
    assert f"→ dynlora convert {folder} --ranks uniform --out OUT" in run.output
    assert CliRunner().invoke(main, ["check", str(folder), "--for", "vllm"]).exit_code == 0
    assert CliRunner().invoke(main, ["check", str(folder)]).exit_code == 0
    document = json.loads(CliRunner().invoke(main, ["check", str(folder), "--json"]).output)
    assert [engine["engine"] for engine in document["engines"]] == list(ENGINES)
    assert "--for other: must be one of peft, vllm" in str(
        CliRunner().invoke(main, ["check", str(folder), "--for", "other"]).output
    )


def test_a_pickle_and_a_lying_header_are_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = lora()(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"adapter_model\.bin is a pickle"):
        read_header(folder)
    (folder / "adapter_model.safetensors").write_bytes((10**6).to_bytes(8, "little") + b"{}")
    with pytest.raises(AdapterError, match="its header would be 1,000,000 bytes"):
        read_header(folder)
