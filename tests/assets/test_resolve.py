"""Names become folders: local folders, the embedded model and the embedded data set."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from dynlora.assets import DATASETS, MODELS, builders, resolve_data, resolve_model
from dynlora.assets.catalog import EmbeddedDataset, EmbeddedModel
from dynlora.assets.hub import cache_dir
from dynlora.errors import AssetError
from tests.packages_on_disk import files_below


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No index, no hub, and nothing in the hub's cache."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


class TestLocalModel:
    def test_a_folder_is_taken_as_it_is(self, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert resolve_model(str(model_folder)) == model_folder
        monkeypatch.chdir(model_folder.parent)
        assert resolve_model("model") == model_folder

    def test_pickled_weights_are_refused(self, model_folder: Path) -> None:
        (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
        with pytest.raises(AssetError, match=r"has no \.safetensors file.*save_pretrained"):
            resolve_model(str(model_folder))

    def test_a_missing_shard_is_named(self, model_folder: Path) -> None:
        (model_folder / "model.safetensors").rename(model_folder / "model-00001-of-00002.safetensors")
        with pytest.raises(AssetError, match=r"lacks model-00002-of-00002\.safetensors"):
            resolve_model(str(model_folder))

    @pytest.mark.parametrize(("file", "message"), [("tokenizer.json", "no tokenizer"), ("config.json", "config.json")])
    def test_a_missing_file_is_named(self, model_folder: Path, file: str, message: str) -> None:
        (model_folder / file).unlink()
        with pytest.raises(AssetError, match=message):
            resolve_model(str(model_folder))

    @pytest.mark.parametrize("name", ["/no/such/folder", "./gone", "../gone", "~/no-such-folder", "a/b/c", "", "a b"])
    def test_a_path_where_nothing_is(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(AssetError, match=r"model\.name"):
            resolve_model(name)


@pytest.mark.usefixtures("offline")
class TestOffline:
    @pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
    def test_model_names_package_and_remedy(self, cache: Path, model: EmbeddedModel) -> None:
        started = time.monotonic()
        with pytest.raises(AssetError) as caught:
            resolve_model(model.name)
        assert time.monotonic() - started < 60
        message = str(caught.value)
        assert model.package.requirement in message
        assert "PIP_FIND_LINKS" in message
        assert "127.0.0.1:9" in message
        assert "\n" not in message
        assert files_below(cache) == []

    def test_data_names_package_and_remedy(self, cache: Path) -> None:
        with pytest.raises(AssetError, match=r"vaderSentiment==3\.3\.2.*PIP_FIND_LINKS.*data\.path"):
            resolve_data("sentiment4")
        assert files_below(cache) == []

    def test_catalogue_knows_what_is_there(self, cache: Path) -> None:
        assert not any(model.cached for model in MODELS.values())
        assert not DATASETS["sentiment4"].cached
        assert files_below(cache) == []


def test_unknown_data_name_suggests_the_nearest() -> None:
    with pytest.raises(AssetError, match="did you mean 'sentiment4'"):
        resolve_data("sentimant4")
    with pytest.raises(AssetError, match=r"data\.path"):
        resolve_data("./my/data.csv")


def test_cache_folder_can_be_moved(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == cache
    monkeypatch.delenv("DYNLORA_CACHE")
    assert cache_dir().name == "dynlora"
    monkeypatch.setenv("DYNLORA_CACHE", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The real package, from the index pip is configured for; kept in the user's cache."""
    return resolve_model("minilm")


@pytest.fixture(scope="module")
def sentiment4_folder() -> Path:
    return resolve_data("sentiment4")


@pytest.fixture(scope="module")
def splits(sentiment4_folder: Path) -> dict[str, list[builders.Row]]:
    return {
        split: [builders.Row(**row) for row in parquet.read_table(sentiment4_folder / f"{split}.parquet").to_pylist()]
        for split in ("train", "validation")
    }


class TestMinilm:
    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
    def test_a_tampered_file_is_refused(self, minilm: Path, cache: Path, name: str) -> None:
        folder = MODELS["minilm"].folder
        shutil.copytree(minilm, folder)
        assert resolve_model("minilm") == folder
        with (folder / name).open("r+b") as file:
            file.seek(100)
            byte = file.read(1)
            file.seek(100)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(AssetError, match=f"{name} was changed after the download.*delete the folder {folder}"):
            resolve_model("minilm")

    def test_the_hubs_copy_is_used_when_it_is_the_pinned_one(
        self, minilm: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        repo = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text("abcdef0")
        shutil.copytree(minilm, repo / "snapshots" / "abcdef0")
        assert MODELS["minilm"].cached
        assert resolve_model("minilm") == repo / "snapshots" / "abcdef0"
        assert files_below(cache) == []


class TestSentiment4:
    def test_counts_are_the_published_ones(self, splits: dict[str, list[builders.Row]]) -> None:
        assert {name: len(rows) for name, rows in splits.items()} == {"train": 15_411, "validation": 3_678}
        assert Counter(row.domain for row in splits["validation"]) == {
            "movies": 2_007,
            "tweets": 671,
            "amazon": 501,
            "nyt": 499,
        }
        positive = {name: sum(row.label for row in rows) / len(rows) for name, rows in splits.items()}
        assert {name: round(100 * share, 1) for name, share in positive.items()} == {"train": 52.3, "validation": 55.0}

    def test_no_document_and_no_text_stands_on_both_sides(self, splits: dict[str, list[builders.Row]]) -> None:
        documents = {
            name: {(row.domain, row.id.split("_")[0]) for row in rows if row.domain in ("amazon", "nyt")}
            for name, rows in splits.items()
        }
        assert documents["train"] & documents["validation"] == set()
        texts = [row.text for rows in splits.values() for row in rows]
        assert len(set(texts)) == len(texts) == 19_089
        assert all(text == text.strip() and text for text in texts)

    def test_digest_is_kept_beside_the_data(self, sentiment4_folder: Path) -> None:
        manifest = json.loads((sentiment4_folder / "manifest.json").read_text())
        assert manifest["content_sha256"] == DATASETS["sentiment4"].content_sha256

    def test_tampered_data_is_refused(self, sentiment4_folder: Path, cache: Path) -> None:
        folder = DATASETS["sentiment4"].folder
        shutil.copytree(sentiment4_folder, folder)
        rows = parquet.read_table(folder / "train.parquet").to_pylist()
        changed = [{**rows[0], "label": 1 - rows[0]["label"]}, *rows[1:]]
        parquet.write_table(pa.Table.from_pylist(changed), folder / "train.parquet")
        with pytest.raises(AssetError, match="was changed after it was built"):
            resolve_data("sentiment4")
        (folder / "train.parquet").write_bytes(b"no parquet")
        with pytest.raises(AssetError, match="was changed after it was built"):
            resolve_data("sentiment4")

    def test_a_line_of_another_form_is_named(self, tmp_path: Path) -> None:
        for name in builders.FILES.values():
            (tmp_path / name).write_text("1\t2.5\tgood\n2\tnine\tbad\n")
        with pytest.raises(AssetError, match=r"tweets_GroundTruth\.txt line 2"):
            builders.sentiment4_rows(tmp_path)

    def test_neutral_rows_are_dropped_before_repeated_texts(self, tmp_path: Path) -> None:
        for name in builders.FILES.values():
            (tmp_path / name).write_text("1\t0.5\tsame\n2\t-2.0\t same \n3\t1.0\tsame\n")
        assert builders.sentiment4_rows(tmp_path) == [builders.Row("2", "same", 0, "tweets", -2.0)]


class TestArithmetic:
    def test_every_completion_is_right_and_ends_with_its_answer(self) -> None:
        for rows in builders.split_rows().values():
            for row in rows:
                *steps, last = row["completion"].split("\n")
                for step in steps:
                    left, sign, right, _, result = step.split(" ")
                    assert builders.OPERATIONS[sign](int(left), int(right)) == int(result)
                assert last == f"#### {row['answer']}" == f"#### {steps[-1].split(' = ')[1]}"
                assert int(row["answer"]) >= 0

    def test_sides_share_no_calculation_and_no_template(self) -> None:
        splits = builders.split_rows()
        done = {side: {row["completion"] for row in rows} for side, rows in splits.items()}
        assert not done["train"] & done["validation"]
        assert all(not set(kind.train) & set(kind.held_out) for kind in builders.KINDS)
        assert {side: len(rows) for side, rows in splits.items()} == {"train": 6000, "validation": 480}

    def test_the_rows_are_the_pinned_ones(self, cache: Path) -> None:
        folder = resolve_data("arithmetic")
        assert folder == DATASETS["arithmetic"].folder
        assert json.loads((folder / "manifest.json").read_text())["rows"] == builders.ROWS
        assert set(parquet.read_schema(folder / "train.parquet").names) == set(DATASETS["arithmetic"].columns)


def test_sentiment4_text_is_the_texts_of_sentiment4(sentiment4_folder: Path) -> None:
    for split in ("train", "validation"):
        texts = parquet.read_table(resolve_data("sentiment4-text") / f"{split}.parquet").to_pylist()
        whole = parquet.read_table(sentiment4_folder / f"{split}.parquet").to_pylist()
        assert texts == [{key: row[key] for key in ("id", "text", "domain")} for row in whole]


@pytest.mark.parametrize("entry", [*MODELS.values(), *DATASETS.values()], ids=lambda entry: entry.name)
def test_catalogue_entries_are_complete(entry: EmbeddedModel | EmbeddedDataset) -> None:
    assert entry.licence
    assert entry.description
    assert entry.size > 0
    if entry.package is not None:
        assert len(entry.package.sha256) == 64
        assert all(len(digest) == 64 for digest in entry.package.members.values())
    if isinstance(entry, EmbeddedModel):
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(entry.files)
        assert all(len(digest) == 64 for digest in entry.files.values())
        assert (entry.gguf is None) == (not entry.converted)


def test_the_classes_of_sentiment4_have_names(sentiment4_folder: Path) -> None:
    from dynlora.config import parse_config
    from dynlora.training.inputs import read_data

    data = read_data(parse_config({"data": {"name": "sentiment4", "max_train": 200, "max_eval": 100}}))
    assert data.labels == ["negative", "positive"]
    assert set(data.train.label.tolist()) == {0, 1}
