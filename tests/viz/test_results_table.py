"""The table of a paper: cells, the best in bold, and text that is text in LaTeX and Markdown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.viz.compare import results_table
from dynlora.viz.compare import text as scatter_text
from tests.viz.listed import listed, swept_rows
from tests.viz.runs import HOSTILE

ROWS = [
    *(listed(seed, seed, "dynamic", 0.80 + 0.01 * seed) for seed in range(3)),
    *(listed(10 + seed, seed, "lora", 0.70 + 0.01 * seed, rank=8) for seed in range(2)),
    listed(20, 0, "dynamic", 0.5, data="/data/cola.csv"),
    listed(21, 0, "lora", 0.5001, data="/data/cola.csv", rank=8),
    listed(22, 5, "lora", 0.9, status="running"),
]


def test_rows_are_methods_and_columns_data_sets() -> None:
    table = results_table.paper(ROWS, "method")
    assert table.columns == ("sst2 (accuracy)", "cola.csv (accuracy)")
    assert [line.label for line in table.lines] == ["dynamic", "lora"]
    assert [results_table.format_parameters(line) for line in table.lines] == ["3,964", "7,924"]
    assert [[results_table.format_cell(cell, bold="[{}]") for cell in line.cells] for line in table.lines] == [
        ["[0.810 ± 0.010] (3)", "[0.500] (1)"],
        ["0.705 ± 0.007 (2)", "[0.500] (1)"],
    ]
    assert (table.left_out, table.cut, table.chosen) == (1, 0, ())
    assert "1 run not finished or without a result not included" in scatter_text.paper(table)


def test_of_several_configurations_the_best_is_chosen_and_that_is_said() -> None:
    rows = swept_rows()
    table = results_table.paper(rows, "method")
    assert [results_table.format_cell(line.cells[0]) for line in table.lines] == [
        "0.830 ± 0.010 (3)",
        "0.810 ± 0.010 (3)",
    ]
    assert table.chosen == ("dynamic", "lora")
    assert "which is optimistic" in scatter_text.paper(table)
    every = results_table.paper(rows, "configuration")
    assert len(every.lines) == 12
    assert "lora, rank 2, lr 0.002" in [line.label for line in every.lines]
    assert sum(cell is not None and cell.is_best for line in every.lines for cell in line.cells) == 1


def test_what_was_trained_on_other_rows_is_another_column() -> None:
    rows = [listed(1), listed(2, seed=1, accuracy=0.6), listed(3, data="/a/x"), listed(4, data="/b/x")]
    for row in rows:
        row["config"]["data"]["max_length"] = 128
    rows[1]["config"]["data"]["max_train"] = 100
    assert results_table.paper(rows, "method").columns == (
        "sst2 (accuracy)",
        "sst2 (accuracy), max_train 100",
        "x (accuracy) 3",
        "x (accuracy) 4",
    )


def test_a_control_is_a_method_of_its_own() -> None:
    rows = [listed(1, lr=1e-3), listed(2, lr=2e-3, accuracy=0.9), listed(3, allocation="random", accuracy=0.95)]
    table = results_table.paper(rows, "method")
    assert [(line.label, results_table.format_cell(line.cells[0])) for line in table.lines] == [
        ("dynamic", "0.900 (1)"),
        ("dynamic, allocation random", "0.950 (1)"),
    ]
    assert table.chosen == ("dynamic",)


def test_of_an_error_the_lowest_is_best() -> None:
    rows = [
        listed(i, strategy=name, accuracy=None) | {"metric": "mse", "metrics": {"mse": value}}
        for i, (name, value) in enumerate((("a", 0.2), ("b", 0.1)))
    ]
    assert [line.cells[0].is_best for line in results_table.paper(rows, "method").lines if line.cells[0]] == [
        False,
        True,
    ]


def test_latex() -> None:
    text = results_table.latex(results_table.paper(ROWS, "method"))
    assert text.splitlines()[1:] == [
        r"\begin{tabular}{lrcc}",
        r"  \toprule",
        r"  Method & Adapter parameters & sst2 (accuracy) & cola.csv (accuracy) \\",
        r"  \midrule",
        r"  dynamic & 3,964 & \textbf{0.810 $\pm$ 0.010} (3) & \textbf{0.500} (1) \\",
        r"  lora & 7,924 & 0.705 $\pm$ 0.007 (2) & \textbf{0.500} (1) \\",
        r"  \bottomrule",
        r"\end{tabular}",
    ]


def test_markdown() -> None:
    lines = results_table.markdown(results_table.paper(ROWS, "method")).splitlines()
    assert lines[1] == "| --- | ---: | :---: | :---: |"
    assert lines[2] == r"| dynamic | 3,964 | **0.810 ± 0.010** (3) | **0.500** (1) |"


def test_no_finished_run_is_an_empty_table() -> None:
    assert results_table.paper([listed(1, status="queued", accuracy=None)], "method").lines == ()


def test_more_than_there_is_room_for_is_counted() -> None:
    rows = [listed(i, strategy=f"s{i}", data=f"d{i}") for i in range(70)]
    table = results_table.paper(rows, "configuration")
    assert (len(table.lines), len(table.columns), table.cut) == (60, 12, 10 + 58)
    assert "68 more rows or columns" in scatter_text.paper(table)


def test_the_file_holds_the_numbers() -> None:
    frame = results_table.frame(results_table.paper(ROWS, "method"))
    assert frame["sst2 (accuracy), n"].tolist() == [3, 2]
    assert frame["sst2 (accuracy), mean"].tolist() == pytest.approx([0.81, 0.705])


@given(st.text(max_size=40))
def test_no_text_commands_latex(text: str) -> None:
    escaped = results_table.latex_escaped(text)
    plain = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|ldots)\{\}", "", escaped
    )
    plain = re.sub(r"\\[&%$#_{}]|\$\\(pm|times)\$", "", plain)
    assert not set(plain) & set("\\&%$#_{}~^\n")


@given(st.text(max_size=40))
def test_no_text_is_a_mark_in_markdown(text: str) -> None:
    escaped = results_table.markdown_escaped(text)
    assert "\n" not in escaped
    assert not set(re.sub(r"\\[^a-zA-Z0-9\s]", "", escaped)) & set("\\`*_{}[]()<>#+!|~$&")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_stay_one_cell(text: str) -> None:
    rows = [listed(i, strategy=f"{text}|&{i}", data=f"{text}|&") for i in range(2)]
    table = results_table.paper(rows, "method")
    for line in results_table.markdown(table).splitlines():
        assert len(re.findall(r"(?<!\\)\|", line)) == 4
    for line in results_table.latex(table).splitlines()[4:7:2]:
        assert len(re.findall(r"(?<!\\)&", line)) in (0, 2)
