"""Wrong input of every kind: one sentence that helps on stderr, exit code 2, and no folder left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dynlora.cli.main import main
from dynlora.errors import ConfigError
from dynlora.jobs.environment import process_number
from dynlora.training.folder_work import check_out
from tests.tiny import tiny_arguments, tiny_rows, write_csv

ROWS = tiny_rows(30)
NO_LABEL = [{"text": row["text"], "domain": row["domain"]} for row in ROWS]


def run(runs_dir: Path, *arguments: str) -> Result:
    """Run one command in this process."""
    return CliRunner().invoke(main, [*arguments, "--runs-dir", str(runs_dir)])


def is_refused(result: Result, runs_dir: Path, *words: str) -> str:
    """Check that a command was refused as it should be, and return the sentence."""
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2, result.output
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    assert "Traceback" not in result.output
    assert len(lines[0]) < 600
    assert not result.stdout
    for word in words:
        assert word in lines[0], lines[0]
    assert not [path for path in runs_dir.iterdir() if not path.name.startswith(".")]
    return lines[0]


SETTINGS: dict[str, tuple[list[str], list[str]]] = {
    "unknown key": (["train.lrr=1"], ["train.lrr=1", "did you mean train.lr?"]),
    "steps 0": (["train.steps=0"], ["train.steps=0", "at least 1"]),
    "a method called nan": (["strategy.name=nan"], ["strategy.name=nan: no such strategy; choose one of"]),
    "a key twice": (["data={name: a, name: b}"], ["line 1: name is given twice"]),
    "a section set": (["train=5"], ["train=5", "such as train.steps"]),
    "a value as section": (["seed.more=5"], ["seed", "not a section"]),
    "key without value": (["train.steps"], ["--set train.steps", "key=value"]),
    "broken yaml value": (["adapter.targets=[a"], ["adapter.targets=[a"]),
    "unknown strategy": (["strategy.name=dynamik"], ["strategy.name=dynamik", "did you mean dynamic?"]),
    "unknown field": (["strategy.gate=off"], ["strategy.gate", "did you mean strategy.gates?"]),
    "wrong choice": (["strategy.gates=sometimes"], ["strategy.gates=sometimes", "off, scale, module"]),
    "field out of range": (["strategy.budget_share=1.5"], ["strategy.budget_share=1.5", "at most 1"]),
    "impossible budget": (["strategy.min_rank=3"], ["strategy.min_rank=3", "adapter.rank=2"]),
    "contradictory schedule": (
        ["strategy.warmup_steps=15", "strategy.final_steps=10"],
        ["strategy.warmup_steps=15", "strategy.final_steps=10", "20 steps"],
    ),
    "unknown model": (["model.name=minilmm"], ["minilmm", "did you mean"]),
    "missing text column": (["data.text=body"], ["data.text=body", "text, label, domain"]),
    "missing pair column": (["data.text_pair=second"], ["data.text_pair=second", "text, label, domain"]),
    "missing group column": (["data.group_by=source"], ["data.group_by=source", "text, label, domain"]),
    "data path where nothing is": (["data.path=nowhere.csv"], ["nowhere.csv", "does not exist"]),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings(case: str, tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    overrides, words = SETTINGS[case]
    is_refused(run(runs_dir, "train", *tiny_arguments(tiny_bert, tiny_data, *overrides)), runs_dir, *words)


FILES: dict[str, tuple[str, bytes | Sequence[Mapping[str, object]], list[str]]] = {
    "blank": ("d.csv", b"\n\n", ["d.csv"]),
    "header only": ("d.csv", b"text,label\n", ["no rows"]),
    "no label column": ("d.csv", [*NO_LABEL], ["causal_lm needs", "column of labels (data.label)"]),
    "binary garbage": ("d.csv", bytes(range(256)) * 20, ["d.csv"]),
    "binary zeros": ("d.csv", bytes(5000), ["d.csv"]),
    "garbage as Parquet": ("d.parquet", b"PAR1 and then nothing", ["d.parquet", "cannot be read"]),
    "texts that are lists": (
        "d.jsonl",
        b'{"text": ["a"], "label": 1}\n{"text": ["b"], "label": 0}\n' * 9,
        ["data.text"],
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files(case: str, tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    name, content, words = FILES[case]
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else write_csv(path, content)
    arguments = tiny_arguments(tiny_bert, path, "data.eval_fraction=0.2")
    # Rows are drawn to either side, so the row a sentence counts is looked for without its number.
    is_refused(run(runs_dir, "train", *arguments), runs_dir, *[word for word in words if not word.isdigit()])


def test_empty_folder_of_data(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    (tmp_path / "data").mkdir()
    is_refused(run(runs_dir, "train", *tiny_arguments(tiny_bert, tmp_path / "data")), runs_dir, "train.csv")


def test_label_of_one_side_only(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    """A column that only the training rows have is told with the side it lacks on."""
    write_csv(tmp_path / "train.csv", list(ROWS))
    write_csv(tmp_path / "validation.csv", list(NO_LABEL))
    is_refused(run(runs_dir, "train", *tiny_arguments(tiny_bert, tmp_path)), runs_dir, "held-out", "data.label=label")


CONFIGS = {
    "broken": (b"train: [1, 2\nseed: 3", ["not YAML", "line 2"]),
    "a list": (b"- 1\n- 2\n", ["list"]),
    "binary": (bytes(range(200)), ["line 2: is not UTF-8 text"]),
    "a key twice": (b"seed: 1\ntrain:\n  lr: 1\nseed: 2\n", ["lines 1 and 4: seed is given twice; keep one of them"]),
    "a key twice in a section": (b"train: {lr: 1, lr: 2}\n", ["line 1: lr is given twice"]),
    "a time": (b"train:\n  steps: 1:30\n", ["train.steps=1:30: must be a whole number"]),
    "a long number": (b"seed: " + b"9" * 9000, ["seed=999", "...: must be"]),
    "tagged": (b"seed: !!python/object/apply:os.system ['true']\n", ["not YAML"]),
    "key not text": (b"1: 2\n", ["1: the key must be text"]),
    "key of a section not text": (b"train: {1.5: 2}\n", ["train.1.5: the key must be text"]),
    "key of a method not text": (b"strategy: {2020-01-01: 2}\n", ["strategy.2020-01-01: the key must be text"]),
    "bytes": (b"strategy: {name: lora, x: !!binary gA==}\n", ["strategy.x=b'", "must be valid text"]),
    "no key": (b"null: 2\n", ["the key must be text"]),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_config_files(case: str, tmp_path: Path, runs_dir: Path) -> None:
    content, words = CONFIGS[case]
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    is_refused(run(runs_dir, "train", "--config", str(path)), runs_dir, *words)


def test_config_that_is_not_there(tmp_path: Path, runs_dir: Path) -> None:
    is_refused(run(runs_dir, "train", "--config", str(tmp_path / "none.yaml")), runs_dir, "--config", "none.yaml")
    is_refused(run(runs_dir, "train", "--config", str(tmp_path)), runs_dir, "--config")


MODELS = {
    "garbage": (
        {"config.json": b"garbage", "model.safetensors": b"x", "tokenizer.json": b"{}"},
        ["cannot be loaded for classification"],
    ),
    "unknown architecture": (
        {"config.json": b'{"model_type": "abacus"}', "model.safetensors": b"x", "tokenizer.json": b"{}"},
        ["cannot be loaded for classification"],
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_model_folders(case: str, tiny_data: Path, tmp_path: Path, runs_dir: Path) -> None:
    files, words = MODELS[case]
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    is_refused(run(runs_dir, "train", *tiny_arguments(folder, tiny_data)), runs_dir, *words)


def test_weights_that_are_garbage(tiny_bert: Path, tiny_data: Path, tmp_path: Path, runs_dir: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_bert.iterdir():
        (folder / path.name).write_bytes(b"garbage" if path.suffix == ".safetensors" else path.read_bytes())
    is_refused(run(runs_dir, "train", *tiny_arguments(folder, tiny_data)), runs_dir, "cannot be loaded")


COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "unknown run": (["show", "20200101-000000-00000000"], ["20200101-000000-00000000", "`dynlora runs --runs-dir "]),
    "hostile run": (["show", "../x"], ["'../x'"]),
    "hostile run to delete": (["delete", "../../home"], ["cannot be used"]),
    "hostile run to stop": (["stop", "/etc"], ["cannot be used"]),
    "hostile run to resume": (["resume", "a/../../b"], ["cannot be used"]),
    "hostile run to export": (["export", "..", "--out", "x"], ["cannot be used"]),
    "hostile run to compare": (["compare", "..", "."], ["cannot be used"]),
    "nothing to predict with": (["predict", "nothing", "--text", "a"], ["nothing"]),
    "sweep of nothing": (["sweep"], ["--set: a sweep needs a setting and its values", "`dynlora train --runs-dir "]),
    "sweep with one bad value": (["sweep", "--set", "train.steps=5,many"], ["train.steps=many"]),
    "unknown command": (["trian"], ["trian", "--help"]),
    "unknown option": (["train", "--sett", "a=b"], ["--sett", "train --help"]),
    "no run given": (["show"], ["ID", "--help"]),
    "queue of a bad config": (["train", "--queue", "--set", "train.lrr=1"], ["train.lrr=1"]),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_commands(case: str, runs_dir: Path) -> None:
    arguments, words = COMMANDS[case]
    is_refused(run(runs_dir, *arguments), runs_dir, *words)


@pytest.mark.parametrize("overrides", [["adapter.targets=[nothing]"], ["data.label=stars"]])
def test_preflight_refuses_as_train_does(
    overrides: list[str], tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    arguments = tiny_arguments(tiny_bert, tiny_data, *overrides)
    message = is_refused(CliRunner().invoke(main, ["preflight", *arguments]), runs_dir)
    assert message == is_refused(run(runs_dir, "train", *arguments), runs_dir)


def test_runs_folder_that_is_a_file(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("not a folder")
    for command in (["train", *tiny_arguments(tiny_bert, tiny_data)], ["runs"]):
        result = run(path, *command)
        assert result.exit_code == 2
        assert "--runs-dir" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_sweep_makes_no_run_when_one_cannot_be(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    arguments = tiny_arguments(tiny_bert, tiny_data, "data.label=label,stars")
    is_refused(run(runs_dir, "sweep", *arguments), runs_dir, "data.label=stars")


def test_smoke_in_a_process_of_its_own(runs_dir: Path) -> None:
    """What the other tests see in this process is what a shell sees; torch is not even imported for it."""
    command = [sys.executable, "-m", "dynlora", "train", "--set", "train.lrr=1", "--json", "--runs-dir", str(runs_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: train.lrr=1: unknown key; did you mean train.lr?\n"
    listed = subprocess.run(
        [*command[:3], "runs", "--json", "--runs-dir", str(runs_dir)], capture_output=True, timeout=300
    )
    assert json.loads(listed.stdout) == []


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE"])
@pytest.mark.parametrize("value", ["abc", "-1", "", "1.5", "9" * 5000])
def test_variables_of_several_processes_are_whole_numbers(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"{variable}=.*: must be a whole number; start several processes with"):
        process_number(variable, 1)


def test_what_accelerate_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from dynlora.training import build

    def refuse(**options: object) -> None:
        raise ValueError("MASTER_ADDR env was not set\nplease export it")

    monkeypatch.setattr(build, "Accelerator", refuse)
    with pytest.raises(ConfigError, match="accelerate cannot start as its variables say .*MASTER_ADDR") as refusal:
        build.make_accelerator()
    assert "accelerate launch -m dynlora train" in str(refusal.value)


def test_a_folder_that_is_no_run_is_not_deleted(runs_dir: Path) -> None:
    (runs_dir / "photos").mkdir()
    result = run(runs_dir, "delete", "photos")
    assert result.exit_code == 2
    assert "no run 'photos'" in result.stderr
    assert (runs_dir / "photos").is_dir()


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.7z"])
def test_an_archive_of_another_kind_is_not_made_a_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"archives are written as \.zip"):
        check_out(tmp_path / name)


@pytest.mark.parametrize("path", [None, 5, b"runs/x"])
def test_a_path_of_a_run_that_is_none_is_refused(path: Any) -> None:
    import dynlora

    with pytest.raises(ConfigError, match="path=.*: must be the folder of a run"):
        dynlora.open_run(path)


@pytest.mark.skipif(sys.platform == "win32", reason="a folder that is used cannot be removed")
def test_a_working_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    """Standard output was blamed for it."""
    here = tmp_path / "here"
    here.mkdir()
    program = "import os, sys; os.rmdir(os.getcwd()); sys.argv[1:] = ['runs']; from dynlora.__main__ import run; run()"
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "Error: the working directory does not exist any more; change to another one and try again\n"
