"""Every fault is found at once and by line; a repair leaves out exactly what the check showed."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynlora.cli.adapters import check_file
from dynlora.config import parse_config
from dynlora.config_files import parse_value, value_text
from dynlora.data_files import reader, scan, similarity
from dynlora.data_files import repairs as data_files_repairs
from dynlora.engine.data.text_data import TextData, load_data
from dynlora.errors import ConfigError, DataError
from tests.data_files.files import csv_text, json_lines
from tests.tiny import tiny_rows

GOOD = [
    {"text": f"example {i} {'is fine' if i % 2 else 'is broken'}", "label": ("bug", "praise")[i % 2]} for i in range(40)
]
"""Forty rows without a fault, lines 2 to 41 of a CSV."""

Rows = list[dict[str, Any]]


def wanted(**values: Any) -> scan.CheckConfig:
    """Return what the check needs of these values of section `data`."""
    seed = values.pop("seed", 0)
    return scan.wanted_of(parse_config({"data": {"path": "x", **values}}).data, seed)


def look(path: Path, rows: Rows, **values: Any) -> scan.CheckResult:
    """Check rows that are written as CSV."""
    path.write_text(csv_text(rows), "utf-8")
    return scan.look(path, wanted(**values))


def load(path: Path, seed: int = 0, **values: Any) -> TextData:
    """Load a file as a run does."""
    return load_data(parse_config({"data": {"path": "x", **values}}).data, path, seed)


def lines(fault: dict[str, Any]) -> list[int]:
    """Return the lines of a fault."""
    return [place["line"] for place in fault["places"]]


ODD: dict[str, tuple[Rows, list[int], str, Any]] = {
    "empty_text": ([{"text": " ", "label": "bug"}], [42], "the text is empty (data.text=text)", "drop_empty_texts"),
    "empty_label": (
        [{"text": "late again", "label": ""}],
        [42],
        "the label is empty (data.label=label)",
        "drop_empty_labels",
    ),
    "spelling": (
        [{"text": "pay", "label": "Bug "}, {"text": "pays", "label": "PRAISE"}],
        [42, 43],
        "'Bug ' is bug and PRAISE is praise but for case, white space or characters that look alike",
        {"merge": {"Bug ": "bug", "PRAISE": "praise"}},
    ),
    "duplicate": ([GOOD[3], GOOD[3]], [42, 43], "text and label repeat an earlier row", "drop_duplicates"),
    "near_duplicate": (
        [{"text": "Example  3, IS fine!", "label": "praise"}],
        [42],
        "only by case, punctuation or spaces",
        "drop_near_duplicates",
    ),
    "conflict": ([{**GOOD[3], "label": "bug"}], [5, 42], "the same text has another label", "drop_conflicts"),
    "rare": ([{"text": "alone", "label": "odd"}], [42], "no other row has its class", "drop_rare"),
    "long": ([{"text": "word " * 200, "label": "bug"}], [42], "by estimate more than data.max_length=128 tokens", None),
}
"""Rows behind the good ones by the fault they make: lines, words, repair."""


@pytest.mark.parametrize("kind", ODD)
def test_each_fault_names_its_lines_rule_and_repair(kind: str, tmp_path: Path) -> None:
    rows, places, words, repair = ODD[kind]
    report = look(tmp_path / "rows.csv", [*GOOD, *rows])
    fault = next(each for each in report.faults if each["kind"] == kind)
    assert lines(fault) == places
    assert words in fault["sentence"]
    assert fault["sentence"].startswith("rows.csv, line")
    assert all(f"{place}" in fault["sentence"] for place in places)
    assert fault["repair"] == repair
    assert fault["refuses"] is (kind in ("empty_text", "empty_label"))
    assert report.faults[0]["examples"]


def test_all_faults_are_listed_at_once_and_good_rows_have_none(tmp_path: Path) -> None:
    assert look(tmp_path / "good.csv", GOOD).faults == []
    assert look(tmp_path / "good.csv", GOOD).conclusion == "good.csv: no faults in 40 rows."
    odd = [row for rows, *_ in ODD.values() for row in rows]
    report = look(tmp_path / "rows.csv", [*GOOD, *odd])
    assert set(ODD) <= {fault["kind"] for fault in report.faults}
    assert report.conclusion.endswith("training refuses the file until it is repaired.")


def test_lines_are_those_of_the_file_beyond_blank_lines_and_line_breaks_in_cells(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n\n"two\nlines",a\nb,\n\n"x\n\ny",b\n ,b\n')
    lines_by_kind = {fault["kind"]: lines(fault) for fault in scan.look(path, wanted()).faults}
    assert (lines_by_kind["empty_label"], lines_by_kind["empty_text"]) == ([5], [10])


def folder(path: Path, train: Rows, held_out: Rows) -> Path:
    """Write both sides."""
    path.mkdir()
    (path / "train.csv").write_text(csv_text(train))
    (path / "validation.csv").write_text(csv_text(held_out))
    return path


def test_the_same_text_on_both_sides_and_with_another_label_is_said_separately(tmp_path: Path) -> None:
    held_out = [GOOD[4], {**GOOD[7], "label": "bug"}, {"text": "EXAMPLE 9 is fine.", "label": "praise"}, GOOD[6]]
    both = folder(
        tmp_path / "data", GOOD, [*held_out, {"text": "new", "label": "never"}, {"text": "newer", "label": "never"}]
    )
    faults = {fault["kind"]: fault for fault in scan.look(both, wanted()).faults}
    assert lines(faults["shared"]) == [6, 8]
    assert lines(faults["shared_other_label"]) == [9]
    assert lines(faults["near_shared"]) == [11]
    assert faults["unseen"]["places"] == [{"file": "validation.csv", "line": 6}, {"file": "validation.csv", "line": 7}]
    assert "too optimistic" in faults["shared"]["sentence"]
    assert "with another label" in faults["shared_other_label"]["sentence"]
    repaired = load(both, repair=["drop_shared", "drop_near_shared", "drop_unseen"])
    assert (len(repaired.train), len(repaired.held_out)) == (36, 4)
    assert repaired.warnings == []
    assert [sentence.split(":")[0] for sentence in repaired.repaired] == [
        "Left out 3 rows",
        "Left out 1 row",
        "Left out 2 rows",
    ]
    assert "train.csv, lines 6, 8 and 9" in repaired.repaired[0]


def test_equal_texts_of_one_file_are_kept_on_one_side_by_splitting_by_group(tmp_path: Path) -> None:
    rows = [{"text": f"text {i // 2}", "label": ("a", "b")[i // 2 % 2], "topic": f"t{i // 4}"} for i in range(40)]
    faults = {fault["kind"]: fault for fault in look(tmp_path / "rows.csv", rows, eval_fraction=0.3).faults}
    assert faults["shared"]["repair"] == {"split_by": "topic"}
    assert faults["shared"]["action"] == "Split by topic"
    data = load(tmp_path / "rows.csv", eval_fraction=0.3, repair=[{"split_by": "topic"}])
    assert set(data.train.text).isdisjoint(data.held_out.text)
    assert len(data.held_out) == 12
    plain = [{key: row[key] for key in ("text", "label")} for row in rows]
    faults = {fault["kind"]: fault for fault in look(tmp_path / "plain.csv", plain, eval_fraction=0.3).faults}
    assert faults["shared"]["repair"] == {"split_by": "text"}
    with pytest.raises(DataError, match="is a held-out part of its own, so data.repair=split_by draws none; drop it"):
        load(folder(tmp_path / "both", rows, rows[:4]), repair=[{"split_by": "topic"}])


COLUMNS: dict[str, tuple[Rows, str, bool]] = {
    "id": ([{"text": f"t {i}", "label": f"case-{i:04}"} for i in range(60)], "60 of 60 labels are distinct, so", False),
    "list": ([{"text": f"t {i}", "label": f"['a', {i % 2}]"} for i in range(20)], "(multi-label) are not", False),
    "one_class": ([{"text": f"t {i}", "label": "same"} for i in range(20)], "is same, only one class", True),
    "hidden": ([{"text": f"t {i}", "label": -1} for i in range(20)], "labels are -1, a hidden label", True),
    "mixed": (
        [{"text": f"t {i}", "label": i / 7 if i else "NA"} for i in range(60)],  # the column looks like an id, too
        "line 2: the label is text such as 'NA' among numbers (data.label=label)",
        True,
    ),
    "few_rows": ([{"text": "t", "label": "a"}], "has 1 row, too few rows for training and held-out", True),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_each_trap_of_a_whole_column_is_its_own_sentence(kind: str, tmp_path: Path) -> None:
    rows, words, refuses = COLUMNS[kind]
    fault = look(tmp_path / "rows.csv", rows).faults[0]
    assert (fault["kind"], fault["refuses"]) == (kind, refuses)
    assert words in fault["sentence"]
    assert fault["sentence"].startswith("rows.csv")
    if refuses and kind != "few_rows":
        with pytest.raises(DataError) as refused:
            load(tmp_path / "rows.csv")
        assert str(refused.value).startswith(f"data.path={tmp_path}/{fault['sentence'].rstrip('.')}")


def test_lists_in_json_are_labels_of_several_classes(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        json_lines([{"text": f"t {i}", "label": ["a", "b"][: i % 2 + 1]} for i in range(9)])
    )
    with pytest.raises(
        DataError, match=r"rows\.jsonl, lines 1, 2, 3, 4, 5 and 4 more: .* \(multi-label\) are not supported"
    ):
        load(tmp_path / "rows.jsonl")


def test_fractions_have_no_classes_to_be_wrong(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": i / 7} for i in range(1, 30)]
    assert look(tmp_path / "rows.csv", rows).faults == []
    assert (
        look(tmp_path / "rows.csv", [{**row, "label": i} for i, row in enumerate(rows)], task="regression").faults == []
    )


def test_the_refusal_of_training_names_the_line_and_the_other_faults(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(csv_text([*GOOD, {"text": "", "label": "bug"}, {"text": "x", "label": ""}]))
    with pytest.raises(DataError) as refused:
        load(path)
    assert str(refused.value) == (
        f"data.path={tmp_path}/rows.csv, line 42: the text is empty (data.text=text); fill it, or leave it out with "
        "data.repair=[drop_empty_texts] (1 more fault: dynlora data check rows.csv)"
    )


@pytest.mark.parametrize("kind", [kind for kind, case in ODD.items() if isinstance(case[3], str)])
def test_a_repair_leaves_out_what_the_check_shows_and_nothing_else(kind: str, tmp_path: Path) -> None:
    rows, places, _, repair = ODD[kind]
    every = [*GOOD, *rows]
    path = tmp_path / "rows.csv"
    report = look(path, every, repair=[repair])
    assert kind not in {fault["kind"] for fault in report.faults}
    data = load(path, repair=[repair])
    kept = [row["text"] for line, row in enumerate(every, 2) if line not in places]
    assert sorted([*data.train.text, *data.held_out.text]) == sorted(kept)
    assert data.repaired == [item["sentence"] for item in report.repaired]
    assert f"Left out {len(places)} row" in data.repaired[0]


def test_classes_are_merged_as_the_column_spells_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(csv_text([*GOOD, {"text": "pay", "label": "Bug"}]))
    data = load(path, repair=[{"merge": {"Bug": "bug"}}])
    assert data.labels == ["bug", "praise"]
    assert data.repaired == ["Merged Bug into bug: 1 row."]
    (tmp_path / "numbers.jsonl").write_text(json_lines([{"text": f"t {i}", "label": i % 3} for i in range(30)]))
    assert load(tmp_path / "numbers.jsonl", repair=[{"merge": {2: 1}}]).labels == ["0", "1"]
    for classes, absent in (({"none": "bug"}, "none"), ({"2": "7"}, "7")):
        with pytest.raises(DataError, match=f"no row is of class {absent}; classes are"):
            load(tmp_path / ("rows.csv" if absent == "none" else "numbers.jsonl"), repair=[{"merge": classes}])


def test_classes_that_a_data_set_names_elsewhere_are_merged_by_name(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(csv_text([{"text": f"t {i}", "label": i % 3} for i in range(30)]))
    config = parse_config({"data": {"path": "x", "repair": [{"merge": {"fine": "good"}}]}}).data
    data = load_data(config, tmp_path / "rows.csv", 0, label_names=("bad", "good", "fine"))
    assert data.labels == ["bad", "good"]
    assert data.repaired == ["Merged fine into good: 10 rows."]


def test_without_repairs_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(csv_text(tiny_rows(40)))
    assert load(path).digest == load(path, repair=[]).digest == load(path, repair=None).digest
    assert load(path, seed=3).digest == load(path, seed=3, repair=["drop_empty_texts"]).digest
    assert load(path).repaired == []
    assert parse_config({"data": {"repair": []}}) == parse_config({})  # runs from before have no such key


def test_repairs_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    both = folder(tmp_path / "data", GOOD[:3], GOOD[:3])
    with pytest.raises(DataError, match=r"data.repair leaves no training row; remove a repair or add rows"):
        load(both, repair=["drop_shared"])
    with pytest.raises(DataError, match=r"data.repair=thread: no such column in the training data"):
        load(both / "train.csv", repair=[{"split_by": "thread"}])


REPAIRS = st.lists(
    st.sampled_from(sorted(data_files_repairs.DROPS))
    | st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), min_size=1, max_size=3).map(
        lambda d: {"merge": d}
    )
    | st.text(min_size=1, max_size=20).map(lambda name: {"split_by": name}),
    max_size=5,
)


@settings(deadline=None)
@given(repairs=REPAIRS)
def test_repairs_survive_the_command_line_and_the_file(repairs: list[Any]) -> None:
    config = parse_config({"data": {"path": "x", "repair": repairs}})
    assert parse_config({"data": {"path": "x", "repair": parse_value(value_text(repairs))}}) == config
    assert [data_files_repairs.plain(repair) for repair in config.data.repair or ()] == repairs
    assert config.model_dump(mode="json")["data"]["repair"] == (repairs or None)


def test_an_unknown_repair_names_the_ones_there_are() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^data\.repair=drop_all: unknown repair; use one of drop_long_rows, .*merge",
    ):
        parse_config({"data": {"repair": ["drop_duplicates", "drop_all"]}})


@settings(deadline=None)
@given(groups=st.lists(st.integers(0, 6), min_size=2, max_size=60), seed=st.integers(0, 99), share=st.floats(0.05, 0.9))
def test_a_split_by_group_keeps_each_group_whole(groups: list[int], seed: int, share: float) -> None:
    if len(set(groups)) < 2:
        with pytest.raises(DataError, match="has 1 group, it needs two or more"):
            similarity.held_out_groups("rows.csv", groups, seed, share)
        return
    groups_held_out = similarity.held_out_groups("rows.csv", groups, seed, share)
    held, kept = ({groups[row] for row in np.flatnonzero(flags)} for flags in (groups_held_out, ~groups_held_out))
    assert held
    assert kept
    assert held.isdisjoint(kept)
    assert (groups_held_out == similarity.held_out_groups("rows.csv", groups, seed, share)).all()


def test_a_word_in_brackets_is_a_label_as_any_other(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": ("[pos]", "[neg]")[i % 2]} for i in range(40)]
    assert look(tmp_path / "rows.csv", rows).faults == []
    assert load(tmp_path / "rows.csv").task.labels == ("[neg]", "[pos]")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train_groups": ["nope"], "group_by": "topic"}, "data.train_groups"),
        ({"metric": "pearson"}, "data.metric=pearson"),
    ],
)
def test_a_wrong_setting_keeps_its_own_sentence_beside_faults_of_rows(
    values: dict[str, Any], words: str, tmp_path: Path
) -> None:
    rows = [{"text": f"text {i // 2}", "label": "ab"[i % 2], "topic": "t"} for i in range(40)]
    look(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match=words):
        load(tmp_path / "rows.csv", **values)


@pytest.mark.parametrize("written", ["inf", "-inf", "1e400", "9" * 400])
def test_a_label_beyond_all_numbers_is_called_that(written: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [f"text {i} of a few,{written if i == 3 else i / 7}" for i in range(30)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    result = scan.look(path, wanted(task="regression"))
    [fault] = [fault for fault in result.faults if fault["refuses"]]
    assert fault["sentence"].startswith(
        "rows.csv, line 5: the label is not a finite number, or beyond 1e+18 (data.label=label); correct"
    )
    assert scan.look(path, wanted(task="regression", repair=[fault["repair"]])).rows == {"training": 26, "held-out": 3}
    with pytest.raises(DataError, match="line 5: the label is not a finite number"):
        load_data(parse_config({"data": {"path": "x", "task": "regression"}}).data, path, 0)


def test_conversations_that_are_broken_are_checked_as_conversations(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json_lines([{"messages": [{"role": "user"}]}] * 20))
    columns = scan.guess(path, ("text", "label"))
    assert columns == {"messages": "messages"}
    result = scan.look(path, wanted(**columns))
    assert result.faults[0]["kind"] == "no_conversation"
    assert "list of messages with role and content" in result.faults[0]["sentence"]


@pytest.mark.parametrize(
    ("text", "label", "reason"),
    [
        ("a great film", "pos", "'pos' is a value of its column too"),
        ("3.5", "pos", "'3.5' is no name"),
        ("the plot was a great mess", "x", "'the plot was a great mess' is no name"),
        ("text", "label", None),
    ],
)
def test_a_file_without_a_header_says_so(text: str, label: str, reason: str | None, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [f"example {i} of {'good' if i % 2 else 'bad'} ones,{'pos' if i % 2 else 'neg'}" for i in range(30)]
    path.write_text("\n".join([f"{text},{label}", *rows]) + "\n")
    faults = [fault for fault in scan.look(path, wanted(text=text, label=label)).faults if fault["kind"] == "header"]
    assert [f"because {reason}; put a header with" in fault["sentence"] for fault in faults] == (
        [True] if reason else []
    )


def test_a_check_of_very_many_rows_is_of_the_first_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_CHECKED", 30)
    result = look(tmp_path / "rows.csv", GOOD)
    assert result.conclusion == "rows.csv: no faults in the first 30 rows."
    assert result.notes[-1] == "only the first 30 rows"
    assert sum(result.rows.values()) == 30
    assert look(tmp_path / "rows.csv", GOOD[:30]).conclusion == "rows.csv: no faults in 30 rows."


@pytest.mark.parametrize("written", ["1e300", "-1e19", "3.5e38"])
def test_a_number_that_fp32_cannot_square_is_a_fault_of_the_data(written: str, tmp_path: Path) -> None:
    """Training warned of an overflow, and gave advice on the precision that it had."""
    path = tmp_path / "rows.jsonl"
    rows = "".join(f'{{"text": "text {i}", "label": {written if i == 3 else i / 7}}}\n' for i in range(30))
    path.write_text(rows)
    [fault] = [fault for fault in scan.look(path, wanted()).faults if fault["refuses"]]
    assert fault["sentence"].startswith("rows.jsonl, line 4: the label is not a finite number, or beyond 1e+18")
    with pytest.raises(DataError, match="line 4: the label is not a finite number, or beyond 1e"):
        load_data(parse_config({"data": {"path": "x"}}).data, path, 0)


@pytest.mark.parametrize(
    ("one", "other", "written"),
    [
        ("caf\u00e9", "cafe\u0301", '"cafe\\u0301" is'),
        ("bug", "bu\u200bg", '"bu\\u200bg" is bug'),
        ("bug", "\ufeffbug", '"\\ufeffbug" is bug'),
        ("bug", "bug\u00ad", '"bug\\u00ad" is bug'),
    ],
)
def test_classes_that_look_alike_are_one(one: str, other: str, written: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [{"text": f"text {i} of some", "label": one if i % 3 else "praise"} for i in range(40)]
    result = look(path, [*rows, {"text": "another", "label": other}, {"text": "one more", "label": other}])
    [fault] = result.faults
    assert fault["kind"] == "spelling"
    assert written in fault["sentence"]
    assert fault["repair"] == {"merge": {other: one}}
    option = fault["sentence"].rpartition("data.repair=")[2].rstrip(".")
    if one.isascii():
        assert parse_value(option) == [fault["repair"]]
    assert scan.look(path, wanted(repair=result.repairs)).faults == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,text,label\na,b,1\n", "a.csv: two columns are called text; rename one"),
        ("a.tsv", "text\tlabel\tlabel\na\tb\t1\n", "a.tsv: two columns are called label; rename one"),
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": "a", "text": "b"}\n',
            "a.jsonl, line 2: is not JSON (the key text",
        ),
        ("a.jsonl", '{"messages": [{"role": "user", "role": "a"}]}\n', "a.jsonl, line 1: is not JSON (the key role"),
        ("a.json", '[{"text": "a", "label": 1, "label": 2}]', "a.json: the key label is there twice"),
        ("a.json", '{"text": ["a"], "text": ["b"]}', "a.json: the key text is there twice"),
        ("a.jsonl", "", "a.jsonl: the file is empty; write one object {...} on each line"),
        ("a.json", "", "a.json: the file is empty; write a list of objects"),
        ("a.csv", "", "a.csv: the file is empty; add a header line and rows"),
    ],
)
def test_what_is_there_twice_or_not_at_all_is_refused(name: str, content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    for read in (lambda: scan.look(path, wanted()), lambda: load_data(parse_config({}).data, path, 0)):
        with pytest.raises(DataError, match=re.escape(words)):
            read()


def test_a_blank_label_is_none_for_the_check_and_for_training(tmp_path: Path) -> None:
    """Training made a class of it, where the check said that it refuses."""
    result = look(tmp_path / "rows.csv", [*GOOD, {"text": "another text", "label": " "}])
    assert [fault["kind"] for fault in result.faults if fault["refuses"]] == ["empty_label"]
    with pytest.raises(DataError, match=r"line 42: the label is empty"):
        load_data(parse_config({"data": {"path": "x"}}).data, tmp_path / "rows.csv", 0)


def test_a_side_whose_labels_are_all_hidden_is_refused_by_the_check_as_by_training(tmp_path: Path) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "train.csv").write_text(csv_text([{"text": f"text {i} of some", "label": i % 2} for i in range(20)]))
    (folder / "test.csv").write_text(csv_text([{"text": f"other text {i}", "label": -1} for i in range(4)]))
    assert [fault["kind"] for fault in scan.look(folder, wanted()).faults if fault["refuses"]] == ["hidden"]
    with pytest.raises(DataError, match="hidden label"):
        load_data(parse_config({"data": {"path": "x"}}).data, folder, 0)


def test_columns_without_a_name_may_be_several(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label,,\n" + "".join(f"text {i},{i % 2},,\n" for i in range(20)))
    assert scan.look(path, wanted()).rows == {"training": 18, "held-out": 2}


@pytest.mark.parametrize("missing", ["no/such/rows.csv", "link.csv"])
def test_what_is_not_there_is_named_as_it_was_given(missing: str, tmp_path: Path) -> None:
    """The folder, which was what was wrong, was left out."""
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    path = tmp_path / missing
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: does not exist; check the path$"):
        scan.look(path, wanted())


KEYS = st.sampled_from(
    ["text", "label", "Text", "Label", "LABEL", "te\u200bxt", "text.1", "label ", "messages", "", "\n"]
)
CELLS = st.sampled_from(
    [
        *("a", "b", "A", "a\u200b", "caf\u00e9", "cafe\u0301", "", " ", "\u200b", "inf", "nan", "NA", "-1", "0.5"),
        *(1, 0, -1, 0.5, 1e300, -1e19, 10**30, 2**63, True, None, [], ["a"], {"a": 1}, "x" * 300, "a\nb", "\x85"),
    ]
)
TABLES = st.lists(st.lists(st.tuples(KEYS, CELLS), min_size=1, max_size=4), min_size=1, max_size=6)


def check_agrees(ending: str, rows: list[list[tuple[str, Any]]], path: Path) -> None:
    """Check that what the check passes is trained on, by the same columns, and that both refuse the same."""
    if ending == "csv":
        header = [key for key, _ in rows[0]]
        lines = [header, *([cell for _, cell in row][: len(header)] for row in rows)]
        out = io.StringIO()
        csv.writer(out).writerows(lines)
        path.write_text(out.getvalue(), "utf-8")
    else:
        objects = (", ".join(f"{json.dumps(key)}: {json.dumps(cell)}" for key, cell in row) for row in rows)
        path.write_text("".join(f"{{{one}}}\n" for one in objects), "utf-8")
    section = parse_config({"data": {"path": str(path)}}).data
    try:
        result = scan.look(path, scan.wanted_of(section, 0))
    except DataError:
        result = None
    if result is None or any(fault["refuses"] for fault in result.faults):
        with pytest.raises(DataError):
            load_data(section, path, 0)
        return
    data = load_data(section, path, 0)
    assert {len(data.train), len(data.held_out)} == set(result.rows.values())
    guessed = check_file(path, {}, ()).columns
    spelled = {"text", "label"} & set(reader.read_table(path).columns)
    assert {role: guessed[role] for role in spelled} == {role: role for role in spelled}


CHECKED = given(ending=st.sampled_from(["csv", "jsonl"]), rows=TABLES)
FILES = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FILES
@CHECKED
def test_check_and_training_agree_on_any_table(ending: str, rows: list[list[tuple[str, Any]]], tmp_path: Path) -> None:
    check_agrees(ending, rows, tmp_path / f"rows.{ending}")


@pytest.mark.torture
@settings(FILES, max_examples=10_000)
@CHECKED
def test_check_and_training_agree_on_any_table_in_full(
    ending: str, rows: list[list[tuple[str, Any]]], tmp_path: Path
) -> None:
    check_agrees(ending, rows, tmp_path / f"rows.{ending}")
