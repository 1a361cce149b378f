"""`dynlora.compare`: which runs it takes, its verdict, its table and its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dynlora
from dynlora.errors import ConfigError, NotRecordedError, RunNotFoundError
from dynlora.notebook.comparison import NO_VERDICT
from tests.notebook.html import inert
from tests.viz.growing import Running
from tests.viz.runs import HOSTILE, make_run

SAMPLES = Path(__file__).resolve().parents[2] / "sample_runs"
LORA, DYNAMIC = "20261205-144905-03e6ddf3", "20261205-145115-dab7e702"
SEEDS = (LORA, "20261205-145331-76f7cc1b", DYNAMIC, "20261205-145549-b378afa4")


def several(runs_dir: Path, **about: Any) -> list[Path]:
    """Make three seeds of two methods, of which one moves rank."""
    return [
        make_run(
            runs_dir,
            run_id=f"20260101-000000-0000000{2 * seed + place}",
            strategy=strategy,
            seed=seed,
            moves=strategy == "dynamic",
            gates=strategy == "dynamic",
            extras=True,
            **about,
        )
        for seed in range(3)
        for place, strategy in enumerate(("lora", "dynamic"))
    ]


def test_runs_are_given_as_ids_folders_or_runs() -> None:
    run = dynlora.open_run(SAMPLES / LORA)
    for runs in ([LORA, DYNAMIC], [run, DYNAMIC], [str(SAMPLES / LORA), SAMPLES / DYNAMIC], iter((LORA, DYNAMIC, run))):
        assert list(dynlora.compare(runs, SAMPLES).folders) == [LORA, DYNAMIC]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (LORA, "^runs='.*': must be a list of two or more runs"),
        (None, "^runs='None': must be a list of two or more runs"),
        ([], "^runs: got 0 runs; a comparison takes two or more"),
        ([LORA, LORA], "^runs: got 1 run; a comparison takes two or more different runs$"),
    ],
)
def test_what_is_no_list_of_runs_is_refused(runs: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        dynlora.compare(runs, SAMPLES)


def test_a_run_is_not_compared_with_its_copy(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, run_id=LORA) for name in ("a", "b")]
    with pytest.raises(ConfigError, match=f"two of them have the id '{LORA}'"):
        dynlora.compare(folders)


def test_a_run_that_is_not_there_is_named() -> None:
    with pytest.raises(RunNotFoundError, match="20260101-000000-00000000"):
        dynlora.compare([LORA, "20260101-000000-00000000"], SAMPLES)


def test_the_verdict_has_its_difference_interval_and_seeds(runs_dir: Path) -> None:
    verdict = dynlora.compare(several(runs_dir)).verdict
    for text in ("On sentiment4", "95 % CI", "3 seeds"):
        assert text in verdict


def test_there_is_no_verdict_before_a_run_has_finished(runs_dir: Path) -> None:
    folders = [
        make_run(runs_dir, run_id=f"20260101-000000-0000000{place}", state="queued", steps=0) for place in (1, 2)
    ]
    comparison = dynlora.compare(folders)
    assert comparison.verdict == NO_VERDICT
    assert NO_VERDICT in inert(comparison._repr_html_()).words
    for name in ("training", "results", "differences", "capacity"):
        with pytest.raises(NotRecordedError, match=r"[;.] (Wait|wait|compare|train|held-out) "):
            getattr(comparison.plot, name)()


def test_the_table_has_a_row_for_each_configuration_or_each_run() -> None:
    comparison = dynlora.compare(SEEDS, SAMPLES)
    table, each = comparison.table(), comparison.table(each_run=True)
    assert table["runs"].tolist() == [2, 2]
    assert len(each) == 4
    assert set(each["status"]) == {"finished"}
    assert table["mean accuracy"].max() == pytest.approx(0.8550, abs=1e-4)


def test_a_card_shows_the_verdict_and_every_row() -> None:
    comparison = dynlora.compare(SEEDS, SAMPLES)
    words = " ".join(inert(comparison._repr_html_()).words.split())
    assert comparison.verdict in words
    assert "Comparison of 4 runs" in words
    for value in ("0.8550", "165,888", "lora, n = 2"):
        assert value in words


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_run_can_act_in_a_comparison(runs_dir: Path, text: str) -> None:
    comparison = dynlora.compare(several(runs_dir, text=text))
    inert(comparison._repr_html_())
    for name in ("training", "results", "differences", "capacity"):
        assert "<img" not in getattr(comparison.plot, name)().to_json()


def test_a_comparison_follows_runs_that_train(runs_dir: Path) -> None:
    going = Running(runs_dir)
    going.advance(10)
    comparison = dynlora.compare([going.folder, make_run(runs_dir, run_id=LORA, strategy="lora")])
    before = comparison.plot.training("loss").table["step"].max()
    going.advance(60)
    assert comparison.plot.training("loss").table["step"].max() > before


def test_a_metric_that_no_run_has_is_said_with_those_there_are() -> None:
    plot = dynlora.compare(SEEDS, SAMPLES).plot
    with pytest.raises(NotRecordedError, match="'bleu'.*metrics of these runs are accuracy, brier"):
        plot.training("bleu")
    with pytest.raises(ConfigError, match=r"^split='test': must be one of train and validation$"):
        plot.training("loss", "test")
    with pytest.raises(ConfigError, match=r"^x='hours': must be one of"):
        plot.training(x="hours")
