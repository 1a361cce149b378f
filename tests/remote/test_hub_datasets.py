"""Runs in a data set of the hub, through the hub's own file system for fsspec and a hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import constants

import dynlora
from dynlora.errors import RemoteError
from dynlora.remote.place import Place
from dynlora.remote.sync import pull, push
from dynlora.store.notes import NOTES_NAME, annotate_notes
from dynlora.store.run import open_run
from tests.fake_hub_uploads import Hub, Repo, uploading_hub
from tests.remote.places import files_of, rows_of, tree_of
from tests.store.builder import finished_run

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's client, to httpx
TOKEN = "hf_thisisatokenofthetests0123456789"
URL = "hf://datasets/owner/lab/runs"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with an empty data set, and its owner's token in the environment."""
    with uploading_hub(TOKEN) as server:
        server.repos["datasets/owner/lab"] = Repo({".gitattributes": b""})
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_a_run_in_a_data_set_is_the_run(hub: Hub, runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 40, "a-run")
    assert push(folder, Place(URL)).status == "sent"
    names = list(hub.repos["datasets/owner/lab"].files)
    assert names[-1] == "runs/a-run/manifest.json", "it is written last"
    pull(Place(URL), "a-run", tmp_path / "here")
    copy = tmp_path / "here" / "a-run"
    assert rows_of(copy, tmp_path / "a") == rows_of(folder, tmp_path / "b")
    assert files_of(copy) == files_of(folder)
    pd.testing.assert_frame_equal(dynlora.open_run(f"{URL}/a-run").signal("rank"), open_run(folder).signal("rank"))


def test_what_was_sent_since_is_seen(hub: Hub, runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 20, "a-run")
    reading = Place(URL)
    push(folder, Place(URL))
    assert pull(reading, "a-run", tmp_path / "here").status == "fetched"
    annotate_notes(folder, note="new")
    assert push(folder, Place(URL)).moved_bytes == (folder / NOTES_NAME).stat().st_size
    assert pull(reading, "a-run", tmp_path / "here").status == "updated"


def test_a_hub_that_refuses_is_one_sentence_without_the_token(hub: Hub, runs_dir: Path, tmp_path: Path) -> None:
    hub.refuse = 403
    with pytest.raises(RemoteError, match="cannot be used") as error:
        push(finished_run(runs_dir, 20, "a-run"), Place(URL))
    assert TOKEN not in str(error.value)
    with pytest.raises(RemoteError, match="has no run 'a-run'"):
        pull(Place(URL), "a-run", tmp_path / "here")
    with pytest.raises(RemoteError):
        pull(Place("hf://datasets/owner/nothing"), "a-run", tmp_path / "here")
    assert tree_of(tmp_path / "here") == []
