"""The launch form without its widgets: fields, starts, twins, tables to train on, and what a check says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.cli import commands
from dynlora.cli.main import main
from dynlora.cli.sweep import combinations
from dynlora.config import config_keys, parse_config
from dynlora.config_files import yaml_text
from dynlora.errors import ConfigError, DataError
from dynlora.jobs.sweep import SECTION, section_choices
from dynlora.viz.compare import cards as live_cards
from dynlora.viz.launch import cost_model, data_check, form_model
from dynlora.viz.launch.form_model import Experiment
from tests.pages.app import CATALOG
from tests.viz.checked import preflight_document

STRATEGIES = {row["name"]: row for row in CATALOG["strategies"]}
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=30)


def command_config(command: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the config that a command line means, read by the command line's own parser."""
    seen: list[Any] = []
    monkeypatch.setattr(commands, "train", lambda *, queue, progress, runs_dir, **given: (seen.append(given), "", 0))
    done = CliRunner().invoke(main, shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    return commands.read_config(seen[0]["config"], seen[0]["overrides"], seen[0]["name"])


@settings(max_examples=60, deadline=None)
@given(
    values=st.fixed_dictionaries(
        {"seed": st.integers(0, 9), "data.path": TEXT.filter(str.strip), "strategy.name": TEXT.filter(str.strip)},
        optional={
            "name": TEXT.filter(str.strip),
            "data.text": TEXT,
            "train.lr": st.floats(1e-7, 10),
            "train.steps": st.integers(1, 10_000),
            "adapter.targets": st.lists(TEXT, min_size=1, max_size=3),
            "strategy.allocation": st.sampled_from(["no", "1e3", "null", "~", "rank", "[", "{a: b}", "1_0"]),
        },
    )
)
def test_command_and_file_mean_the_same_run(values: dict[str, Any]) -> None:
    config = form_model.nested(values)
    expected = parse_config(config)
    assert parse_config(yaml.safe_load(yaml_text(config))) == expected
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert command_config(form_model.command(config, "some runs; x"), monkeypatch) == expected


def test_the_form_holds_every_setting() -> None:
    drawn = {
        *form_model.TRAINING,
        *form_model.ROWS,
        *form_model.MORE_DATA,
        *form_model.PLANTED,
        *(f"data.{role}" for roles in data_check.ROLES.values() for role in roles),
        *form_model.MORE_TRAINING,
        *form_model.MORE_ADAPTER,
        *form_model.RECORDING,
    }
    of_their_own = {
        "name",
        "seed",
        "model.name",
        "data.name",
        "data.path",
        "data.repair",
        "data.encoding",
        "data.loss_on",
        "strategy.name",
    }
    assert drawn | of_their_own == set(config_keys())
    assert not drawn & of_their_own


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [
        ("train.lr", 0.5, True),
        ("train.lr", 11, False),
        ("train.lr", "<b>", False),
        ("train.lr", True, False),
        ("train.lr", None, False),
        ("train.steps", None, True),
        ("train.steps", 2.5, False),
        ("train.steps", 7, True),
        ("train.schedule", "cosine", True),
        ("train.schedule", ["x"], False),
        ("data.text", "a column", True),
        ("train.lr", float("nan"), False),
        ("train.steps", float("inf"), False),
    ],
)
def test_values_of_other_runs_fit_or_are_left(key: str, value: object, fits: bool) -> None:
    field = form_model.config_field(key)
    assert field.fitting(value) == (value if fits else field.default)


def test_a_list_of_known_values_is_a_choice_of_several() -> None:
    field = form_model.config_field("log.to")
    assert (field.type, field.choices[:2], field.empty) == ("tuple", ("tensorboard", "trackio"), "none")
    assert field.fitting(["mlflow", "aim"]) == ("mlflow", "aim")
    assert field.fitting(["mlflow", "comet"]) is None


def test_lists_of_other_runs_are_texts() -> None:
    assert form_model.config_field("adapter.targets").fitting(["query", 5]) == ("query", "5")
    assert form_model.config_field("adapter.targets").fitting("query") is None


@pytest.mark.parametrize(
    ("training", "waiting", "new", "caption"),
    [
        (0, 0, 1, ""),
        (1, 2, 1, "1 run is training and 2 are in the queue; a run started now gets position 4."),
        (0, 1, 3, "1 is in the queue; 3 runs started now get positions 2 to 4."),
        (0, 0, 3, "One run trains at a time: the first starts now, 2 wait in the queue."),
    ],
)
def test_the_queue_in_words(training: int, waiting: int, new: int, caption: str) -> None:
    assert form_model.queue_caption(training, waiting, new) == caption


def test_twins_keep_everything_else() -> None:
    config = parse_config(
        {
            "name": "mine",
            "seed": 7,
            "adapter": {"rank": 5},
            "train": {"steps": 33},
            "strategy": {"name": "dynamic", "moves": 3, "scaling": "rank_stabilized"},
        }
    ).model_dump(mode="json")
    uniform_fields = [{"name": "scaling", "type": "str", "default": "standard"}]
    strategies = STRATEGIES | {"lora": {**STRATEGIES["lora"], "fields": uniform_fields}}
    twins = form_model.twins(config, strategies)
    assert list(twins) == ["same", "uniform", "random"] == list(form_model.TWINS)[:3]
    assert list(form_model.TWINS) == list(form_model.TWIN_WORDS)

    def without(values: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if not key.startswith("strategy.") and key != "name"}

    assert without(twins["uniform"]) == without(twins["random"]) == without(twins["same"])
    of_strategy = {
        name: {key: value for key, value in values.items() if key.startswith("strategy.")}
        for name, values in twins.items()
    }
    assert of_strategy["uniform"] == {"strategy.name": "lora", "strategy.scaling": "rank_stabilized"}
    assert of_strategy["random"] == of_strategy["same"] | {"strategy.allocation": "random"}
    assert twins["uniform"]["name"] == "uniform baseline of mine"
    assert parse_config(form_model.nested(twins["same"])) == parse_config(config)


def test_plain_lora_has_a_twin_that_moves_rank() -> None:
    strategies = STRATEGIES | {"dynamic": {**STRATEGIES["dynamic"], "fields": [{"name": "scaling", "type": "str"}]}}
    plain = {"name": "mine", "seed": 7, "strategy": {"name": "lora", "scaling": "rank_stabilized", "scale": "learned"}}
    assert form_model.twins(plain, strategies)["default"] == {
        "name": "dynamic like mine",
        "seed": 7,
        "strategy.name": "dynamic",
        "strategy.scaling": "rank_stabilized",
    }


def test_a_run_has_no_twin_that_is_itself() -> None:
    assert list(form_model.twins({"strategy": {"name": "lora"}}, STRATEGIES)) == ["same", "default"]
    assert list(form_model.twins({"strategy": {"name": "dynamic", "allocation": "random"}}, STRATEGIES)) == [
        "same",
        "uniform",
    ]
    assert list(form_model.twins({"strategy": {"name": "unheard of"}}, {})) == ["same"]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_the_first_rows_of_a_file_are_read_and_its_columns_guessed(tmp_path: Path) -> None:
    rows = [
        {"review": f"the film was {'good' if i % 2 else 'NA'}", "verdict": i % 2, "source": "web"} for i in range(300)
    ]
    preview = data_check.first_rows(_write(tmp_path / "a.csv", rows))
    assert preview.shape == (data_check.READ_ROWS, 3)
    assert preview["review"].tolist() == [row["review"] for row in rows[:200]]
    assert data_check.guessed(preview) == {
        "text": "review",
        "text_pair": None,
        "label": "verdict",
        "group_by": "source",
    }
    assert (
        data_check.label_caption(preview, "verdict")
        == "In the first 200 rows the label is 0 100 times and 1 100 times."
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,label\n", "a.csv: has a header but no rows; add rows"),
        ("a.csv", b'text,label\n"a,1\n', "a.csv, line 2: a double quote opens there and never closes"),
        ("a.csv", b"\xff\xfe\x00,\n\x80,1\n", "a.csv: "),
        ("a.csv", b"\n \n", "a.csv: has no header line; add one"),
        ("a.jsonl", b"1\n", "a.jsonl, line 1: is not an object"),
        ("a.jsonl", b'{"a": ', "a.jsonl, line 1: is not JSON"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.json", b'[{"a": 1}\n{"a": 2}]', "a.json, line 2: is not JSON .a comma or . is missing"),
        ("a.json", b'{"train": [{}], "test": [{}]}', "a.json: holds several lists .train, test.; save each as a file"),
        ("a.json", b"[1, 2]", "a.json, line 1: a row that is not an"),
        ("a.xlsx", b"PK", "a.xlsx: is not an Excel workbook"),
        ("a.csv.gz", b"text", "a.csv.gz: is not a whole gzip file"),
        ("a.csv", b"x" * (4 * 2**20 + 1), "a.csv, line 1: is longer than 4 MiB"),
        ("a.csv", b",".join([b"c"] * 3000) + b"\n1", "a.csv: has 3,000 columns, at most 2,000 can be read; keep the"),
    ],
)
def test_files_that_cannot_be_read_are_one_sentence(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as refused:
        data_check.first_rows(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("columns", "guess"),
    [
        ({"sentence1": ["a b"], "sentence2": ["c d"], "label": [1]}, ("sentence1", "sentence2", "label", None)),
        ({"question": ["a"], "sentence": ["b"], "label": [1]}, ("sentence", None, "label", None)),
        ({"Text": ["a b c"], "Label": ["x"], "domain": ["y"]}, ("Text", None, "Label", "domain")),
        ({"id": [1, 2], "body": ["a long text", "another"], "kind": ["x", "x"]}, ("body", None, "id", None)),
        ({"a": [1, 2], "b": [1, 1]}, (None, None, "a", None)),
        ({"only": ["one"]}, ("only", None, None, None)),
    ],
)
def test_guesses(columns: dict[str, list[Any]], guess: tuple[str | None, ...]) -> None:
    assert tuple(data_check.guessed(pd.DataFrame(columns)).values()) == guess


@pytest.mark.parametrize(
    ("values", "caption"),
    [
        ([0.5 * i for i in range(30)], "In its 30 rows the label is a number from 0 to 14.5."),
        (["x"] * 3, "the label is always x, so there is nothing to learn"),
        ([f"text {i}" for i in range(60)], "the label has 60 values; check that it is the label."),
        (["x", None, "y"], "the label is empty 1 time."),
    ],
)
def test_the_label_in_words(values: list[Any], caption: str) -> None:
    rows = pd.DataFrame({"label": values})
    assert caption in data_check.label_caption(rows, "label")
    assert "before the repairs, the label" in data_check.label_caption(rows, "label", is_repaired=True)


@pytest.mark.parametrize("empty", [None, float("nan"), pd.NA])
def test_a_cell_without_a_value_is_read_as_nothing(empty: object) -> None:
    assert data_check.preview_rows(pd.DataFrame({"label": pd.Series(["x", empty], dtype=object)}))[
        "label"
    ].tolist() == [
        "x",
        "",
    ]


def test_a_folder_stands_for_its_training_file(tmp_path: Path) -> None:
    assert data_check.table_of(tmp_path) is None
    _write(tmp_path / "validation.csv", [{"text": "a", "label": 1}])
    train = _write(tmp_path / "train-00000-of-00002.csv", [{"text": "a", "label": 1}])
    assert data_check.table_of(tmp_path) == data_check.table_of(train) == train
    assert data_check.table_of(tmp_path / "nothing.csv") is None


def test_what_a_check_says_in_numbers_and_sentences() -> None:
    document = preflight_document()
    assert cost_model.figures([(document, 1)])["Trainable parameters"] == "64,878"
    assert cost_model.figures([(document, 1)])["Estimated time"] == "3 min"
    assert "7 possible reallocations between steps 17 and 59" in cost_model.schedule_caption(document)
    assert "3.2 % are truncated after 48 tokens" in cost_model.data_caption(document)
    preview = cost_model.preview_frame(document)
    assert preview["model input"].tolist() == ["[CLS] a fine film [SEP]", "[CLS] no [SEP]"]
    assert preview["truncated"].tolist() == ["no", "yes"]
    assert "second text" not in preview


def test_the_timeline_holds_every_event_once_and_thins_a_crowd() -> None:
    timeline = cost_model.timeline(preflight_document())
    by_lane = timeline.groupby("what")["start"].agg(list)
    assert by_lane["Rank reallocation"] == [17, 24, 31, 38, 45, 52, 59]
    assert by_lane["Evaluation"] == list(range(0, 81, 10))
    assert by_lane["Checkpoint"] == list(range(8, 81, 8))
    spans = timeline[timeline["end"] > timeline["start"]].set_index("what")[["start", "end"]].T.to_dict("list")
    assert spans == {"Learning rate rises": [0, 5], "Learning rate falls": [5, 80], "Ranks fixed": [59, 80]}
    crowded = cost_model.timeline(preflight_document(events=list(range(1, 9001)), steps=10_000))
    moves = crowded[crowded["what"] == "Rank reallocation"]["start"].tolist()
    assert (len(moves), moves[0], moves[-1]) == (cost_model.MARKS, 1, 9000)


@pytest.mark.parametrize("preset", list(form_model.PRESETS))
def test_every_preset_suits_every_strategy(preset: str) -> None:
    from dynlora import strategies

    for name in strategies.registry():
        drawn = {field.name: field for field in form_model.strategy_fields(strategies.describe(name))}
        start = form_model.PRESETS[preset]
        fields = {key.partition(".")[2]: field.fitting(start.get(key, field.default)) for key, field in drawn.items()}
        config = parse_config(form_model.nested({key: start[key] for key in start if not key.startswith("strategy.")}))
        strategy = strategies.build(name, fields)
        total = config.train.max_steps(0)
        strategy.check(total, config.adapter.rank)
        assert all(0 < step <= total for step in strategy.events(total, config.adapter.rank))


def row(**given: Any) -> dict[str, Any]:
    usual = {
        "id": "a",
        "status": "finished",
        "step": 40,
        "max_steps": 40,
        "time": {"train_s": 20.0},
        "is_own": True,
        "config": {"train": {"steps": 40, "batch_size": 16}},
    }
    return usual | given


def test_a_method_takes_the_start_for_its_own_fields_and_its_control_moves_at_random() -> None:
    start = {"strategy.name": "dynamic", "strategy.moves": 5, "strategy.warmup_steps": 3}
    methods = form_model.methods(STRATEGIES, start)
    assert methods == {
        "dynamic": {"name": "dynamic", "moves": 5},
        "random control of dynamic": {"name": "dynamic", "moves": 5, "allocation": "random"},
        "lora": {"name": "lora"},
    }
    from_control = form_model.methods(STRATEGIES, start | {"strategy.allocation": "random"})
    assert from_control == methods, "a control as the start makes no control of the method itself"


def test_the_file_of_an_experiment_is_the_same_sweep() -> None:
    methods = form_model.methods(STRATEGIES, {})
    experiment = Experiment(list(methods.values()), [2, 4], [0, 1])
    base = form_model.base({"name": "mine", "train.steps": 9, "seed": 7, "strategy.name": "lora", "adapter.rank": 8})
    assert base == {"name": "mine", "train": {"steps": 9}}
    document = yaml.safe_load(form_model.document(base, experiment))
    choices = section_choices(document.pop(SECTION))
    configs = combinations(document, choices, None)
    assert len(configs) == experiment.n == 12
    assert [(one.seed, one.adapter.rank) for one in configs[:4]] == [(0, 2), (0, 2), (0, 2), (0, 4)]
    assert {one.strategy.name for one in configs[:3]} == {"lora", "dynamic"}
    assert configs[0].name == "mine, lora, rank 2, seed 0"
    assert configs[2].name == "mine, dynamic allocation random, rank 2, seed 0"
    assert combinations(base, section_choices(experiment.lists), None) == configs, (
        "what the button sends is what the file says"
    )
    first = form_model.configured(base, experiment, experiment.methods[0])
    assert (first["seed"], first["adapter"], first["strategy"]) == (0, {"rank": 2}, {"name": "lora"})


@pytest.mark.parametrize("text", ["", "0", "x", "4,,x", "-4", "1,2,3,4,5,6,7,8,9", "99999999"])
def test_ranks_that_are_none_are_refused_with_the_rule(text: str) -> None:
    with pytest.raises(ConfigError, match=r"rank.*such as 4 or 2, 4, 8"):
        form_model.ranks(text)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=8))
def test_ranks_are_sorted_and_each_stands_once(given_ranks: list[int]) -> None:
    assert form_model.ranks(", ".join(map(str, given_ranks))) == sorted(set(given_ranks))


def test_an_experiment_without_a_method_or_with_too_many_runs_is_refused() -> None:
    with pytest.raises(ConfigError, match="methods: none is chosen; choose one or more"):
        form_model.checked(Experiment([], [4], [0]))
    with pytest.raises(ConfigError, match="320 combinations are more than 200"):
        form_model.checked(Experiment([{"name": "lora"}, {"name": "dynamic"}], list(range(1, 9)), list(range(20))))


def test_the_time_comes_from_finished_runs_of_the_same_pace() -> None:
    config = {"train": {"steps": 100, "batch_size": 16}}
    others = [
        row(time={"train_s": 400.0}, config={"train": {"batch_size": 64}}),
        row(status="stopped", time={"train_s": 4.0}),
        row(time=None),
        row(is_own=False, time={"train_s": 4000.0}),
        row(time={"train_s": float("nan")}),
    ]
    assert form_model.seconds_per_run(pd.DataFrame([row(), *others]), config) == pytest.approx(50)
    assert form_model.seconds_per_run(pd.DataFrame(others), config) is None
    assert form_model.seconds_per_run(pd.DataFrame([]), config) is None


def test_progress_counts_what_is_done_and_what_is_left() -> None:
    rows = [row(), row(status="running", step=10), row(status="queued", step=0), row(status="failed", step=3)]
    counts = live_cards.counted(rows)
    assert (counts.n, counts.finished, counts.active, counts.queued) == (4, 1, 2, 1)
    assert counts.share == pytest.approx((40 + 10 + 0 + 40) / 160)
    assert counts.seconds_left == pytest.approx(0.5 * 70)
    assert live_cards.counted([row(status="queued", step=0, time=None)]).seconds_left is None


def test_the_time_that_is_left_is_that_of_this_machine() -> None:
    sample = row(id="sample", is_own=False)
    running = row(id="now", status="running", step=10, time=None)
    waiting = row(id="next", status="queued", step=0, time=None)
    assert live_cards.counted([sample, running]).seconds_left is None, "the samples were trained elsewhere"
    assert live_cards.counted([sample, running], {"now": 300.0}).seconds_left == pytest.approx(300)
    assert live_cards.counted([sample, running, waiting], {"now": 300.0}).seconds_left == pytest.approx(300 + 40 * 10)
    own = row(id="own", time={"train_s": 20.0, "evaluated_s": 20.0})
    assert live_cards.counted([own, running, waiting], {"now": 300.0}).seconds_left == pytest.approx(300 + 40)
