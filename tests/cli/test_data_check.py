"""`dynlora data check`: the conclusion first, each fault with its lines, and an exit code that a script can use."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from dynlora.cli.main import main
from tests.data_files.files import csv_text
from tests.data_files.test_faults import GOOD


def check(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["data", "check", *arguments])


def test_a_clean_file_is_exit_code_0_and_faults_are_1(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(csv_text(GOOD))
    result = check(str(path))
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "rows.csv: no faults in 40 rows.")
    path.write_text(csv_text([*GOOD, GOOD[0], {"text": "", "label": "bug"}, {"text": "pay", "label": "Bug"}]))
    result = check(str(path))
    assert result.exit_code == 1
    assert result.stdout.startswith("rows.csv: 4 faults in 43 rows; training refuses the file until it is repaired.")
    assert "Empty text: rows.csv, line 43: the text is empty (data.text=text)" in result.stdout
    needed, every = (
        shlex.split(result.stdout.split(title)[1].splitlines()[0])
        for title in ("Repair what training refuses: ", "Review the warnings first. Then, with their repairs: ")
    )
    again = check(str(path), *every)
    assert (again.exit_code, again.stdout.splitlines()[0]) == (0, "rows.csv: no faults in 41 rows after 3 repairs.")
    again = check(str(path), *needed)
    assert again.exit_code == 1
    assert "training refuses" not in again.stdout, "the warnings are left, to be reviewed"
    assert "drop_duplicates" in str(every)
    assert "drop_duplicates" not in str(needed)


def test_the_document_holds_every_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(csv_text([{"body": row["text"], "verdict": row["label"]} for row in [*GOOD, *GOOD[:20]]]))
    result = check(str(path), "--text", "body", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["columns"]["label"] == "verdict"
    fault = next(each for each in document["faults"] if each["kind"] == "duplicate")
    assert [place["line"] for place in fault["places"]] == list(range(42, 62))
    assert (fault["repair"], fault["action"]) == ("drop_duplicates", "Leave out 20 rows")
    assert document["rows"] == {"training": 54, "held-out": 6}


def test_mistakes_are_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(csv_text(GOOD))
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    for arguments, words in (
        ((str(tmp_path / "no.pdf"),), "no.pdf: does not exist; check the path"),
        (("https://example.com/a.csv",), "a.csv: is an address, not a file of this machine; download it and give"),
        (("/dev/zero",), "zero: is a device, not a file; give a file"),
        ((str(path), "--label", "nope"), "data.label=nope: no such column"),
        ((str(tmp_path / "a.pdf"),), "a.pdf: the ending must be one of .csv, .tsv, .json, .jsonl, .parquet, .xlsx"),
        ((str(path), "--set", "data.path=other.csv"), "the file to check is given as FILE; leave data.path out"),
    ):
        result = check(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_it_loads_neither_torch_nor_datasets(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(csv_text(GOOD))
    program = (
        "import sys\nfrom dynlora.cli.main import main\n"
        f"try:\n    main(['data', 'check', {str(tmp_path / 'rows.csv')!r}])\nexcept SystemExit as end:\n"
        "    sys.exit(', '.join({'torch', 'transformers', 'datasets', 'streamlit'} & set(sys.modules)) or end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
