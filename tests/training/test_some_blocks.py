"""Some blocks of a model: trained, continued, loaded, exported; more than there are is one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import dynlora
from dynlora.config import parse_config
from dynlora.engine.evaluation.generate import cache_name
from dynlora.errors import ConfigError, NotMergeableError
from dynlora.inference.export import export_run
from dynlora.inference.session import load_run
from dynlora.store import queries
from dynlora.training import run as training_run
from dynlora.training.inputs import load_inputs
from tests.tiny import save_tiny, tiny_config
from tests.tiny_lm import DECODERS, lm_values, save_problems, save_tiny_lm
from tests.training.interrupted import interrupted_run


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of problems."""
    return save_problems(tmp_path_factory.mktemp("problems"))


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory, problems: Path) -> Path:
    """A run of the first block of a tiny Llama."""
    folder = tmp_path_factory.mktemp("shallow")
    values = lm_values(save_tiny_lm(folder / "model"), problems, model__layers=1, strategy={"name": "dynamic"})
    outcome = training_run.train(parse_config(values), folder / "runs")
    assert outcome.state == "finished", outcome.error
    return outcome.folder


@pytest.mark.parametrize("architecture", DECODERS)
def test_a_model_of_the_first_block_is_that_block_with_the_last_norm_and_the_head(
    architecture: str, problems: Path, tmp_path: Path
) -> None:
    values = lm_values(save_tiny_lm(tmp_path / "model", architecture), problems, model__layers=1)
    small = load_inputs(parse_config(values)).base.model.eval()
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    blocks: Any = whole.base_model.h if architecture == "gpt2" else whole.base_model.layers
    del blocks[1]
    whole.config.num_hidden_layers = 1
    ids = torch.tensor([[5, 9, 40, 7]])
    with torch.no_grad():
        torch.testing.assert_close(small(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert 0 < len(list(small.parameters())) == len(list(whole.parameters()))


@pytest.mark.parametrize("architecture", DECODERS)
def test_a_model_of_the_last_block_is_that_block_numbered_from_zero_and_writes_with_a_cache(
    architecture: str, problems: Path, tmp_path: Path
) -> None:
    values = lm_values(save_tiny_lm(tmp_path / "model", architecture), problems, model__layers="1-1")
    small: Any = load_inputs(parse_config(values)).base.model.eval()
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    blocks: Any = whole.base_model.h if architecture == "gpt2" else whole.base_model.layers
    del blocks[0]
    whole.config.num_hidden_layers = 1
    ids = torch.tensor([[5, 9, 40, 7]])
    with torch.no_grad():
        logits = small(input_ids=ids).logits
        torch.testing.assert_close(logits, whole(input_ids=ids, use_cache=False).logits)
        read = small(input_ids=ids[:, :3], use_cache=True)
        kept = {cache_name(small): read[next(name for name in ("cache", "past_key_values") if name in read)]}
        torch.testing.assert_close(small(input_ids=ids[:, 3:], **kept).logits[:, -1], logits[:, -1])
    assert {name.split(".")[2] for name, _ in small.named_modules() if name.endswith("proj")} <= {"0"}


def test_a_run_of_it_adapts_and_counts_its_blocks_only_and_loads_as_it_was_trained(shallow: Path) -> None:
    summary = queries.run_summary(shallow)
    assert summary.config["model"]["layers"] == 1
    assert {name.split(".")[2] for name in summary.ranks} == {"0"}
    model = load_run(shallow)
    assert model.base.model.config.num_hidden_layers == 1
    events = queries.events_frame(shallow, ("generations",))
    first = events["payload"].iloc[-1]["rows"][0]
    (answer,) = model.answers([first["prompt"]])
    assert answer["prediction"] == first["text"]


def test_a_run_of_it_that_was_interrupted_ends_as_the_whole_one(
    shallow: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = training_run.read_run_config(shallow)
    folder = interrupted_run(config, runs_dir, monkeypatch)
    assert training_run.resume(runs_dir, folder.name).state == "finished"
    assert queries.run_summary(folder).metrics == queries.run_summary(shallow).metrics


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
@pytest.mark.parametrize(("layers", "message"), [(1, "the first block"), ("1-1", "block 1")])
@pytest.mark.parametrize("kind", ["peft", "merged"])
def test_the_snippet_of_an_export_loads_the_blocks_that_were_used(
    kind: str, layers: Any, message: str, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = lm_values(
        save_tiny_lm(tmp_path / "model"), problems, model__layers=layers, strategy={"name": "lora"}, train__steps=4
    )
    folder = training_run.train(parse_config(values), tmp_path / "runs").folder
    export_run(folder, tmp_path / "out", format=kind)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert message in card
    (snippet,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    names: dict = {}
    exec(snippet, names)
    ids, own = torch.tensor([[5, 9, 40, 7]]), load_run(folder).base.model
    with torch.no_grad():
        torch.testing.assert_close(names["model"](input_ids=ids).logits, own(input_ids=ids).logits)


def test_an_encoder_has_first_blocks_too(tiny_data: Path, tmp_path: Path) -> None:
    config = tiny_config(save_tiny("bert", tmp_path / "bert"), tiny_data, model__layers=1, train__steps=10)
    folder = training_run.train(config, tmp_path / "runs").folder
    run = dynlora.open_run(folder)
    assert set(run.modules["layer"]) == {0}
    assert run.load().base.model.config.num_hidden_layers == 1


def test_blocks_by_number_of_an_architecture_that_peft_cannot_cut_are_exported_merged(
    problems: Path, tmp_path: Path
) -> None:
    values = lm_values(
        save_tiny_lm(tmp_path / "model", "gpt2"),
        problems,
        model__layers="1-1",
        strategy={"name": "lora"},
        train__steps=2,
    )
    folder = training_run.train(parse_config(values), tmp_path / "runs").folder
    with pytest.raises(NotMergeableError, match=r"--format peft: PEFT cannot choose the blocks 1-1 of GPT2.*merged"):
        export_run(folder, tmp_path / "out", format="peft")
    assert not (tmp_path / "out").exists()
    export_run(folder, tmp_path / "out", format="merged")


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (3, "model.layers=3: model has 2 blocks; give a number from 1 to 2"),
        ("0,2", "layers=0,2: model has 2 blocks; give numbers from 0 to 1"),
        (0, "model.layers=0: must be at least 1"),
    ],
)
def test_more_blocks_than_there_are_is_one_sentence(layers: Any, words: str, problems: Path, tmp_path: Path) -> None:
    values = lm_values(save_tiny_lm(tmp_path / "model"), problems, model__layers=layers)
    with pytest.raises(ConfigError, match=re.escape(words)):
        training_run.train(parse_config(values), tmp_path / "runs")
    assert not list(tmp_path.glob("runs/2*"))


def test_an_encoder_with_a_decoder_has_no_first_blocks(tmp_path: Path, problems: Path) -> None:
    sizes: dict[str, Any] = {
        "d_model": 32,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 2,
        "d_kv": 16,
        "decoder_start_token_id": 1,
    }
    config = transformers.T5Config(vocab_size=259, **sizes)
    folder = save_tiny_lm(tmp_path / "model")
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"model\.layers=1: model is not one stack of blocks \(t5\)"):
        load_inputs(parse_config(lm_values(folder, problems, model__layers=1)))
