"""Targets of an adapter: endings of names, kinds of modules, and what is never adapted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from dynlora.cli.main import main
from dynlora.config import parse_config
from dynlora.engine.model.modules import ALL, ATTENTION, MLP, find_modules, head_names
from dynlora.errors import ConfigError
from tests.architectures import tiny_models as tiny
from tests.command_line import document
from tests.tiny import save_data, tiny_arguments

ATTENTION_OF = {
    "bert": "query key value attention.output.dense",
    "roberta": "query key value attention.output.dense",
    "distilbert": "q_lin k_lin v_lin out_lin",
    "deberta_v2": "query_proj key_proj value_proj attention.output.dense",
    "albert": "query key value attention.dense",
    "electra": "query key value attention.output.dense",
    "modernbert": "Wqkv attn.Wo",
    "bart": "q_proj k_proj v_proj out_proj",
    "t5": "q k v o",
    "umt5": "q k v o",
    "gpt2": "c_attn attn.c_proj",
    "gpt_neox": "query_key_value attention.dense",
    "llama": "q_proj k_proj v_proj o_proj",
    "mistral": "q_proj k_proj v_proj o_proj",
    "mixtral": "q_proj k_proj v_proj o_proj",
    "qwen2": "q_proj k_proj v_proj o_proj",
    "gemma": "q_proj k_proj v_proj o_proj",
    "phi": "q_proj k_proj v_proj self_attn.dense",
}
"""Endings of the modules of attention, by architecture."""


def names(model: nn.Module, *targets: str) -> set[str]:
    """Return the names of the modules that targets name."""
    return {info.name for info in find_modules(model, targets, head_names(model))}  # pyright: ignore


@pytest.mark.parametrize("architecture", tiny.CLASSIFIERS)
def test_kinds_divide_the_linear_modules_of_the_blocks(architecture: str) -> None:
    model = tiny.tiny_classifier(architecture)
    everything = {info.name for info in find_modules(model, None, head_names(model))}
    attention = names(model, ATTENTION)
    assert attention == names(model, *ATTENTION_OF[architecture].split())
    assert names(model, ALL) == everything
    if architecture == "mixtral":  # its experts are no linear modules
        with pytest.raises(ConfigError, match=r"adapter\.targets=mlp: the model has no mlp modules; the model has "):
            names(model, MLP)
        return
    assert names(model, MLP) == everything - attention != set()
    assert names(model, ATTENTION, MLP) == everything


def test_a_state_space_model_has_neither_attention_nor_mlp() -> None:
    model = tiny.tiny_writer("mamba")
    for kind in (ATTENTION, MLP):
        with pytest.raises(
            ConfigError, match=f"the model has no {kind} modules; the model has mixer.dt_proj, mixer.in"
        ):
            find_modules(model, [kind])
    assert len(find_modules(model, [ALL])) == 8


def test_an_ending_goes_before_a_kind() -> None:
    """`adapter.targets=attention` names the modules of that name where there are some."""
    block = nn.ModuleDict({"attention": nn.Linear(4, 4), "attn": nn.ModuleDict({"q": nn.Linear(4, 4)})})
    model = nn.ModuleDict({"blocks": nn.ModuleList([block])})
    assert [info.name for info in find_modules(model, [ATTENTION])] == ["blocks.0.attention"]
    del block["attention"]
    assert [info.name for info in find_modules(model, [ATTENTION])] == ["blocks.0.attn.q"]


def test_kinds_and_endings_go_together() -> None:
    model = tiny.tiny_writer("llama")
    endings = [info.name.rpartition(".")[2] for info in find_modules(model, [ATTENTION, "up_proj"])]
    assert endings == ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"] * 2


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "phi"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_the_output_head_takes_no_adapter(architecture: str, is_tied: bool) -> None:
    import transformers

    config = tiny.tiny_config_of(architecture, tie_word_embeddings=is_tied)
    model = transformers.AutoModelForCausalLM.from_config(config)
    reason = "whose weight is that of the embeddings too" if is_tied else "which takes no adapter"
    with pytest.raises(ConfigError, match=rf"adapter\.targets=lm_head: is the output head, {reason}.*; leave it out"):
        find_modules(model, ["lm_head"])


@pytest.mark.parametrize(
    ("architecture", "target", "reason"),
    [
        ("llama", "embed_tokens", "is an embedding"),
        ("llama", "score", "is the head, which is trained in full"),
        ("bert", "word_embeddings", "is an embedding"),
        ("bert", "classifier", "is the head"),
        ("roberta", "classifier.dense", "is the head"),
        ("bert", "queri", "no linear module has this name; the model has attention.output.dense"),
    ],
)
def test_what_cannot_be_adapted_is_one_sentence(architecture: str, target: str, reason: str) -> None:
    model = tiny.tiny_classifier(architecture)
    with pytest.raises(ConfigError, match=rf"adapter\.targets={target}: {reason}") as error:
        names(model, target)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", ["attention", ["attention"], "attention, mlp", "q_proj,v_proj", ["q_proj", "v_proj"]])
def test_a_config_takes_one_text_or_a_list(given: object) -> None:
    wanted = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    config = parse_config({"data": {"name": "sst2"}, "adapter": {"targets": given}})
    assert list(config.adapter.targets or ()) == wanted
    assert parse_config(config.model_dump()).adapter.targets == config.adapter.targets


def test_a_kind_is_adapted_and_nothing_else() -> None:
    import dynlora

    model = tiny.tiny_writer("llama")
    attached = dynlora.attach(model, strategy="lora", targets=[MLP], budget=2, steps=3)
    assert {m.info.name.rpartition(".")[2] for m in attached.adapters} == {"gate_proj", "up_proj", "down_proj"}
    assert torch.isfinite(model(input_ids=torch.tensor([[3, 4, 5]])).logits).all()


@pytest.fixture
def classified(tmp_path: Path) -> tuple[Path, Path]:
    """Return folders of a tiny BERT and of data."""
    (tmp_path / "data").mkdir()
    return tiny.save_classifier("bert", tmp_path / "model"), save_data(tmp_path / "data")


def test_the_command_line_takes_a_kind(classified: tuple[Path, Path]) -> None:
    arguments = tiny_arguments(*classified, "adapter.targets=attention")
    report = document(CliRunner().invoke(main, ["preflight", *arguments, "--json"]))
    kinds = {row["kind"].rpartition("attention.")[2] for row in report["kinds"]}
    assert kinds == {"self.query", "self.key", "self.value", "output.dense"}
    assert report["modules"] == 8


@pytest.mark.parametrize("command", ["preflight", "train"])
def test_the_command_line_refuses_the_head_before_a_run_is_made(
    command: str, classified: tuple[Path, Path], tmp_path: Path
) -> None:
    place = ["--runs-dir", str(tmp_path / "runs")] if command == "train" else []
    arguments = tiny_arguments(*classified, "adapter.targets=[query, classifier]")
    result = CliRunner().invoke(main, [command, *arguments, *place])
    assert result.exit_code == 2, result.output
    assert "adapter.targets=classifier: is the head, which is trained in full and takes no adapter" in result.stderr
    assert not (tmp_path / "runs").exists()
