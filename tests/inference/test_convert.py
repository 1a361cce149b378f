"""Adapter folders of anyone in another form: PEFT's own give equal logits, other trainers' names become PEFT's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from click.testing import CliRunner
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file

import dynlora
from dynlora.cli.main import main
from dynlora.errors import AdapterError, ConfigError, NotMergeableError
from dynlora.inference.forms import convert, forms
from dynlora.inference.forms.gguf import Message, carried_over, modelfile
from dynlora.peft_adapter import read_adapter
from dynlora.peft_adapter.engines import RIGHT, check_engines
from dynlora.peft_adapter.read import read_header
from dynlora.text import printable
from tests.architectures import tiny_models as tiny
from tests.peft_adapter.files import small_adapter
from tests.peft_adapter.test_engines import diffusers, kohya, llama, lora, named

pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS = torch.tensor([[5, 17, 3, 44, 8, 8, 61]])
UNEQUAL: dict[str, Any] = {"rank_pattern": {"v_proj": 8}, "alpha_pattern": {"v_proj": 16}}


def answers(folder: Path) -> np.ndarray:
    """Logits of the tiny Llama with an adapter of PEFT's."""
    with torch.no_grad():
        return peft.PeftModel.from_pretrained(llama(), folder).eval()(TOKENS).logits.numpy()


def trained(folder: Path) -> Path:
    """Give an adapter's B numbers, as training would."""
    file = folder / "adapter_model.safetensors"
    draw = np.random.default_rng(0)
    tensors = {
        name: draw.normal(0, 0.3, values.shape).astype(np.float32) if ".lora_B" in name else values
        for name, values in load_file(file).items()
    }
    save_file(tensors, file)
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"v_proj": 8}, "alpha_pattern": {"v_proj": 12}},
        {"layers_to_transform": [1]},
        {"exclude_modules": [r"model.layers.0.self_attn.q_proj"]},
        {"alpha_pattern": {r".*\.1\..*q_proj": 12}},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_the_uniform_form_gives_the_logits_of_the_source(settings: dict, tmp_path: Path) -> None:
    source = trained(lora(**settings)(tmp_path / "source"))
    document = convert(source, tmp_path / "out", forms()["uniform"])
    np.testing.assert_allclose(answers(tmp_path / "out"), answers(source), atol=1e-6)
    header = read_header(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == document["rank"]
    if "modules_to_save" not in settings:
        wrong = {reading.engine for reading in check_engines(header) if reading.verdict != RIGHT}
        assert wrong == {"mlx"}, "in the uniform form every engine that reads PEFT's names reads it right"


@pytest.mark.parametrize(
    ("architecture", "make"),
    [
        ("bert", tiny.tiny_classifier),  # an encoder
        ("llama", tiny.tiny_writer),  # a decoder
        ("t5", tiny.tiny_classifier),  # an encoder and a decoder
        ("gpt2", tiny.tiny_writer),  # Conv1D: weights transposed
        ("albert", tiny.tiny_classifier),  # blocks that share their modules
    ],
)
def test_every_form_gives_the_same_logits(architecture: str, make: Callable[[str], Any], tmp_path: Path) -> None:
    attached = dynlora.attach(
        make(architecture),
        strategy="dynamic",
        allocation="random",  # ranks that differ, wherever the effects are
        gates="off",
        budget=2,
        steps=6,
        lr=1e-2,
    )
    ids = torch.randint(5, 30, (4, 9), generator=torch.Generator().manual_seed(0))
    ids[:, -1] = tiny.END
    labels = ids if make is tiny.tiny_writer else torch.tensor([0, 1, 1, 0])
    for _ in range(6):
        attached.model(input_ids=ids, labels=labels).loss.backward()
        attached.step()
    attached.model.eval()
    own = attached.export(tmp_path / "own")
    attached.export(tmp_path / "uniform", ranks="uniform")
    convert(own, tmp_path / "converted", forms()["uniform"])
    assert len(set(attached.adapters.ranks)) > 1
    with torch.no_grad():
        of_form = {
            name: peft.PeftModel.from_pretrained(make(architecture), tmp_path / name).eval()(input_ids=ids).logits
            for name in ("own", "uniform", "converted")
        }
        trained, plain = (model.eval()(input_ids=ids).logits for model in (attached.model, make(architecture)))
    for logits in of_form.values():
        torch.testing.assert_close(logits, of_form["own"], rtol=0, atol=1e-6)
        torch.testing.assert_close(logits, trained, rtol=0, atol=1e-5)
    assert (trained - plain).abs().max() > 1e-2, "it was trained"


def test_a_checkpoint_of_the_trainer_is_converted(tmp_path: Path) -> None:
    source = trained(lora(**UNEQUAL)(tmp_path / "checkpoint-2"))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin"):
        (source / name).write_bytes(b"what the Trainer leaves beside the adapter")
    convert(source, tmp_path / "out", forms()["uniform"])
    np.testing.assert_allclose(answers(tmp_path / "out"), answers(source), atol=1e-6)


def test_rows_of_the_base_model_that_have_no_adapter_are_added_where_the_base_is_known(tmp_path: Path) -> None:
    source = trained(lora(layers_to_transform=[0])(tmp_path / "source"))
    llama().save_pretrained(tmp_path / "base")
    assert convert(source, tmp_path / "known", forms()["uniform"], str(tmp_path / "base"))["filled"] == 2
    assert convert(source, tmp_path / "unknown", forms()["uniform"])["filled"] == 0
    np.testing.assert_allclose(answers(tmp_path / "known"), answers(source), atol=1e-6)


@pytest.mark.parametrize("names", [kohya, diffusers])
def test_names_of_other_trainers_become_those_of_peft(names, tmp_path: Path) -> None:
    source = named(names)(tmp_path / "source")
    convert(source, tmp_path / "out", forms()["peft"])
    (one, two) = read_adapter(tmp_path / "out").modules
    assert (one.name, two.name) == ("down_blocks.0.attn1.to_k", "down_blocks.0.attn1.to_q")
    assert (one.rank, one.scaling) == (4, 0.5 if names is kohya else 1.0)


def test_parts_of_a_pipeline_become_a_folder_each(tmp_path: Path) -> None:
    factors = {"lora_down.weight": np.ones((2, 8), np.float32), "lora_up.weight": np.ones((8, 2), np.float32)}
    kernel = {
        "lora_down.weight": np.ones((2, 8, 3, 3), np.float32),
        "lora_up.weight": np.ones((8, 2, 1, 1), np.float32),
    }
    tensors = {f"lora_unet_conv_in.{key}": values for key, values in kernel.items()}
    tensors |= {f"lora_te_text_model_encoder_layers_0_mlp_fc1.{key}": values for key, values in factors.items()}
    (tmp_path / "source").mkdir()
    save_file(tensors, tmp_path / "source" / "last.safetensors")
    convert(tmp_path / "source", tmp_path / "out", forms()["uniform"])
    written = load_file(tmp_path / "out" / "unet" / "adapter_model.safetensors")
    assert written["base_model.model.conv_in.lora_A.weight"].shape == (2, 8, 3, 3)
    assert written["base_model.model.conv_in.lora_B.weight"].shape == (8, 2, 1, 1)
    assert read_adapter(tmp_path / "out" / "te").modules[0].name == "text_model.encoder.layers.0.mlp.fc1"


def test_mlx_and_back_is_the_same_adapter(tmp_path: Path) -> None:
    source = trained(lora(rank_pattern={"v_proj": 8})(tmp_path / "source"))
    convert(source, tmp_path / "mlx", forms()["mlx"])
    config = json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())
    assert config["lora_parameters"] == {
        "rank": 8,
        "scale": 1.0,
        "dropout": 0.0,
        "keys": ["self_attn.q_proj", "self_attn.v_proj"],
    }
    (mlx,) = check_engines(read_header(tmp_path / "mlx"), ("mlx",))
    assert mlx.verdict == RIGHT
    convert(tmp_path / "mlx", tmp_path / "back", forms()["peft"])
    np.testing.assert_allclose(answers(tmp_path / "back"), answers(source), atol=1e-6)


def test_gguf_needs_the_config_of_the_base_model_alone(tmp_path: Path) -> None:
    source = trained(lora()(tmp_path / "source"))
    with pytest.raises(ConfigError, match="--base: the base model of the adapter is not on this machine"):
        convert(source, tmp_path / "out", forms()["gguf"])
    llama().config.save_pretrained(tmp_path / "base")
    convert(source, tmp_path / "out", forms()["ollama"], str(tmp_path / "base"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Modelfile", "adapter.gguf"]


def test_what_is_no_sum_of_products_is_refused(tmp_path: Path) -> None:
    dora = lora(use_dora=True)(tmp_path / "dora")
    with pytest.raises(AdapterError, match="DoRA"):
        convert(dora, tmp_path / "out", forms()["uniform"])
    full = trained(lora(modules_to_save=["lm_head"])(tmp_path / "full"))
    with pytest.raises(NotMergeableError, match="holds 1 tensors trained in full, such as lm_head"):
        convert(full, tmp_path / "out", forms()["mlx"])
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_was_filled(tmp_path: Path) -> None:
    source = trained(lora(rank_pattern={"v_proj": 8})(tmp_path / "source"))
    run = CliRunner().invoke(
        main, ["convert", str(source), "--ranks", "uniform", "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert "4 modules, rank 8 for all, 2 padded and 0 added as zeros" in run.output


HOSTILE = [
    'say "hi"',
    'a"""b',
    "{{ .System }}",
    "}}{{",
    "tail{",
    'tail"',
    "\x00nul",
    "\x1b[2J",
    "x" * 50_000,
    "line\nSYSTEM evil",
]
"""Words of a chat template or of a name that mean something in a Modelfile."""


@pytest.mark.parametrize("word", HOSTILE)
def test_no_word_of_a_chat_template_is_an_instruction_of_a_modelfile(word: str) -> None:
    def render(messages: Sequence[Message], is_asked: bool) -> str:
        roles = "".join(f"<{word}{one['role']}>{one['content']}</s>" for one in messages)
        return roles + (f"<{word}assistant>" if is_asked else "")

    text = modelfile(f"some/{word}", "adapter.gguf", carried_over(render))
    instructions = [line.split()[0] for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert {"FROM", "ADAPTER"} <= set(instructions)
    assert instructions.count("FROM") == 1
    if "TEMPLATE" in instructions:  # the words are between quotes that nothing in them ends
        body = text.partition('TEMPLATE """')[2]
        assert body.count('"""') == 1
        assert word in body
        assert set(re.findall(r"\{\{-? ?([a-z.]+)", body, re.IGNORECASE)) <= {"range", "if", "else", "end", ".Content"}
    else:
        assert "TEMPLATE: the base model has no chat template, or one that cannot be carried over" in text


@pytest.mark.parametrize("system", ['Be "kind".', "Two\nlines", 'ends with "', 'three """ of them', "tools: {{ }}"])
def test_a_default_system_message_is_quoted_or_left_out(system: str) -> None:
    def render(messages: Sequence[Message], is_asked: bool) -> str:
        first = [] if messages[0]["role"] == "system" else [{"role": "system", "content": system}]
        text = "".join(f"<{one['role']}>{one['content']}</s>" for one in [*first, *messages])
        return text + ("<assistant>" if is_asked else "")

    text = modelfile("some/model", "adapter.gguf", carried_over(render))
    if '"""' in system or system.endswith('"'):
        assert "\nSYSTEM" not in text
    else:
        (quoted,) = re.findall(r'\nSYSTEM ("""|")(.*?)\1\n', text, re.DOTALL)
        assert quoted[1] == system, "Ollama reads it back as it stands: it unescapes nothing"


@pytest.mark.parametrize("heads", [None, 0, "4", 3, 10**30])
def test_heads_that_do_not_fit_are_a_sentence(heads: object, tmp_path: Path) -> None:
    source = trained(lora()(tmp_path / "source"))
    base = tmp_path / "base"
    llama().config.save_pretrained(base)
    config = json.loads((base / "config.json").read_text()) | {
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
    }
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(NotMergeableError, match=r"rows of self_attn\.q_proj are not whole heads of the base model"):
        convert(source, tmp_path / "out", forms()["gguf"], str(base))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_any_name_becomes_the_name_in_a_gguf(tmp_path: Path) -> None:
    llama().config.save_pretrained(tmp_path / "base")
    for i, name in enumerate(["line\nfeed", "\udce9 bytes", "{{ x }}", '"""']):
        source = trained(lora()(tmp_path / f"{i}" / name))
        convert(source, tmp_path / f"out{i}", forms()["ollama"], str(tmp_path / "base"))
        field = GGUFReader(tmp_path / f"out{i}" / "adapter.gguf").get_field("general.name")
        assert field is not None
        assert field.contents() == printable(name)


@pytest.mark.parametrize("name", ["merged", "onnx", "onnx-gated", "gated"])
def test_a_form_that_needs_the_model_is_refused(name: str, tmp_path: Path) -> None:
    """Files of PEFT were written under the name of each but `merged`."""
    source = small_adapter(tmp_path / "source", 1)
    with pytest.raises(
        ConfigError, match=rf"--format {name}: cannot be made .* one of peft, uniform, gguf, ollama, mlx"
    ):
        convert(source, tmp_path / "out", forms()[name])
    assert not (tmp_path / "out").exists()
