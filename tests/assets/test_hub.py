"""The hub: its cache, its files, and what happens when it cannot be reached."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from dynlora.assets import hub
from dynlora.assets.hub import resolve_hub_dataset
from dynlora.assets.resolve import resolve_data, resolve_model
from dynlora.errors import AssetError
from tests.fake_hub import COMMIT, Repositories, fake_hub
from tests.packages_on_disk import files_below

MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{ }",
    "pytorch_model.bin": b"a pickle",
    "training_args.bin": b"a pickle",
    "modeling_custom.py": b"raise SystemExit('was run')",
    "onnx/model.onnx": b"big",
    "onnx/config.json": b"{}",
    "README.md": b"about",
}


def table_bytes(*texts: str) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"text": list(texts), "label": [0] * len(texts)}), buffer)
    return buffer.getvalue()


def resolve_in_child(url: str, tmp_path: Path, call: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Resolve in a process of its own, since the hub's client reads its address and cache once, when imported."""
    program = (
        "import sys\nfrom dynlora.assets import resolve_data, resolve_model\nfrom dynlora.errors import AssetError\n"
        f"try:\n    print({call})\nexcept AssetError as error:\n    sys.exit(f'AssetError: {{error}}')\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PIP_"))}
    environment |= {
        "HF_ENDPOINT": url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "DYNLORA_CACHE": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
        "PIP_CONFIG_FILE": os.devnull,
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


class TestModels:
    def test_only_files_that_run_nothing_are_fetched(self, tmp_path: Path) -> None:
        with fake_hub({("models", "owner/tiny"): MODEL}) as (url, downloaded):
            done = resolve_in_child(url, tmp_path, "resolve_model('owner/tiny')")
            assert (done.returncode, done.stdout.strip()[-len(COMMIT) :]) == (0, COMMIT), done.stderr
            assert sorted(set(downloaded)) == ["config.json", "model.safetensors", "tokenizer.json"]
            folder = Path(done.stdout.strip())
            assert (folder / "model.safetensors").read_bytes() == b"weights"
            downloaded.clear()
            assert resolve_in_child(url, tmp_path, "resolve_model('owner/tiny')").stdout == done.stdout
            assert downloaded == []

    @pytest.mark.parametrize(
        ("name", "message"),
        [("owner/gone", "the hub has no model 'owner/gone'"), ("owner/pickle", "has no model.safetensors")],
    )
    def test_definite_answers_are_told_as_such(self, tmp_path: Path, name: str, message: str) -> None:
        files = {key: data for key, data in MODEL.items() if not key.endswith(".safetensors")}
        with fake_hub({("models", "owner/pickle"): files}) as (url, downloaded):
            done = resolve_in_child(url, tmp_path, f"resolve_model({name!r})")
        assert done.returncode == 1
        assert message in done.stderr
        assert downloaded == []

    def test_embedded_model_with_other_weights_is_refused(self, tmp_path: Path) -> None:
        with fake_hub({("models", "sentence-transformers/all-MiniLM-L6-v2"): MODEL}) as (url, _):
            done = resolve_in_child(url, tmp_path, "resolve_model('minilm')", PIP_NO_INDEX="1")
        assert done.returncode == 1
        assert "other weights" in done.stderr
        assert files_below(tmp_path / "cache") == []


class TestUnreachable:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "remedy"), [("owner/tiny", "give a local folder"), ("minilm", "set PIP_FIND_LINKS to that folder")]
    )
    @pytest.mark.parametrize("limit_s", [60, pytest.param(15, marks=pytest.mark.torture, id="on a quiet machine")])
    def test_silence_is_given_up(self, tmp_path: Path, name: str, remedy: str, limit_s: float) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            started = time.monotonic()
            done = resolve_in_child(url, tmp_path, f"resolve_model({name!r})", PIP_INDEX_URL=f"{url}/simple")
        assert time.monotonic() - started < limit_s
        assert done.returncode == 1
        assert "the hub cannot be reached" in done.stderr or "hub: " in done.stderr
        assert remedy in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

    def test_offline_is_told_at_once(self, cache: Path) -> None:
        started = time.monotonic()
        with pytest.raises(AssetError, match="HF_HUB_OFFLINE is set"):
            resolve_model("owner/no-such-model")
        with pytest.raises(AssetError, match=r"HF_HUB_OFFLINE is set.*data\.path"):
            resolve_hub_dataset("owner/no-such-data")
        assert time.monotonic() - started < 60
        assert files_below(cache) == []


class TestCachedModel:
    @pytest.fixture
    def snapshot(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        repo = tmp_path / "models--owner--tiny"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text(COMMIT)
        folder = repo / "snapshots" / COMMIT
        folder.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
            (folder / name).write_text("{}")
        return folder

    def test_complete_or_not(self, snapshot: Path) -> None:
        assert hub.cached_model("owner/tiny") is None
        (snapshot / "model-00002-of-00002.safetensors").write_text("x")
        assert hub.cached_model("owner/tiny") == snapshot
        assert resolve_model("owner/tiny") == snapshot
        (snapshot / "tokenizer.json").unlink()
        assert hub.cached_model("owner/tiny") is None

    @pytest.mark.parametrize("commit", ["../../etc", "", "xyz", "abc"])
    def test_a_reference_cannot_lead_elsewhere(self, snapshot: Path, commit: str) -> None:
        (snapshot.parents[1] / "refs" / "main").write_text(commit)
        assert hub.snapshot("owner/tiny", "model") is None


GLUE: Repositories = {
    ("datasets", "owner/many"): {
        "one/train-00000-of-00002.parquet": table_bytes("a", "b"),
        "one/train-00001-of-00002.parquet": table_bytes("c"),
        "one/validation_matched-00000-of-00001.parquet": table_bytes("d"),
        "two/train-00000-of-00001.parquet": table_bytes("e"),
        "load.py": b"raise SystemExit('was run')",
    },
    ("datasets", "owner/none"): {"train.csv": b"text,label\na,0\n"},
}


class TestDatasets:
    def test_shards_of_a_configuration_become_one_file_per_split(self, tmp_path: Path) -> None:
        with fake_hub(GLUE) as (url, downloaded):
            done = resolve_in_child(url, tmp_path, "resolve_data('owner/many:one')")
            assert done.returncode == 0, done.stderr
            folder = Path(done.stdout.strip())
            assert files_below(folder) == ["manifest.json", "train.parquet", "validation.parquet"]
            assert parquet.read_table(folder / "train.parquet")["text"].to_pylist() == ["a", "b", "c"]
            assert all(name.startswith("one/") for name in downloaded)
            assert json.loads((folder / "manifest.json").read_text())["commit"] == COMMIT
            downloaded.clear()
            assert resolve_in_child(url, tmp_path, "resolve_data('owner/many:one')").stdout == done.stdout
            assert downloaded == []

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("owner/many", "its configurations are one, two"),
            ("owner/many:three", "no training split in configuration 'three'"),
            ("owner/none", "it has no Parquet files"),
            ("owner/gone", "the hub has no dataset 'owner/gone'"),
        ],
    )
    def test_what_cannot_be_used_is_told(self, tmp_path: Path, name: str, message: str) -> None:
        with fake_hub(GLUE) as (url, downloaded):
            done = resolve_in_child(url, tmp_path, f"resolve_data({name!r})")
        assert done.returncode == 1
        assert message in done.stderr
        assert downloaded == []
        assert files_below(tmp_path / "cache") == []

    @pytest.mark.parametrize("name", ["owner/x:", "owner/x:a/b", "owner/../x", "a/b/c:d", "owner/x:a b", "-/x"])
    def test_malformed_names(self, cache: Path, name: str) -> None:
        with pytest.raises(AssetError):
            resolve_data(name)
        assert files_below(cache) == []

    def test_layouts(self) -> None:
        paths = [
            "data/train-00000-of-00001.parquet",
            "data/test-00000-of-00001.parquet",
            "conv/train/0000.parquet",
            "conv/train/0001.parquet",
            "conv/dev/0000.parquet",
            "plain/train.parquet",
        ]
        assert hub._by_config(paths) == {
            "default": {"train": [paths[0]], "test": [paths[1]]},
            "conv": {"train": paths[2:4], "dev": [paths[4]]},
            "plain": {"train": [paths[5]]},
        }
        assert hub._splits_of(paths, "conv") == {"train": paths[2:4], "validation": [paths[4]]}
        assert hub._splits_of(paths, "") == {"train": [paths[0]], "test": [paths[1]]}
        assert hub._splits_of(["only/train.parquet"], "") == {"train": ["only/train.parquet"]}
        assert hub._splits_of(["data/test-00000-of-00001.parquet"], "") is None

    def test_too_large(self) -> None:
        with pytest.raises(AssetError, match=r"4\.0 GiB"):
            hub._refuse_large("owner/huge", 4 << 30)


def test_missing_shards() -> None:
    assert hub.missing_shards(["model.safetensors"]) == []
    assert hub.missing_shards(["m-00002-of-00002.safetensors"]) == ["m-00001-of-00002.safetensors"]
    assert hub.missing_shards(["train-00000-of-00002.parquet"]) == ["train-00001-of-00002.parquet"]
