"""Numbers and texts that nobody expects: a run finishes, or ends with a sentence; it never ends in a trace or a NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from dynlora.errors import DataError, DynloraError, TrainingDiverged
from dynlora.store.reader import RunReader
from dynlora.store.summary import failed_with
from dynlora.training import run
from tests.tiny import GOOD, tiny_config, tiny_rows

ODD = {
    "one token": "a",
    "control characters": "great \x07\x1b[31m film \x7f\u200b",
    "right to left": "فيلم رائع great \u202e mlif",
    "emoji": "great 🎬👨‍👩‍👧‍👦🏳️‍🌈 film",
    "a hundred thousand characters": "great film " * 9_100,
    "one word of a hundred thousand": "g" * 100_000,
    "line ends": "great\r\nfilm\u2028plot\u2029end",
    "blank in another script": "\u3000\u00a0great",
}


def saved(folder: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as train.jsonl and validation.jsonl."""
    folder.mkdir()
    for name, part in (("train", rows), ("validation", rows[: max(16, len(rows) // 2)])):
        lines = [json.dumps(row) for row in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def finite(folder: Path) -> bool:
    """Say whether every recorded loss and importance is a number."""
    with RunReader(folder) as reader:
        losses = [value for line in reader.scalars("loss") for value in line.values]
        _, importance = reader.signal("importance")
    return all(map(math.isfinite, losses)) and all(map(math.isfinite, importance.ravel()))


@pytest.mark.parametrize("name", ODD)
def test_texts_that_nobody_expects(name: str, tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    odd = [{**row, "text": ODD[name]} for row in tiny_rows(8, seed=4)]
    data = saved(tmp_path / "odd", [*odd, *tiny_rows(24, seed=3)])
    outcome = run.train(tiny_config(tiny_bert, data, train__steps=12, train__batch_size=4), runs_dir)
    assert outcome.state == "finished", outcome.error
    assert finite(outcome.folder)


def test_null_bytes_are_refused_or_harmless(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    rows = [{**row, "text": "great\x00 film"} for row in tiny_rows(8, seed=4)]
    data = saved(tmp_path / "null", [*rows, *tiny_rows(24, seed=3)])
    try:
        outcome = run.train(tiny_config(tiny_bert, data, train__steps=12), runs_dir)
    except DynloraError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
    else:
        assert outcome.state == "finished"


@pytest.mark.parametrize(("lr", "clip"), [(10.0, None), (10.0, 1.0), (1.0, None)])
def test_a_loss_that_explodes_ends_in_a_sentence_and_no_run_ends_in_nan(
    lr: float, clip: float | None, tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    config = tiny_config(tiny_bert, tiny_data, train__lr=lr, train__max_grad_norm=clip, train__steps=40)
    outcome = run.train(config, runs_dir)
    if outcome.state == "failed":
        assert outcome.error is not None
        assert "which is not finite" in outcome.error
    else:
        assert finite(outcome.folder)


def test_an_infinite_loss_is_told_from_a_large_one(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynlora.engine.loop.trainer import Trainer

    usual = Trainer._loss
    monkeypatch.setattr(Trainer, "_loss", lambda self, batch: usual(self, batch) * (math.inf if self.step > 5 else 1))
    outcome = run.train(tiny_config(tiny_bert, tiny_data), runs_dir)
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert "the loss is inf at step 7" in outcome.error
    assert failed_with(outcome.folder) == TrainingDiverged.__name__, (
        "a search decides by the class, not by the sentence"
    )


def test_a_group_without_held_out_rows_is_empty_not_wrong(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    train = [*tiny_rows(40, seed=3), *[{**row, "domain": "rare"} for row in tiny_rows(4, seed=5)]]
    data = saved(tmp_path / "groups", tiny_rows(20, seed=3))
    (data / "train.jsonl").write_text("\n".join(json.dumps(row) for row in train), "utf-8")
    outcome = run.train(tiny_config(tiny_bert, data, train__steps=12), runs_dir)
    assert outcome.state == "finished"
    with RunReader(outcome.folder) as reader:
        assert "rare" not in reader.groups()


def test_imbalance_repeats_and_leaks_are_warned_about(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    good = [{"text": f"{GOOD[i % 3]} film", "label": "good", "domain": "x"} for i in range(60)]
    bad = [{"text": "dull plot", "label": "bad", "domain": "x"}]
    data = saved(tmp_path / "uneven", [*bad, *good])
    outcome = run.train(tiny_config(tiny_bert, data, train__steps=12), runs_dir)
    with RunReader(outcome.folder) as reader:
        warnings = " ".join(reader.meta()["data_warnings"])
    assert "Few examples: bad" in warnings
    assert "57 of 61 training examples repeat the text of another" in warnings
    assert "are in both the training and the held-out data" in warnings


def test_train_groups_train_on_them_alone_and_name_those_there_are(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    config = tiny_config(tiny_bert, tiny_data, data__train_groups=["short"], train__steps=12)
    outcome = run.train(config, runs_dir)
    with RunReader(outcome.folder) as reader:
        assert reader.meta()["data_size"]["train"] < 200
        assert reader.groups() == ["long", "short"]
    with pytest.raises(DataError, match="no training example is in medium; groups are long, short"):
        run.train(tiny_config(tiny_bert, tiny_data, data__train_groups=["medium"]), runs_dir)
