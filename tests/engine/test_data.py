"""Labelled text from every kind of file: what is understood, what is warned of, what is refused and how."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynlora.config import DataConfig, parse_config
from dynlora.data_files import scan
from dynlora.engine.data.tables import read_table
from dynlora.engine.data.text_data import TextData, load_data, text_columns
from dynlora.errors import DataError
from tests.tiny import tiny_rows, write_csv

Records = list[dict[str, Any]]
ROWS: Records = list(tiny_rows(40))


def write_tsv(path: Path, rows: Records) -> None:
    """Write rows as tab separated values."""
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def write_jsonl(path: Path, rows: Records) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_parquet(path: Path, rows: Records) -> None:
    """Write rows as Parquet."""
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, Records], Any]] = {
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".jsonl": write_jsonl,
    ".json": write_jsonl,
    ".parquet": write_parquet,
}


def settings(**values: Any) -> DataConfig:
    """Return data settings; the path is given apart."""
    return parse_config({"data": {"path": "rows", **values}}).data


def load(path: Path, seed: int = 0, **values: Any) -> TextData:
    """Load data as a run would."""
    return load_data(settings(**values), path, seed)


def folder_of(path: Path, train: Records, held_out: Records, name: str = "validation.csv") -> Path:
    """Write a folder with two sides."""
    path.mkdir(exist_ok=True)
    write_csv(path / "train.csv", train)
    write_csv(path / name, held_out)
    return path


@pytest.mark.parametrize("ending", WRITERS)
def test_every_kind_of_file_says_the_same(ending: str, tmp_path: Path) -> None:
    WRITERS[ending](tmp_path / f"rows{ending}", ROWS)
    WRITERS[".csv"](tmp_path / "other.csv", ROWS)
    dataset, other = load(tmp_path / f"rows{ending}"), load(tmp_path / "other.csv")
    assert dataset.digest == other.digest
    assert (dataset.task.name, dataset.labels, dataset.metric) == ("classification", ["bad", "good"], "accuracy")
    assert (len(dataset.train), len(dataset.held_out)) == (36, 4)
    assert sorted(dataset.train.text + dataset.held_out.text) == sorted(row["text"] for row in ROWS)
    truth = {row["text"]: row["label"] for row in ROWS}
    assert [dataset.labels[index] for index in dataset.train.label] == [truth[text] for text in dataset.train.text]
    assert dataset.train.label.dtype == np.int64
    assert set(dataset.train.group or ()) <= {"short", "long"}


@pytest.mark.parametrize("held_out", ["validation", "test", "TEST"])
def test_folders_with_two_sides(held_out: str, tmp_path: Path) -> None:
    dataset = load(folder_of(tmp_path / "data", ROWS, tiny_rows(7, seed=5), f"{held_out}.csv"))
    assert (len(dataset.train), len(dataset.held_out)) == (40, 7)
    assert dataset.train.text == [row["text"] for row in ROWS]


def test_validation_wins_over_test(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "data", ROWS, tiny_rows(7, seed=5))
    write_csv(folder / "test.csv", tiny_rows(9, seed=6))
    assert len(load(folder).held_out) == 7


def test_a_folder_with_training_rows_only_is_split(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ROWS)
    dataset = load(tmp_path, eval_fraction=0.25)
    assert (len(dataset.train), len(dataset.held_out)) == (30, 10)


def test_shards_are_put_together(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", ROWS[:25])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", ROWS[25:])
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", list(tiny_rows(6, seed=3)))
    dataset = load(tmp_path)
    assert dataset.train.text == [row["text"] for row in ROWS]
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [{"text": 1.5, "label": "good"}])
    with pytest.raises(DataError, match="than the other shards"):
        load(tmp_path)


def test_one_side_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "data", ROWS, ROWS[:5])
    write_jsonl(folder / "train.jsonl", ROWS)
    with pytest.raises(DataError, match=r"train\.csv and train\.jsonl; keep one"):
        load(folder)


@pytest.mark.parametrize("name", ["rows [1].csv", "50% * of.csv", "ümläut.csv", "UPPER.CSV"])
def test_strange_file_names(name: str, tmp_path: Path) -> None:
    write_csv(tmp_path / name, ROWS)
    assert len(read_table(tmp_path / name)) == 40


def test_nothing_is_left_in_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "rows.csv", ROWS)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "t").mkdir()
    load(tmp_path / "rows.csv")
    assert list((tmp_path / "t").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "t"]


def test_byte_order_marks_and_quotes(tmp_path: Path) -> None:
    lines = ["text,label", '"a, quoted ""text""",x', '"two\nlines",y', "üñí,x", "plain,y"] * 1
    (tmp_path / "rows.csv").write_text("\ufeff" + "\n".join(lines) + "\n", "utf-8")
    dataset = load(tmp_path / "rows.csv")
    assert {'a, quoted "text"', "two\nlines", "üñí", "plain"} == {*dataset.train.text, *dataset.held_out.text}


def test_texts_and_classes_may_be_called_na(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in (("NA", "None"), ("null", "NA"), ("n/a", "None")) * 5]
    dataset = load(write_csv(tmp_path / "rows.csv", rows))
    assert dataset.labels == ["NA", "None"]
    assert set(dataset.train.text) == {"NA", "null", "n/a"}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([3, 1, 2], ["1", "2", "3"]),
        ([1.0, 2.0], ["1", "2"]),
        ([True, False], ["False", "True"]),
        ([10, 9], ["9", "10"]),
    ],
)
def test_names_of_classes(values: Sequence[Any], labels: list[str], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": f"t {i}", "label": values[i % len(values)]} for i in range(12)])
    dataset = load(tmp_path / "rows.jsonl")
    assert (dataset.task.name, dataset.labels) == ("classification", labels)


def test_names_kept_in_the_file_are_used(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"text": [f"t {i}" for i in range(12)], "label": [i % 2 for i in range(12)]}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "rows.parquet")
    dataset = load(tmp_path / "rows.parquet")
    assert dataset.labels == ["no", "yes"]
    rows["label"][3] = -1
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="hidden label"):
        load(tmp_path / "rows.parquet")


def test_one_class_on_one_side_written_in_two_ways(tmp_path: Path) -> None:
    """Numbers on one side and the same as text on the other are the same classes."""
    write_jsonl(tmp_path / "train.jsonl", [{"text": f"t {i}", "label": i % 2} for i in range(12)])
    write_jsonl(tmp_path / "test.jsonl", [{"text": f"u {i}", "label": str(i % 2)} for i in range(4)])
    dataset = load(tmp_path)
    assert dataset.labels == ["0", "1"]
    assert dataset.held_out.label.tolist() == [0, 1, 0, 1]


def test_fractions_are_a_regression(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": f"t {i}", "label": i / 4} for i in range(20)])
    dataset = load(tmp_path / "rows.jsonl", task="auto")
    assert (dataset.task.name, dataset.labels, dataset.metric) == ("regression", [], "pearson")
    assert dataset.train.label.dtype == np.float32
    assert load(tmp_path / "rows.jsonl", metric="mse").metric == "mse"


def test_whole_numbers_are_a_regression_when_asked_for(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": f"t {i}", "label": i} for i in range(20)])
    assert load(tmp_path / "rows.jsonl", task="regression").labels == []
    assert len(load(tmp_path / "rows.jsonl").labels) == 20


@pytest.mark.parametrize(
    ("first", "second"),
    [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "sentence")],
)
def test_pairs_as_glue_names_them(first: str, second: str, tmp_path: Path) -> None:
    rows = [{"idx": i, second: f"b {i}", first: f"a {i}", "label": i % 2} for i in range(12)]
    dataset = load(write_csv(tmp_path / "rows.csv", rows))
    texts = dataset.train.text
    assert dataset.train.text_pair is not None
    assert {text[0] for text in texts} == {"a"}
    assert [a[2:] for a in texts] == [b[2:] for b in dataset.train.text_pair]


@pytest.mark.parametrize("names", [("TEXT", "LABEL"), (" text ", " label "), ("Sentence", "Label")])
def test_columns_are_found_in_any_case_and_with_space_around(names: tuple[str, str], tmp_path: Path) -> None:
    rows = tiny_rows(40)
    write_csv(tmp_path / "plain.csv", [{"text": row["text"], "label": row["label"]} for row in rows])
    write_csv(tmp_path / "odd.csv", [{names[0]: row["text"], names[1]: row["label"]} for row in rows])
    plain, odd = (
        load_data(DataConfig(path=str(path)), path, 0) for path in (tmp_path / "plain.csv", tmp_path / "odd.csv")
    )
    assert odd.train.text == plain.train.text
    assert odd.labels == plain.labels
    assert np.array_equal(odd.held_out.label, plain.held_out.label)


def test_named_columns_win(tmp_path: Path) -> None:
    rows = [{"text": "no", "body": f"a {i}", "more": f"b {i}", "stars": i % 3, "label": 7} for i in range(12)]
    path = write_csv(tmp_path / "rows.csv", rows)
    dataset = load(path, text="body", text_pair="more", label="stars")
    assert dataset.train.text[0].startswith("a ")
    assert (dataset.train.text_pair or [""])[0].startswith("b ")
    assert dataset.labels == ["0", "1", "2"]
    assert load(path, text="body", label="stars").train.text_pair is None
    texts, pairs = text_columns(read_table(path), settings(text="body", text_pair="more"))
    assert (texts[3], (pairs or [])[3]) == ("a 3", "b 3")


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [
        (None, {"short", "long"}),
        ("domain", {"short", "long"}),
        ("label", {"bad", "good"}),
        ("none", None),
        ("clusters", None),
        ("length", {"1 to 40 characters", "41 to 80 characters"}),
    ],
)
def test_input_groups(group_by: str | None, groups: set[str] | None, tmp_path: Path) -> None:
    dataset = load(write_csv(tmp_path / "rows.csv", ROWS), group_by=group_by)
    assert (None if dataset.train.group is None else set(dataset.train.group)) == groups


def test_without_a_domain_groups_are_lengths(tmp_path: Path) -> None:
    rows = [{"text": "x" * n, "label": n % 2} for n in (1, 40, 41, 80, 81, 160, 161, 320, 321, 900)]
    dataset = load(folder_of(tmp_path / "data", rows, rows))
    ranges = ("1 to 40", "41 to 80", "81 to 160", "161 to 320", "over 320")
    assert dataset.train.group == [f"{of} characters" for of in ranges for _ in range(2)]


def test_limits_are_drawn_by_key_and_keep_the_order(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "data", ROWS, tiny_rows(20, seed=9))
    dataset = load(folder, max_train=15, max_eval=6)
    assert (len(dataset.train), len(dataset.held_out)) == (15, 6)
    order = [row["text"] for row in ROWS]
    positions = [order.index(text) for text in dataset.train.text]
    assert positions == sorted(positions)
    assert load(folder, max_train=15, max_eval=6).digest == dataset.digest
    assert load(folder, seed=1, max_train=15, max_eval=6).digest != dataset.digest
    assert load(folder, max_train=1000).digest == load(folder).digest


def test_the_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    assert load(path).held_out.text == load(path, group_by="none").held_out.text
    assert load(path).held_out.text != load(path, seed=1).held_out.text


def test_the_digest_tells_every_change(tmp_path: Path) -> None:
    digests = set()
    variants: list[Records] = [
        ROWS,
        ROWS[::-1],
        [*ROWS[:-1], {**ROWS[-1], "text": "other"}],
        [*ROWS[:-1], {**ROWS[-1], "label": "good" if ROWS[-1]["label"] == "bad" else "bad"}],
        [*ROWS[:-1], {**ROWS[-1], "domain": "elsewhere"}],
    ]
    for number, rows in enumerate(variants):
        digests.add(load(folder_of(tmp_path / str(number), rows, ROWS[:5])).digest)
    assert len(digests) == len(variants)


@pytest.mark.parametrize(
    ("folder", "metric"),
    [("mrpc", "f1"), ("sst2", "accuracy"), ("CoLA", "matthews")],
)
def test_glue_tasks_have_their_own_metric(folder: str, metric: str, tmp_path: Path) -> None:
    assert load(folder_of(tmp_path / folder, ROWS, ROWS[:8])).metric == metric


def test_warnings_say_what_a_person_should_know(tmp_path: Path) -> None:
    rare = [*({"text": f"common {i}", "label": "a"} for i in range(60)), {"text": "rare", "label": "b"}]
    dataset = load(folder_of(tmp_path / "data", rare, [{"text": "common 1", "label": "a"}] * 3))
    warnings = " ".join(dataset.warnings)
    assert "b is less than a twentieth" in warnings
    assert "only one class" in warnings
    assert "1 texts are in both the training and the held-out data" in warnings
    clean = folder_of(
        tmp_path / "clean",
        [{"text": f"t {i}", "label": i % 2} for i in range(20)],
        [{"text": f"u {i}", "label": i % 2} for i in range(4)],
    )
    assert load(clean).warnings == []


def test_texts_that_are_cut_are_a_warning_as_in_the_data_check(tmp_path: Path) -> None:
    """Launch warned of them, and Health said that the data has no warnings."""
    rows = [{"text": f"{i} " + "word " * 60 * (i < 3), "label": i % 2} for i in range(20)]
    path = write_csv(tmp_path / "rows.csv", rows)
    sentence = "An estimated 3 of 20 texts have more than data.max_length=32 tokens; the rest of them is not read."
    assert sentence in load(path, max_length=32).warnings
    section = parse_config({"data": {"path": str(path), "max_length": 32}}).data
    fault = next(each for each in scan.look(path, scan.wanted_of(section, 0)).faults if each["kind"] == "long")
    assert fault["count"] == 3


def test_a_sample_of_the_training_rows_is_drawn_by_key(tmp_path: Path) -> None:
    dataset = load(write_csv(tmp_path / "rows.csv", ROWS))
    sample = dataset.train_sample(10, seed=0)
    assert sample.text == dataset.train_sample(10, seed=0).text != dataset.train_sample(10, seed=1).text
    assert set(sample.text) <= set(dataset.train.text)
    assert len(dataset.train_sample(1000, seed=0)) == len(dataset.train)


def table(text: str) -> Records:
    """Return rows from lines such as `a=1 b=2`."""
    return [dict(part.split("=") for part in line.split()) for line in text.splitlines()]


REFUSED: dict[str, tuple[Records, dict[str, Any], str]] = {
    "no text": (table("body=a label=0\nbody=b label=1"), {}, r"data\.text: none of the columns body, label"),
    "no label": (table("text=a n=1\ntext=b n=2"), {}, r"data\.label=label: no such column in the training data; .* n$"),
    "one class": (table("text=a label=0\n" * 9), {}, "only one class"),
    "text for a regression": (ROWS, {"task": "regression"}, "has text"),
    "fractions for classes": (
        [{"text": f"t {i}", "label": i / 3} for i in range(9)],
        {"task": "classification"},
        "use data.task=regression",
    ),
    "numbers and some text": (
        [*({"text": f"t {i}", "label": i / 3} for i in range(12)), {"text": "u", "label": "N/A"}] * 2,
        {},
        "'N/A'",
    ),
    "too many classes": ([{"text": f"t {i}", "label": f"c {i}"} for i in range(1300)], {}, "is an id or a number"),
    "too many groups": (
        [{"text": f"t {i}", "label": i % 2, "who": f"g {i}"} for i in range(90)],
        {"group_by": "who", "eval_fraction": 0.8},
        "too many",
    ),
    "f1 of three classes": ([{"text": f"t {i}", "label": i % 3} for i in range(30)], {"metric": "f1"}, "two classes"),
    "empty texts": ([*ROWS, {"text": "  ", "label": "good", "domain": "long"}] * 3, {}, "is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, tmp_path: Path) -> None:
    rows, values, words = REFUSED[case]
    with pytest.raises(DataError, match=words) as caught:
        load(write_csv(tmp_path / "rows.csv", rows), **values)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_columns_of_garbage_are_cut_in_the_message(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{f"\x1b[31m{i}" + "x" * 500: 1 for i in range(90)}] * 4)
    with pytest.raises(DataError, match="and 70 more") as caught:
        load(tmp_path / "rows.jsonl")
    assert len(str(caught.value)) < 1200
    assert "\x1b" not in str(caught.value)
