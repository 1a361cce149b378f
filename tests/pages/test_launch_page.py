"""The launch form: what it starts from, what it is fed with, what it is told before it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from dynlora.config import parse_config
from dynlora.errors import ConfigError
from dynlora.jobs import launch, uploads
from dynlora.store.lifecycle import annotate
from dynlora.viz.ui import run_picker
from tests.pages.app import CATALOG, charts, draw_alone, field, is_text, open_page, plain, shown_config
from tests.viz.checked import preflight_document
from tests.viz.runs import HOSTILE, config, make_run

RUN = "20260101-000000-00000001"
TABLE = b"review,verdict,source\n" + b"the film was great,good,web\nthe film was dull,bad,print\n" * 5


@pytest.fixture
def uploaded(runs_dir: Path) -> str:
    """Digest of a small table that was uploaded."""
    return uploads.keep(runs_dir, "reviews.csv", TABLE).parent.name


def test_a_preset_is_a_link_and_a_whole_configuration() -> None:
    values = shown_config(open_page("launch", preset="Teaching"))
    assert parse_config(values).data.name == "sentiment4"
    assert values["train"]["steps"] == 80
    assert values["strategy"] == {"name": "dynamic"}, "a setting that the list of methods lacks is left out"


def test_the_preset_of_a_language_model_names_model_and_data() -> None:
    app = open_page("launch", preset="Instruction tuning")
    values = parse_config(shown_config(app))
    assert (values.model.name, values.data.name) == ("smollm2-135m", "arithmetic")
    field(app.selectbox, "Loss on").set_value("all").run()
    assert shown_config(app)["data"]["loss_on"] == "all"


def test_settings_of_planted_ranks_are_there_with_their_data_alone() -> None:
    app = open_page("launch")
    for data in ("sentiment4", "planted"):
        next(box for box in app.selectbox if "sentiment4" in box.options).set_value(data).run()
        names = {box.label for box in (*app.text_input, *app.number_input) if box.label.startswith("Planted")}
        assert len(names) == (5 if data == "planted" else 0)
        assert parse_config(shown_config(app)).data.task == ("planted" if data == "planted" else "auto")


TALK = (
    b'{"messages": [{"role": "user", "content": "Hi %d"}, {"role": "assistant", "content": "Hello"}], "topic": "a"}\n'
)
KINDS: dict[str, tuple[bytes, dict[str, Any], list[str]]] = {
    "messages": (TALK, {"messages": "messages"}, ["Messages column", "Answer column", "Input groups", "Loss on"]),
    "completion": (
        b'{"instruction": "Say %d", "response": "Yes", "id": 1}\n',
        {"prompt": "instruction", "completion": "response"},
        ["Prompt column", "Completion column", "Answer column", "Input groups", "Loss on"],
    ),
    "text": (b'{"text": "It rained %d days."}\n', {"text": "text"}, ["Text column", "Input groups"]),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_kind_of_an_upload_is_seen_and_its_columns_are_offered(kind: str, runs_dir: Path) -> None:
    line, columns, pickers = KINDS[kind]
    sent = uploads.keep(runs_dir, "rows.jsonl", b"".join(line % number for number in range(12)))
    app = open_page("launch", data="upload", upload=sent.parent.name)
    config = shown_config(app)["data"]
    assert {key: config[key] for key in columns} == columns
    assert parse_config(shown_config(app)).data.is_generative
    assert [box.label for box in app.selectbox if box.label in {*pickers, "Label column", "Text column"}] == pickers
    control: Any = next(one for one in app.get("button_group") if getattr(one, "label", "") == "Kind of data")
    assert control.value == kind
    control.set_value("labelled").run()
    assert "Label column" in [box.label for box in app.selectbox]
    assert not set(columns) - {"text"} & set(shown_config(app)["data"])


def test_a_run_can_be_twinned_from_a_link(runs_dir: Path) -> None:
    folder = make_run(runs_dir)
    values = config("dynamic", 3) | {"name": "first", "strategy": {"name": "dynamic", "moves": 5}}
    annotate(folder, meta={"config": values})
    repeated = shown_config(open_page("launch", **{"from": RUN, "twin": "random"}))
    assert (repeated["seed"], repeated["adapter"], repeated["train"]) == (3, {"rank": 4}, {"steps": 40})
    assert repeated["name"] == "random control of first"
    assert repeated["strategy"] == {"name": "dynamic", "allocation": "random", "moves": 5}


def test_another_run_to_start_from_goes_to_the_address(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("launch", preset="Teaching", strategy="lora")
    app.selectbox(key="address-from").set_value(RUN).run()
    assert app.query_params["from"] == RUN
    assert not {"preset", "strategy"} & set(app.query_params)
    assert shown_config(app)["train"] == {"steps": 40}


@pytest.mark.parametrize("text", HOSTILE[::3], ids=["markup", "long"])
def test_a_hostile_run_is_no_hostile_form(text: str, runs_dir: Path) -> None:
    folder = make_run(runs_dir, text=text)
    values = config("dynamic", 0) | {"name": text[:400].replace("\x00", "")}
    values["strategy"] = {"name": "dynamic", "moves": text, "allocation": text, "lr_ratio": [text]}
    values["data"] = {"name": text[:300].replace("\x00", "")}
    annotate(folder, meta={"config": values})
    app = open_page("launch", **{"from": RUN})
    assert shown_config(app)["strategy"] == {"name": "dynamic"}
    is_text(app)


def test_a_run_of_nonsense_is_one_sentence(runs_dir: Path) -> None:
    annotate(make_run(runs_dir), meta={"config": {"train": {"lr": "<b>fast</b>"}}})
    app = open_page("launch", **{"from": RUN})
    assert len(app.error) == 1
    assert "must be a number" in app.error[0].value.replace("\\", "")


@pytest.mark.parametrize("run_id", ["../../etc", "<b>x</b>"])
def test_ids_to_start_from_are_checked(run_id: str, runs_dir: Path) -> None:
    app = open_page("launch", **{"from": run_id})
    assert len(app.error) == 1
    assert not app.code


def test_an_uploaded_table_offers_its_columns(uploaded: str, runs_dir: Path) -> None:
    app = open_page("launch", data="upload", upload=uploaded)
    assert "In its 10 rows the label is good 5 times and bad 5 times" in plain(app)
    path = runs_dir / ".uploads" / uploaded / "reviews.csv"
    assert shown_config(app)["data"] == {
        "path": str(path),
        "text": "review",
        "label": "verdict",
        "group_by": "source",
        "max_eval": 500,
    }
    field(app.selectbox, "Second text column").set_value("source").run()
    assert shown_config(app)["data"]["text_pair"] == "source"
    assert app.dataframe[0].value["review"].tolist()[0] == "the film was great"


def test_what_is_sent_is_kept_and_what_is_removed_is_forgotten(runs_dir: Path) -> None:
    app = open_page("launch", data="upload")
    assert [button.disabled for button in app.button if button.key in ("start", "check")] == [True, True]
    app.file_uploader(key="upload").set_value(("../my reviews.csv", TABLE, "text/csv")).run()
    path = Path(shown_config(app)["data"]["path"])
    assert path == runs_dir / ".uploads" / path.parent.name / "my-reviews.csv"
    assert app.query_params["upload"] == path.parent.name
    app.file_uploader(key="upload").set_value(None).run()
    assert "Upload a file first." in plain(app)
    app.file_uploader(key="upload").set_value(("empty.csv", b"", "text/csv")).run()
    assert len(app.error) == 1
    assert "the file is empty" in app.error[0].value


def test_a_broken_upload_is_one_sentence(runs_dir: Path) -> None:
    digest = uploads.keep(runs_dir, "bad.csv", b'"<b>\n').parent.name
    app = open_page("launch", data="upload", upload=digest)
    assert len(app.error) == 1
    assert "<b>" not in app.error[0].value


def test_hostile_tables_are_text(runs_dir: Path) -> None:
    names = [text[:60].replace("\0", "") for text in HOSTILE]  # a NUL in a name is refused in a sentence
    rows = "\n".join(
        json.dumps({f"text {name}": text, "label": text[:40]}) for name, text in zip(names, HOSTILE, strict=True)
    )
    digest = uploads.keep(runs_dir, "a.jsonl", rows.encode()).parent.name
    app = open_page("launch", data="upload", upload=digest)
    assert not app.error
    is_text(app)


def test_a_file_of_this_machine_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(TABLE)
    app = open_page("launch", data="file")
    assert "Enter the path of a file or folder first." in plain(app)
    box = field(app.text_input, "Path on this machine")
    box.set_value(str(tmp_path)).run()
    section = shown_config(app)["data"]
    assert (section["path"], section["text"], section["label"]) == (str(tmp_path), "review", "verdict")
    box.set_value(str(tmp_path / "no.csv")).run()
    assert "does not exist; check the path" in plain(app)


def test_a_link_to_nothing_beside_the_data_is_a_sentence_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(TABLE)
    (tmp_path / "validation.csv").symlink_to(tmp_path / "gone.csv")
    app = open_page("launch", data="file")
    field(app.text_input, "Path on this machine").set_value(str(tmp_path)).run()
    assert "validation.csv" in "".join(error.value for error in app.error).replace("\\", "")


def test_paths_are_meant_where_the_dashboard_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNLORA_STARTED_IN", str(tmp_path))
    (tmp_path / "mine.csv").write_bytes(TABLE)
    app = open_page("launch", data="file")
    for label, value in (("Path on this machine", "mine.csv"), ("Model", "./model")):
        field(app.text_input, label).set_value(value).run()
    values = shown_config(app)
    assert (values["data"]["path"], values["model"]["name"]) == (str(tmp_path / "mine.csv"), str(tmp_path / "model"))


@pytest.mark.parametrize("path", ["//server/share/a.csv", "\\\\server\\share\\a.csv"])
def test_a_path_on_another_machine_is_not_looked_at(path: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: object) -> None:
        raise AssertionError("looked")

    monkeypatch.setattr("dynlora.viz.launch.data_check.table_of", look)
    annotate(make_run(runs_dir), meta={"config": config("lora", 0) | {"data": {"path": path}}})
    assert shown_config(open_page("launch", **{"from": RUN}))["data"] == {"path": path}


def test_a_folder_that_training_would_refuse_is_refused_with_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_bytes(TABLE)
    app = open_page("launch", data="file")
    field(app.text_input, "Path on this machine").set_value(str(tmp_path)).run()
    assert "has no train.csv, train.jsonl or train.parquet; name the files train.*" in plain(app)
    assert app.button(key="start").disabled


def test_seeds_are_runs_and_the_queue_is_said(runs_dir: Path) -> None:
    make_run(runs_dir, state="queued")
    app = open_page("launch")
    assert "1 is in the queue; a run started now gets position 2." in plain(app)
    field(app.text_input, "Seeds").set_value("3-5").run()
    assert app.button(key="start").label == "Start 3 runs"
    commands = next(code.value for code in app.code if code.language == "bash").splitlines()
    assert [f"seed={seed} " in line for seed, line in zip((3, 4, 5), commands, strict=True)] == [True] * 3
    field(app.text_input, "Seeds").set_value("x").run()
    assert len(app.error) == 1


def test_a_check_says_what_the_run_costs(monkeypatch: pytest.MonkeyPatch, runs_dir: Path) -> None:
    checks: list[dict[str, Any]] = []

    def preflight(values: dict[str, Any], folder: Path) -> dict[str, Any]:
        checks.append(values)
        return preflight_document(HOSTILE[0])

    monkeypatch.setattr(launch, "preflight", preflight)
    app = open_page("launch")
    app.button(key="check").click().run()
    assert checks == [shown_config(app)]
    assert not (runs_dir / RUN).exists()
    assert len([drawn for drawn in charts(app) if drawn["data"]]) == 2  # one more is not seen
    assert app.metric[0].value.replace("\\", "") == "64,878"
    is_text(app)
    app.number_input(key="field-train.steps-100").set_value(120).run()
    assert "The form has changed since the last check" in plain(app)
    assert not charts(app)
    app.number_input(key="field-train.steps-100").set_value(100).run()
    assert len([drawn for drawn in charts(app) if drawn["data"]]) == 2  # one more is not seen


def test_a_read_only_server_reads_no_files(uploaded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(run_picker.READ_ONLY_VARIABLE, "1")
    for kind in ("upload", "file"):
        app = open_page("launch", data=kind, upload=uploaded)
        assert not app.dataframe
        assert not app.button
        assert "path" not in shown_config(app)["data"]


def test_the_whole_app_is_drawn_without_torch(uploaded: str, runs_dir: Path, cache: Path) -> None:
    make_run(runs_dir)
    cache.mkdir()
    (cache / f"strategies-{launch._catalog_version()}.json").write_text(json.dumps(CATALOG))
    pages = ("runs", "run", "capacity", "inputs", "compare", "launch", "methods")
    draw_alone(pages, runs_dir, data="upload", upload=uploaded)


def test_what_was_entered_is_there_after_another_page() -> None:
    app = open_page("launch", preset="Teaching", strategy="lora")
    steps = field(app.number_input, "Steps")
    steps.set_value(33).run()
    app.text_input(key="name-").set_value("kept").run()
    app.switch_page("pages/methods.py").run()
    app.query_params.clear()
    app.switch_page("pages/launch.py").run()
    values = shown_config(app)
    assert (values["name"], values["train"]["steps"], values["strategy"]) == ("kept", 33, {"name": "lora"})
    assert app.query_params["preset"] == "Teaching"
    assert not app.warning


def test_other_starting_settings_replace_what_was_entered(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("launch")
    app.text_input(key="name-").set_value("kept").run()
    app.switch_page("pages/methods.py").run()
    app.query_params.clear()
    app.query_params["preset"] = "Quality"
    app.switch_page("pages/launch.py").run()
    assert "name" not in shown_config(app)


@pytest.mark.parametrize(
    ("refuses", "mode", "key"),
    [
        ("dynlora.viz.launch.form.start", "run", "start"),
        ("dynlora.jobs.launch.preflight", "run", "check"),
        ("dynlora.viz.ui.run_actions.enqueue_sweep", "experiment", "start-experiment"),
    ],
)
def test_what_is_refused_is_its_sentence_as_text(
    refuses: str, mode: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = mock.Mock(side_effect=ConfigError("train.lr=<b>99</b>: must be at most 10"))
    monkeypatch.setattr(refuses, refused)
    app = open_page("launch", mode=mode)
    app.button(key=key).click().run()
    assert "must be at most 10" in plain(app)
    assert "<b>" not in app.error[0].value


def test_columns_and_repairs_are_there_after_another_page(uploaded: str) -> None:
    app = open_page("launch", data="upload", upload=uploaded)
    field(app.selectbox, "Input groups").set_value("source").run()
    app.switch_page("pages/methods.py").run()
    app.query_params.clear()
    app.switch_page("pages/launch.py").run()
    assert app.query_params["upload"] == uploaded
    assert shown_config(app)["data"]["group_by"] == "source"


def test_a_link_to_a_twin_that_a_run_lacks_says_so(runs_dir: Path) -> None:
    annotate(make_run(runs_dir), meta={"config": config("lora", 0)})
    app = open_page("launch", **{"from": RUN, "twin": "random"})
    assert "This run has no random control" in plain(app)
    assert shown_config(app)["strategy"] == {"name": "lora"}
