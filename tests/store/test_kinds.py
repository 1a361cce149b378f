"""Kinds of run share one store: listed apart from trainings, read by one reader, never trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynlora.errors import ConfigError
from dynlora.kinds.run_kind import registry
from dynlora.store import queries
from dynlora.store.catalogue import run_rows
from dynlora.store.meta import DECODE, OTHER, TRAIN, kind_of
from dynlora.store.writer import RunWriter
from dynlora.training.folder_work import check_own


def make(runs_dir: Path, **meta: object) -> Path:
    return RunWriter.create(runs_dir, config_yaml="", meta={"name": "one", **meta}, max_steps=4)


@pytest.mark.parametrize(
    ("meta", "kind"),
    [
        ({}, TRAIN),
        *(({"kind": name}, name) for name in registry()),
        ({"kind": "later"}, "later"),
        ({"kind": "A kind"}, OTHER),
        ({"kind": ["decode"]}, OTHER),
    ],
)
def test_a_run_says_its_kind_and_one_of_before_is_a_training(meta: dict[str, object], kind: str) -> None:
    assert kind_of(meta) == kind


def test_pages_of_trainings_do_not_see_other_kinds_and_the_list_does(tmp_path: Path) -> None:
    trained = make(tmp_path)
    decoded = make(tmp_path, kind="decode", decode_results={"points": []})
    assert {row["id"]: row["kind"] for row in run_rows(tmp_path)} == {trained.name: TRAIN, decoded.name: DECODE}
    assert queries.list_runs(tmp_path)["id"].tolist() == [trained.name]
    assert set(queries.list_runs(tmp_path, None)["id"]) == {trained.name, decoded.name}
    assert queries.list_runs(tmp_path, (DECODE,))["id"].tolist() == [decoded.name]


def test_a_run_of_another_kind_is_not_trained() -> None:
    with pytest.raises(ConfigError, match="resume abc: is a decode run and not trained"):
        check_own("abc", {"kind": "decode"})
