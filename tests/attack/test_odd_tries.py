"""Tries of the kinds that people make: odd files, settings, arguments, variables and run folders, by real commands.

They were thought of without reading the code; docs/RELIABILITY.md says what the first round of them found. Each ends in
an answer, or in one sentence and exit code 2.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dynlora.cli.main import main
from tests.command_line import run
from tests.store.builder import new_run
from tests.tiny import tiny_arguments
from tests.tiny_lm import lm_values, save_problems, save_tiny_lm

pytestmark = [pytest.mark.torture, pytest.mark.filterwarnings("ignore")]

ROWS = [(f"a {'fine' if number % 2 else 'dull'} film {number}", "pos" if number % 2 else "neg") for number in range(40)]
OBJECTS = [{"text": text, "label": label} for text, label in ROWS]


def table(rows: Iterable[Iterable[Any]], head: Iterable[str] = ("text", "label"), between: str = ",") -> str:
    """Return rows as quoted cells."""
    return "".join(between.join(f'"{cell}"' for cell in row) + "\n" for row in [head, *rows])


def labelled(*labels: object) -> str:
    """Return the texts with labels that take turns."""
    return table((text, labels[number % len(labels)]) for number, (text, _) in enumerate(ROWS))


def lines(rows: Iterable[Any]) -> str:
    """Return values as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


CSV = table(ROWS)
FILES: dict[str, bytes] = {
    name: content if isinstance(content, bytes) else content.encode()
    for name, content in {
        "bom.csv": b"\xef\xbb\xbf" + CSV.encode(),
        "utf16.csv": CSV.encode("utf-16"),
        "crlf.csv": CSV.replace("\n", "\r\n"),
        "cr.csv": CSV.replace("\n", "\r"),
        "semicolon.csv": table(ROWS, between=";"),
        "tabs.tsv": table(ROWS, between="\t"),
        "same_names.csv": table(((text, text, label) for text, label in ROWS), ("text", "text", "label")),
        "header_only.csv": "text,label\n",
        "one_column.csv": table(((text,) for text, _ in ROWS), ("text",)),
        "spaces.csv": table(ROWS, (" text ", " label ")),
        "UPPER.CSV": table(ROWS, ("TEXT", "LABEL")),
        "booleans.csv": labelled(True, False),
        "mixed.csv": labelled("1", "one"),
        "floats.csv": labelled("1", "1.0", "2"),
        "nan.csv": labelled("nan", "pos", "neg"),
        "comma_decimals.csv": labelled("1,5", "2,5"),
        "many_labels.csv": labelled(*range(40)),
        "one_class.csv": labelled("pos"),
        "no_texts.csv": table(("", label) for _, label in ROWS),
        "long.csv": table(("word " * 30_000, label) for _, label in ROWS[:20]),
        "open_quote.csv": 'text,label\n"unclosed,pos\nx,neg\n',
        "ragged.csv": "text,label\na,b,c,d\nx\ny,pos\n",
        "nul.csv": table((f"{text}\0", label) for text, label in ROWS),
        "controls.csv": table((f"{text}\x1b[31m\x07", f"{label}\x1b") for text, label in ROWS),
        "right_to_left.csv": table((f"\u202e{text}", f"\u202e{label}") for text, label in ROWS),
        "emoji.csv": labelled("👍", "👎"),
        "formula.csv": table((f"=cmd()|{text}", label) for text, label in ROWS),
        "packed.csv.gz": gzip.compress(CSV.encode()),
        "zip.csv": b"PK\x03\x04" + bytes(range(256)),
        "png.csv": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "list.json": json.dumps(OBJECTS),
        "columns.json": json.dumps({"text": [row[0] for row in ROWS], "label": [row[1] for row in ROWS]}),
        "uneven.json": json.dumps({"text": ["a", "b"], "label": ["x"]}),
        "nested.json": json.dumps({"data": OBJECTS}),
        "scalar.json": "42",
        "deep.json": "[" * 5000 + "]" * 5000,
        "cut.jsonl": lines(OBJECTS) + '{"text": "x',
        "lists_between.jsonl": lines(row if number % 2 else list(row.values()) for number, row in enumerate(OBJECTS)),
        "objects_as_text.jsonl": lines({**row, "text": {"x": 1}} for row in OBJECTS),
        "nulls.jsonl": lines([None] * 20),
        "blank.jsonl": "\n\n\n",
        "label_lists.jsonl": lines({**row, "label": ["a", "b"]} for row in OBJECTS),
        "tokens.jsonl": lines({"tokens": text.split(), "tags": ["O"] * 4} for text, _ in ROWS),
        "no_ending": CSV,
        "lines.txt": "".join(f"{text}\n" for text, _ in ROWS),
        "page.md": "# title\n\ntext",
        "pickle.pkl": b"\x80\x04\x95",
        "book.xlsx": b"not excel",
        "table.parquet": b"PAR1garbagePAR1",
        "empty.csv": b"",
    }.items()
}

SETTINGS = [
    "log.eval_every=100",
    "train.warmup=0.999",
    "train.batch_size=4096",
    "data.max_length=1",
    "data.max_train=1",
    "data.max_eval=1",
    "data.eval_fraction=0.999999",
    "train.epochs=0.001",
    "train.epochs=1e9",
    "train.grad_accum=64",
    "adapter.rank=10000",
    "adapter.rank=0",
    "adapter.alpha=0",
    "adapter.alpha=-1",
    "adapter.dropout=1",
    "adapter.targets=nothing",
    "adapter.targets=[]",
    'adapter.targets=["query","query"]',
    "train.lr=0",
    "train.lr=1e30",
    "train.max_grad_norm=0",
    "train.max_grad_norm=1e-30",
    "train.weight_decay=1e9",
    "log.every=1000000",
    "log.eval_rows=1",
    "log.checkpoint_every=1",
    "data.group_by=nope",
    "data.group_by=clusters",
    "data.group_by=text",
    "data.metric=f1",
    "data.metric=bleu",
    "data.task=regression",
    "data.task=causal_lm",
    "strategy.min_rank=99",
    "strategy.gates=token",
    "strategy.warmup_steps=99",
    "model.layers=0",
    "model.layers=5-1",
    "model.layers=0,0",
    "train.precision=fp16",
    "train.precision=bf16",
    "model.quantization=4bit",
    "train.gradient_checkpointing=true",
    "log.to=[tensorboard,nope]",
    "data.repair=all",
    "data.encoding=klingon",
    "data.encoding=utf-16",
    "data.packing=true",
    "train.steps=4.5",
    "train.lr=",
    "train.lr=[1,2]",
    "train.steps",
    "=x",
    "nope=1",
]

RUN = "RUN"
"""Stands for the id of a finished run."""

ARGUMENTS = [
    "show",
    "show ''",
    "show ..",
    "show ../runs",
    "show RUN/",
    "show %s%n",
    "show -1",
    "compare RUN",
    "compare RUN nope",
    "stop RUN",
    "resume RUN",
    "delete nope",
    "tag RUN --add ''",
    f"tag RUN --add {'a' * 5000}",
    "tag RUN --note 🎬\u202e\x1b",
    f"tag RUN --note {'n' * 200_000}",
    "tag RUN --remove never",
    "runs --where accuracy>",
    f"runs --where {'(' * 500}",
    "runs --where step>=1e400",
    "runs --where name:'",
    "signals RUN --signal nope",
    "signals RUN --signal gate",
    "export RUN",
    "export RUN --out OUT/x.tar",
    "export RUN --out / ",
    "export RUN --out OUT/a --format gguf",
    "export RUN --out OUT/a --which first",
    "export RUN --push-to a/b/c",
    "predict RUN",
    "predict RUN --text ''",
    f"predict RUN --text {'x' * 100_000}",
    "predict RUN --text a --text-pair b",
    "evaluate RUN --split test",
    "evaluate RUN --split train",
    "compress RUN --budget 0",
    "compress RUN --budget 2",
    "compress RUN --tolerance -1",
    "fewshot RUN --support nope --text x",
    "recycle RUN",
    "recycle RUN RUN",
    "rsd --draft RUN --target RUN --reward oracle",
    "sweep --set seed=0..99999",
    "sweep --set seed=",
    "push RUN s3://",
    "push RUN OUT/there",
    "pull OUT",
    "pull nothing://",
    "track RUN --to nope",
    "import tensorboard OUT",
    "import mlflow OUT",
    "report RUN --out OUT/r.html",
    "report nope --out OUT/r.html",
    "report RUN --out OUT",
    "doctor",
    "queue",
]

VARIABLES: list[dict[str, str]] = [
    {"HOME": "/nonexistent"},
    {"TMPDIR": "/nonexistent"},
    {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    {"RANK": "abc"},
    {"WORLD_SIZE": "x"},
    {"WORLD_SIZE": "2", "RANK": "0"},
    {"LOCAL_RANK": "9"},
    {"ACCELERATE_MIXED_PRECISION": "fp8"},
    {"ACCELERATE_USE_FSDP": "true"},
    {"OMP_NUM_THREADS": "abc"},
    {"COLUMNS": "1"},
]


def held(code: int, output: str) -> str:
    """Return what is wrong with how a command ended, empty for nothing."""
    if "Traceback" in output:
        return f"a traceback: {output[-300:]}"
    if code not in (0, 1, 2):
        return f"exit code {code}"
    return "" if code != 2 or "Error: " in output or "search, column" in output else f"no sentence: {output[-300:]}"


def check(failures: dict[str, str], tally: Callable[[str, int, int], None], tried: int) -> None:
    """Say how many tries ended as they should, and fail with the others."""
    tally("a try ends in an answer, or in one sentence", tried, tried - len(failures))
    assert failures == {}


@pytest.fixture(scope="module")
def finished(tiny_bert: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run, in a runs folder of its own."""
    runs_dir = tmp_path_factory.mktemp("tries") / "runs"
    result = run(runs_dir, "train", *tiny_arguments(tiny_bert, tiny_data, "train.steps=4"))
    assert result.exit_code == 0, result.output
    return next(path.parent for path in runs_dir.glob("*/run.db"))


def outcome(runs_dir: Path | None, *arguments: str) -> str:
    """Run a command in this process, and return what is wrong with how it ended; None for one without runs folder."""
    result = CliRunner().invoke(main, arguments) if runs_dir is None else run(runs_dir, *arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"a traceback: {result.exception!r}"[:300]
    return held(result.exit_code, result.output)


def test_odd_files_are_checked_trained_on_and_predicted(
    finished: Path, tiny_bert: Path, tmp_path: Path, tally: Callable[[str, int, int], None]
) -> None:
    failures, tried = {}, 0
    for name, content in FILES.items():
        (path := tmp_path / name).write_bytes(content)
        train = [f"model.name={tiny_bert}", f"data.path={path}", "train.steps=2", "train.batch_size=4"]
        for arguments in (
            ["data", "check", str(path)],
            ["train", *(word for setting in train for word in ("--set", setting))],
            ["predict", finished.name, "--file", str(path)],
        ):
            tried += 1
            if wrong := outcome(None if arguments[0] == "data" else finished.parent, *arguments):
                failures[f"{arguments[0]} {name}"] = wrong
    check(failures, tally, tried)


def test_odd_settings_are_trained_with_or_refused(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, tally: Callable[[str, int, int], None]
) -> None:
    arguments = tiny_arguments(tiny_bert, tiny_data, "train.steps=4")
    failures = {one: wrong for one in SETTINGS if (wrong := outcome(runs_dir, "train", *arguments, "--set", one))}
    check(failures, tally, len(SETTINGS))


def test_odd_arguments_are_answered_or_refused(
    finished: Path, tmp_path: Path, tally: Callable[[str, int, int], None]
) -> None:
    failures = {}
    for command in ARGUMENTS:
        words = command.replace(RUN, finished.name).replace("OUT", str(tmp_path)).split(" ")
        if wrong := outcome(finished.parent, *("" if word == "''" else word for word in words if word)):
            failures[command[:80]] = wrong
    check(failures, tally, len(ARGUMENTS))


def test_a_language_model_is_asked_oddly(tmp_path: Path, tally: Callable[[str, int, int], None]) -> None:
    model, data, runs_dir = tmp_path / "model", tmp_path / "data", tmp_path / "runs"
    model.mkdir()
    data.mkdir()
    (tmp_path / "lm.yaml").write_text(json.dumps(lm_values(save_tiny_lm(model), save_problems(data))))
    tries = [["train", "--config", str(tmp_path / "lm.yaml")]]
    assert outcome(runs_dir, *tries[0]) == ""
    run_id = next(path.parent.name for path in runs_dir.glob("*/run.db"))
    tries += [["predict", run_id, "--text", text] for text in ("", "a1:", "🎬", "\u202e", "x" * 5000)]
    tries += [["evaluate", run_id], ["signals", run_id, "--signal", "held_out_exact_match"], ["recycle", run_id]]
    failures = {" ".join(words)[:80]: wrong for words in tries[1:] if (wrong := outcome(runs_dir, *words))}
    check(failures, tally, len(tries))


def test_odd_variables_are_lived_with_or_refused(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, tally: Callable[[str, int, int], None]
) -> None:
    train = [sys.executable, "-m", "dynlora", "train", *tiny_arguments(tiny_bert, tiny_data, "train.steps=4")]
    failures = {}
    for variables in VARIABLES:
        done = subprocess.run(
            [*train, "--runs-dir", str(runs_dir)], env={**os.environ, **variables}, capture_output=True, check=False
        )
        if wrong := held(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")):
            failures[str(variables)] = wrong
    check(failures, tally, len(VARIABLES))


def link_adapter(folder: Path) -> None:
    """Put a link in the place of the adapter."""
    shutil.rmtree(folder / "adapter")
    (folder / "adapter").symlink_to("/etc")


SPOILERS: dict[str, Callable[[Path], object]] = {
    "no config": lambda folder: (folder / "config.yaml").unlink(),
    "no adapter": lambda folder: shutil.rmtree(folder / "adapter"),
    "no store": lambda folder: (folder / "run.db").unlink(),
    "empty store": lambda folder: (folder / "run.db").write_bytes(b""),
    "cut store": lambda folder: os.truncate(folder / "run.db", 5000),
    "a log of random bytes": lambda folder: (folder / "run.db-wal").write_bytes(bytes(range(256)) * 20),
    "another config": lambda folder: (folder / "config.yaml").write_text("a: b\n"),
    "the adapter a link": link_adapter,
}
"""What brings a run folder into an odd state."""


@pytest.mark.parametrize("kind", SPOILERS)
def test_runs_in_odd_states_are_answered_or_refused(
    kind: str, finished: Path, tmp_path: Path, tally: Callable[[str, int, int], None]
) -> None:
    runs_dir = tmp_path / "runs"
    shutil.copytree(finished, folder := runs_dir / finished.name)
    new_run(runs_dir)
    SPOILERS[kind](folder)
    tries = [
        ["show", folder.name],
        ["runs"],
        ["resume", folder.name],
        ["predict", folder.name, "--text", "x"],
        ["evaluate", folder.name],
        ["export", folder.name, "--out", str(tmp_path / "e")],
        ["report", folder.name, "--out", str(tmp_path / "r.html")],
        ["tag", folder.name, "--add", "x"],
        ["delete", folder.name],
        ["delete", folder.name],
    ]
    failures = {" ".join(words): wrong for words in tries if (wrong := outcome(runs_dir, *words))}
    check(failures, tally, len(tries))
