"""An export is sent to a hub that speaks its interface: one commit with card and pictures, only when told so."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import markdown
import pytest
from huggingface_hub import constants

from dynlora import assets
from dynlora.errors import ConfigError, DynloraError, RemoteError
from dynlora.inference.model_card import capacity_map
from dynlora.remote.place import find_repository, send_folder
from tests.command_line import document, run
from tests.fake_hub_uploads import Hub, Repo, uploading_hub
from tests.store.builder import finished_run

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's client, to httpx
TOKEN = "hf_thisisatokenofthetests0123456789"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub on the loopback, and a user whose token is in the environment."""
    with uploading_hub(TOKEN) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", server.url)
        yield server


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A folder as an export makes one."""
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "README.md").write_text('---\ntags: ["lora", "dynlora"]\n---\n\n# Adapter\n', "utf-8")
    (folder / "adapter_config.json").write_text("{}", "utf-8")
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 40)
    return folder


def send(folder: Path, name: str = "owner/adapter", *, format: str = "peft", private: bool = False) -> dict[str, str]:
    return send_folder(folder, find_repository(name, format=format, private=private), "a run: last adapter")


def test_a_new_repository_gets_all_files_in_one_commit(hub: Hub, export: Path) -> None:
    address = send(export, private=True)
    repo = hub.repos["owner/adapter"]
    assert address == {"repo": "owner/adapter", "url": f"{hub.url}/owner/adapter", "commit": repo.sha}
    assert repo.private
    assert [commit["summary"] for commit in repo.commits] == ["a run: last adapter"]
    assert {name: data for name, data in repo.files.items() if name != ".gitattributes"} == {
        path.name: path.read_bytes() for path in export.iterdir()
    }


def test_sent_again_it_is_a_second_commit_on_the_first(hub: Hub, export: Path) -> None:
    send(export)
    (export / "adapter_config.json").write_text('{"r": 2}', "utf-8")
    send(export)
    assert len(hub.repos["owner/adapter"].commits) == 2
    assert hub.repos["owner/adapter"].files["adapter_config.json"] == b'{"r": 2}'


def test_looking_sends_and_makes_nothing(hub: Hub) -> None:
    find_repository("owner/adapter", format="peft", private=False)
    assert hub.repos == {}
    assert {method for method, _, _ in hub.requests} == {"GET"}


REFUSED: dict[str, tuple[str, Repo | None, str]] = {
    "no owner": ("adapter", None, "must be owner/name"),
    "a path": ("../x/y", None, "must be owner/name"),
    "an address": ("https://huggingface.co/owner/x", None, "must be owner/name"),
    "a model of one's own": ("owner/x", Repo({"model.safetensors": b"", "README.md": b""}), "did not write"),
    "another format": ("owner/x", Repo({"model.safetensors": b""}, tags=["dynlora"]), "an export in the format merged"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(case: str, hub: Hub) -> None:
    name, repo, message = REFUSED[case]
    hub.repos |= {} if repo is None else {name: repo}
    with pytest.raises(ConfigError, match=message):
        find_repository(name, format="peft", private=False)
    assert repo is None or not repo.commits


def test_a_public_repository_is_not_taken_for_a_private_one(hub: Hub, export: Path) -> None:
    send(export)
    with pytest.raises(ConfigError, match="--private: owner/adapter is there and public"):
        send(export, private=True)


def test_a_change_of_others_meanwhile_is_not_overwritten(hub: Hub, export: Path) -> None:
    send(export)
    repository = find_repository("owner/adapter", format="peft", private=False)
    hub.repos["owner/adapter"].commits.append({"summary": "of somebody else", "files": []})
    with pytest.raises(RemoteError, match="the hub refused it"):
        send_folder(export, repository, "late")


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_refusal_is_one_sentence_without_the_token(status: int, hub: Hub, export: Path) -> None:
    hub.refuse = status
    with pytest.raises(DynloraError, match="does not let you write there|the hub refused it") as error:
        send(export)
    assert "\n" not in str(error.value)
    assert TOKEN not in str(error.value)
    assert "README.md" not in hub.repos["owner/adapter"].files, "all files or none"


def test_without_a_token_with_a_wrong_one_and_offline_it_says_what_to_do(
    hub: Hub, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(ConfigError, match="does not let you write there") as error:
        send(export)
    assert "hf_another" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="use a token that may, or a name of your own"):
        send(export, "somebody/adapter")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="run `hf auth login`, or set HF_TOKEN"):
        send(export)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set; unset it"):
        send(export)


def test_a_hub_that_is_gone_is_one_sentence(export: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.whoami", lambda self: (_ for _ in ()).throw(OSError(TOKEN)))
    with pytest.raises(RemoteError, match="the hub cannot be used") as error:
        send(export)
    assert TOKEN not in str(error.value)


@pytest.fixture
def named(trained_run: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Id of a trained run whose base model is on the hub."""
    shutil.copytree(trained_run, runs_dir / trained_run.name)
    monkeypatch.setattr(assets, "shared_model_name", lambda name: "owner/tiny")
    return trained_run.name


def rendered(card: str) -> dict[str, int]:
    """Return how many tables, pictures, blocks of code and headings a browser is shown of a card."""
    page = markdown.markdown(card.split("---", 2)[2], extensions=["tables", "fenced_code"])
    return {tag: len(re.findall(rf"<{tag}[ >]", page)) for tag in ("table", "img", "pre", "h2")}


@pytest.mark.slow
def test_an_export_is_sent_with_its_card_only_when_told_so(
    hub: Hub,
    named: str,
    runs_dir: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdict = {"text": "dynamic is better than lora (accuracy +1.0 points, 95 % CI +0.5 to +1.5, 5 seeds)."}
    monkeypatch.setattr("dynlora.kinds.train.kind.verdict_on", lambda *_: verdict)
    out = tmp_path / "here"
    document(run(runs_dir, "export", named, "--out", str(out), "--json"))
    assert hub.requests == [], "nothing is asked of the hub without --push-to"
    sent = run(runs_dir, "export", named, "--push-to", "owner/adapter", "--private", "--json")
    report = document(sent)
    repo = hub.repos["owner/adapter"]
    assert report["pushed"]["commit"] == repo.sha
    assert report["folder"] is None
    assert repo.private
    files = {name: data for name, data in repo.files.items() if name != ".gitattributes"}
    assert files == {path.name: path.read_bytes() for path in out.iterdir()}
    card = files["README.md"].decode()
    assert rendered(card) == {"table": 2, "img": 2, "pre": 1, "h2": 5}
    for part in (
        verdict["text"],
        'base_model: "owner/tiny"',
        "## Gates",
        "An output changed by at most",
        "![Rank by module",
        "| module | rank |",
    ):
        assert part in card
    assert re.search(r"loss 0\.\d{4} before, 0\.\d{4} after", card)
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", card):
        assert ET.fromstring(files[picture]).tag.endswith("svg")
    map_text = files["capacity-map.svg"].decode()
    ranks = [int(rank) for rank in re.findall(r"^\| `[^`]*` \| (\d+) \|$", card, re.MULTILINE)]
    drawn = [int(rank) for rank in re.findall(r'fill="black">(\d+)</text>', map_text)]
    assert sorted(drawn) == sorted(ranks)
    assert len(ranks) == len(document(run(runs_dir, "show", named, "--json"))["ranks"])
    everything = sent.output + caplog.text + "".join(data.decode("utf-8", "replace") for data in files.values())
    assert TOKEN not in everything


@pytest.mark.slow
def test_an_adapter_of_a_base_model_that_nobody_else_has_is_not_sent(
    hub: Hub, trained_run: Path, runs_dir: Path, tiny_bert: Path
) -> None:
    shutil.copytree(trained_run, runs_dir / trained_run.name)
    result = run(runs_dir, "export", trained_run.name, "--push-to", "owner/model")
    assert result.exit_code == 2
    assert "the base model is a folder of this machine" in result.stderr
    assert hub.requests == []
    document(run(runs_dir, "export", trained_run.name, "--push-to", "owner/model", "--format", "merged", "--json"))
    files = hub.repos["owner/model"].files
    assert str(tiny_bert).encode() not in b"".join(files.values()), "no place of this machine is sent"


def test_a_recorded_adapter_is_left_to_peft(hub: Hub, runs_dir: Path) -> None:
    folder = finished_run(runs_dir, 20, "a-run")
    (folder / "peft_adapter").mkdir()
    (folder / "peft_adapter" / "adapter_config.json").write_text("{}", "utf-8")
    result = run(runs_dir, "export", "a-run", "--push-to", "owner/x")
    assert (result.exit_code, hub.requests) == (2, [])
    assert "was recorded, and its adapter is as PEFT wrote it" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--out: is missing; give a folder or a .zip file, or --push-to owner/name"),
        (("--out", "x", "--private"), "--private: is for --push-to alone"),
        (("--out", "x.zip", "--push-to", "owner/x"), "--out x.zip: must be a folder with --push-to"),
    ],
)
def test_a_mistake_is_one_sentence(options: tuple[str, ...], message: str, trained_run: Path, runs_dir: Path) -> None:
    shutil.copytree(trained_run, runs_dir / trained_run.name)
    result = run(runs_dir, "export", trained_run.name, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_map_shows_every_module_and_its_names_as_text() -> None:
    modules = [(0, "query<script>", 4), (1, "query<script>", 0), (None, "head & co", 2), (0, "query<script>", 3)]
    tree = ET.fromstring(capacity_map(modules))
    texts = [node.text for node in tree.iter() if node.tag.endswith("}text")]
    assert texts == ["–", "0", "1", "query<script>", "head & co", "7", "0", "2"]
    assert not [node for node in tree.iter() if node.tag.endswith("script")]
    assert ET.fromstring(capacity_map([])) is not None
