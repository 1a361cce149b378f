"""The search of the hub on Launch: asked when somebody presses the button, one sentence where it cannot be reached."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from huggingface_hub import constants
from pyarrow import parquet
from streamlit.testing.v1 import AppTest

from dynlora.assets import hub as assets_hub
from dynlora.errors import AssetError
from tests.fake_hub import fake_hub
from tests.pages.app import field, open_page, plain, words
from tests.waiting import PATIENCE_S


def talks() -> bytes:
    """Return a Parquet file of conversations."""
    conversations = [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"Hello {n}"}] for n in range(4)
    ]
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"topic": ["a", "b"] * 2, "talk": conversations}), buffer)
    return buffer.getvalue()


HUB = {
    ("models", "owner/tiny-bert"): {},
    ("models", "owner/other"): {},
    ("datasets", "owner/reviews"): {"data/train-00000-of-00001.parquet": talks()},
    ("datasets", "owner/More-Reviews"): {},
    ("datasets", "owner/..bad-reviews"): {},
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub of this machine that may be asked."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(assets_hub, "SEARCH_S", PATIENCE_S)
    with fake_hub(HUB) as (url, _):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        yield url


def searched(app: AppTest, kind: str, text: str) -> AppTest:
    """Enter words and press the button."""
    app.text_input(key=f"hub-words-{kind}").input(text)
    app.button(key=f"hub-search-{kind}").click().run()
    return app


def test_a_data_set_that_was_found_fills_the_field(hub: str, runs_dir: Path) -> None:
    app = searched(open_page("launch", data="hub"), "dataset", "reviews")
    box = app.selectbox(key="hub-chosen-dataset")
    assert box.options == ["owner/reviews (1,000 downloads)", "owner/More-Reviews (999 downloads)"]
    box.set_value("owner/More-Reviews").run()
    assert next(field.value for field in app.text_input if field.label == "Hub id") == "owner/More-Reviews"
    assert "data.name=owner/More-Reviews" in next(code.value for code in app.code if code.language == "bash")


def test_columns_of_a_data_set_that_was_fetched_are_picked_by_their_values(
    hub: str, runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets_hub, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    app = open_page("launch", data="hub")
    assert "hub-fetch" not in {button.key for button in app.button}, "nothing is named yet"
    field(app.text_input, "Hub id").set_value("owner/reviews").run()
    assert "Messages column" not in {box.label for box in app.selectbox}
    app.button(key="hub-fetch").click().run()
    assert not app.error, app.error[0].value
    field(app.button_group, "Kind of data").set_value("messages").run()
    box = field(app.selectbox, "Messages column")
    assert set(box.options) == {"topic (a, b)", "talk (messages)"}
    box.set_value("talk").run()
    assert "hub-fetch" not in {button.key for button in app.button}
    config = yaml.safe_load(next(code.value for code in app.code if code.language == "yaml"))
    assert (config["data"]["name"], config["data"]["messages"]) == ("owner/reviews", "talk")


def test_a_model_that_was_found_fills_the_field(hub: str, runs_dir: Path) -> None:
    app = searched(open_page("launch"), "model", "bert")
    app.selectbox(key="hub-chosen-model").set_value("owner/tiny-bert").run()
    assert "model.name=owner/tiny-bert" in next(code.value for code in app.code if code.language == "bash")
    searched(app, "model", "no such name")
    assert "The hub has no models with “no such name” in their id" in words(app)


def test_nobody_is_asked_before_the_button_is_pressed(
    hub: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []
    monkeypatch.setattr(assets_hub, "search", lambda kind, text: requests.append(text) or [])
    app = open_page("launch", data="hub")
    app.text_input(key="hub-words-dataset").input("reviews").run()
    assert requests == []
    app.button(key="hub-search-dataset").click().run()
    app.run()
    assert requests == ["reviews"]


def test_a_hub_that_cannot_be_reached_is_one_sentence(
    hub: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(assets_hub, "SEARCH_S", 0.5)  # its client tries again and again
    with pytest.raises(AssetError, match=r"^the hub cannot be searched \(.*\): enter its id, or a local folder$"):
        assets_hub.search("model", "bert")
    app = searched(open_page("launch", data="hub"), "dataset", "reviews")
    assert "the hub cannot be searched" in app.error[0].value.lower()
    assert "use a file of this machine" in app.error[0].value


def test_the_search_is_off_where_the_hub_may_not_be_asked(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    app = open_page("launch", data="hub")
    assert "because HF_HUB_OFFLINE is set" in plain(app)
    assert not [button for button in app.button if str(button.key).startswith("hub-search")]


def test_a_page_that_is_read_only_asks_nobody(hub: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNLORA_READ_ONLY", "1")
    app = open_page("launch", data="hub")
    assert not [button for button in app.button if str(button.key).startswith("hub-search")]
