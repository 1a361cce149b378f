"""A trained adapter made smaller: what is measured, what is written, and what the command says."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from click.testing import CliRunner

import dynlora
from dynlora.cli.main import main
from dynlora.engine.compress.components import METHODS
from dynlora.engine.compress.plain import SHARES
from dynlora.errors import ConfigError
from dynlora.inference.compress import Compression, write_size
from dynlora.store import queries
from dynlora.store.measurements import Compressed, Half, Size
from tests.command_line import document, run
from tests.inference.averaged import averaged
from tests.tiny import tiny_arguments, tiny_config

PEFT = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def own_run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, which may be written into."""
    return Path(shutil.copytree(trained_run, tmp_path / "runs" / trained_run.name))


@pytest.fixture(params=["classification", "causal_lm"])
def any_run(request: pytest.FixtureRequest, trained_run: Path, writer: Path) -> Path:
    """A run of each task."""
    return trained_run if request.param == "classification" else writer


@pytest.mark.parametrize(
    ("any_run", "weighting"),
    [
        pytest.param(task, weighting, marks=() if (place + at) % 2 == 0 else pytest.mark.torture)
        for place, task in enumerate(("classification", "causal_lm"))
        for at, weighting in enumerate(("loss", "inputs", "plain"))
    ],
    indirect=["any_run"],
)
def test_the_right_end_of_the_curve_is_the_run(any_run: Path, weighting: str) -> None:
    compression = Compression.of_run(any_run, rows=64, weighting=weighting)
    *_, last = compression.sizes("last", [(method, share) for share in (1.0, 0.5, 0.02) for method in METHODS])
    rows = compression.curve.rows
    whole = averaged(any_run).predictions(rows.tokens).loss[rows.reporting].mean()
    assert last.whole.loss == pytest.approx(whole, abs=1e-5)
    assert (len(last.sizes), last.planned) == (12, 12)
    for size in last.sizes:
        assert size.parameters <= size.share * last.parameters + 1
        if size.share == 1.0:
            assert size.reported_on.loss == pytest.approx(whole, abs=1e-4)
    smallest = last.of_method("global")[-1]
    assert smallest.reported_on.difference > 0
    assert last.of_method("global")[0].parameters > smallest.parameters


def test_a_smaller_size_of_a_run_keeps_a_part_of_every_larger_one(any_run: Path) -> None:
    curve = Compression.of_run(any_run, rows=64).curve
    for method in METHODS:
        larger = [np.arange(n) for n in curve.adapter.sizes]
        for share in SHARES:
            chosen = curve.keep(method, share)
            assert curve.adapter.parameters_of(chosen) <= round(share * curve.adapter.parameters)
            assert all(set(few) <= set(many) for few, many in zip(chosen, larger, strict=True))
            assert [module.rank for module in curve.adapter.model.adapters] == [len(one) for one in chosen]
            larger = chosen


@PEFT
def test_a_size_that_is_written_says_in_peft_what_was_measured(any_run: Path, tmp_path: Path) -> None:
    compression = Compression.of_run(any_run, rows=64)
    size = compression.measured("global", 0.4)
    write_size(compression, tmp_path / "out", size, run=any_run, which="last")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8"))
    ranks = {name.removeprefix("^").replace("\\.", "."): rank for name, rank in config["rank_pattern"].items()}
    assert ranks == {name: rank for name, rank in zip(compression.names, size.ranks, strict=True) if rank}
    model = compression.curve.adapter.model
    kind: Any = getattr(transformers, model.task.model_class().__name__)
    task = {} if model.task.facts()["generates"] else {"num_labels": len(model.labels)}
    base = kind.from_pretrained(config["base_model_name_or_path"], **task)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    batch = compression.curve.rows.tokens.batch(np.arange(8))
    labels = batch.pop("labels")
    with torch.no_grad():
        theirs = loaded(**batch).logits
        ours = model.base.model(**batch).logits
    np.testing.assert_allclose(theirs.numpy(), ours.numpy(), atol=1e-5)
    assert labels.shape[0] == 8
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "## Compressed" in card
    assert f"{size.parameters:,} of {compression.curve.adapter.parameters:,}" in card


def test_the_command_keeps_the_smallest_that_is_good_enough(own_run: Path, tmp_path: Path) -> None:
    runs = own_run.parent
    report = document(run(runs, "compress", own_run.name, "--tolerance", "0.05", "--rows", "64", "--json"))
    chosen, shares = report["chosen"], [point["share"] for point in report["curve"]]
    assert shares == sorted(shares, reverse=True)
    assert chosen["share"] in shares
    assert sum(chosen["ranks"].values()) < sum(queries.run_summary(own_run).ranks.values())
    assert Compressed.read(own_run / "compress.json") is None, "a part of the sizes is no curve"
    whole = document(run(runs, "compress", own_run.name, "--curve", "--tolerance", "0.05", "--rows", "64", "--json"))
    assert whole["chosen"] == chosen
    assert {point["method"] for point in whole["curve"]} == set(METHODS)
    kept = Compressed.read(own_run / "compress.json")
    assert kept is not None
    assert kept.is_whole
    size = kept.smallest(0.05)
    assert size is not None
    assert kept.ranks_of(size) == chosen["ranks"]
    run(runs, "compress", own_run.name, "--budget", "0.5", "--rows", "64")
    assert Compressed.read(own_run / "compress.json") == kept


def test_the_next_command_works_as_it_is_pasted(own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--tolerance", "5", "--rows", "64", "--weighting", "plain", "--which", "best")
    words = run(own_run.parent, "compress", own_run.name, *options).stdout
    (line,) = [line for line in words.splitlines() if line.startswith("next: ")]
    program, *pasted = shlex.split(line.removeprefix("next: "))
    assert program == "dynlora"
    assert [part for part in options[2:] if part not in pasted] == []
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, pasted)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "adapter-small" / "adapter_config.json").is_file()


@PEFT
def test_an_adapter_brought_along_is_measured_as_its_run_is(own_run: Path, tmp_path: Path) -> None:
    runs = own_run.parent
    assert run(runs, "export", own_run.name, "--out", str(tmp_path / "peft")).exit_code == 0
    options = ["--budget", "0.5", "--rows", "64", "--json"]
    report = document(run(runs, "compress", str(tmp_path / "peft"), "--config", str(own_run / "config.yaml"), *options))
    own = document(run(runs, "compress", own_run.name, *options))
    assert report["full"]["parameters"] == own["full"]["parameters"]
    assert report["full"]["loss"] == pytest.approx(own["full"]["loss"], abs=1e-4)
    assert report["chosen"]["ranks"] == own["chosen"]["ranks"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "0.5", "--tolerance", "0.1"], "--budget"),
        (["--set", "seed=1"], "--set"),
        (["--weighting", "size"], "'size' is not one of 'loss', 'inputs', 'plain'"),
        (["--rows", "3"], "at least 20"),
        (["--budget", "1e-9", "--rows", "64"], "--budget 1e-09: keeps none of the"),
        (["--budget", "nan"], "'--budget': nan is not one; give a number in the range 0<x<=1"),
        (["--budget", "0.5", "--out", __file__], "exists and is a file"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(own_run: Path, arguments: list[str], message: str) -> None:
    result = run(own_run.parent, "compress", own_run.name, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_ranks_that_were_found_are_trained_from_the_start(
    own_run: Path, tiny_bert: Path, tiny_data: Path, tmp_path: Path
) -> None:
    runs = own_run.parent
    result = run(runs, "compress", own_run.name, "--budget", "0.3", "--rows", "64", "--json")
    (tmp_path / "ranks.json").write_text(result.stdout, "utf-8")
    wanted = document(result)["chosen"]["ranks"]
    arguments = tiny_arguments(tiny_bert, tiny_data, "strategy.name=lora", "train.steps=3")
    for source in (str(tmp_path / "ranks.json"), own_run.name):
        made = document(run(runs, "train", *arguments, "--set", f"strategy.ranks_from={source}", "--json"))
        ranks = wanted if source != own_run.name else queries.run_summary(own_run).ranks
        assert made["ranks"] == ranks
        assert made["params"]["active"] == made["params"]["budget"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "not a JSON object of ranks"),
        ('{"encoder.layer.0": 2.5}', "not a JSON object of ranks"),
        ('{"another.module": 2}', "is not adapted here"),
        ('{"another.module": 0}', "no rank above 0"),
        (None, "no run, PEFT folder or JSON file"),
    ],
)
def test_ranks_that_cannot_be_taken_are_a_sentence(
    content: str | None, message: str, tiny_bert: Path, tiny_data: Path, runs_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ranks.json"
    if content is not None:
        path.write_text(content, "utf-8")
    config = tiny_config(tiny_bert, tiny_data, strategy={"name": "lora", "ranks_from": str(path)}, train__steps=2)
    with pytest.raises(ConfigError, match=message):
        dynlora.train(config, runs_dir, progress=False)


def test_a_kept_curve_reads_back_and_a_strange_one_counts_as_none(tmp_path: Path) -> None:
    half = Half(loss=1.0, difference=0.1, low=0.0, high=0.2, metrics={"accuracy": 0.5})
    sizes = tuple(
        Size(
            method="global",
            share=share,
            parameters=10,
            ranks=(1, 0),
            chosen_on=Half(loss=1.0, difference=0.0, low=-0.1, high=high, metrics={}),
            reported_on=half,
        )
        for share, high in SEQUENCE
    )
    compressed = Compressed(
        which="last",
        step=3,
        weighting="loss",
        rows=40,
        parameters=20,
        modules=("a", "b"),
        whole=half,
        planned=3,
        sizes=sizes,
    )
    compressed.write(tmp_path / "compress.json")
    read = Compressed.read(tmp_path / "compress.json")
    assert read == compressed
    best = compressed.smallest(0.005)
    assert best is not None
    assert best.share == 0.5
    assert compressed.smallest(-1.0) is None
    for key, value in (("format", 9), ("sizes", [{}]), ("parameters", -1), ("whole", None), ("modules", ["a"])):
        broken = {**json.loads((tmp_path / "compress.json").read_text("utf-8")), key: value}
        (tmp_path / "broken.json").write_text(json.dumps(broken), "utf-8")
        assert Compressed.read(tmp_path / "broken.json") is None


SEQUENCE = ((1.0, 0.0), (0.5, 0.004), (0.25, 0.006), (0.1, 0.003))
"""Share and upper end of each size."""
