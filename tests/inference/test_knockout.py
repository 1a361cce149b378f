"""Ablations: equal to taking the module out by hand, kept with the run, read warily."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.analysis.retention import ITSELF
from dynlora.engine.model.adapters import replace_module
from dynlora.errors import ConfigError
from dynlora.inference import session as inference_session
from dynlora.inference.session import Examined, load_run
from dynlora.server.serve import sample_runs_dir
from dynlora.store.measurements import KnockedOut, Knockouts, keep_knockouts, kept_knockouts
from dynlora.store.record import Part
from dynlora.store.run import MODULE_IMPORTANCE, module_scores, open_run
from tests.command_line import document, run

Changed = TypeVar("Changed", bound=Part)


def replace(record: Changed, **changes: object) -> Changed:
    """Return a record with other values."""
    return record.model_copy(update=changes)


@pytest.fixture(scope="module")
def examined(trained_run: Path) -> Examined:
    """The trained run under examination."""
    return Examined(trained_run)


@pytest.mark.parametrize("modules", [(0,), (7,), (3, 10)])
def test_a_knock_out_is_the_loss_without_the_module(
    modules: tuple[int, ...], examined: Examined, trained_run: Path
) -> None:
    *_, knockout = examined.knockouts([modules], rows=40)
    effect = knockout.effects[-1]

    by_hand = load_run(trained_run)
    sample = examined.sample(40)
    whole = by_hand.predictions(by_hand.tokens(sample))
    for index in modules:
        module = by_hand.adapters[index]
        replace_module(by_hand.base.model, module.info.name, module.base_layer)
    without = by_hand.predictions(by_hand.tokens(sample))
    assert effect.loss == pytest.approx(without.loss.mean(), abs=1e-6)
    assert effect.delta == pytest.approx((without.loss - whole.loss).mean(), abs=1e-6)
    assert effect.changed == (without.prediction != whole.prediction).mean()
    assert effect.low <= effect.delta <= effect.high
    each = without.loss.astype(float) - whole.loss
    assert effect.halves == pytest.approx((each[::2].mean(), each[1::2].mean()), abs=1e-6)
    names = sorted(set(sample.group or ()))
    by_group = [(without.loss - whole.loss)[np.array(sample.group) == name].mean() for name in names]
    assert effect.by_group == pytest.approx(by_group, abs=1e-6)
    assert list(knockout.groups) == names


def test_modules_are_back_after_a_knock_out_that_fails(examined: Examined) -> None:
    with pytest.raises(RuntimeError), examined.model.adapters.disabled([1, 2]):
        raise RuntimeError
    assert all(module.enabled for module in examined.model.adapters)


def test_what_is_known_is_not_measured_again(examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, first = examined.knockouts(rows=24)
    assert len(first.alone) == first.n_modules == len(examined.model.adapters)
    monkeypatch.setattr("dynlora.inference.session.effect_of", None)  # a call would fail
    *_, again = examined.knockouts(rows=24, known=[first])
    assert again == first
    other = replace(first, step=first.step + 1)  # of another adapter: does not count
    with pytest.raises(TypeError):
        list(examined.knockouts(rows=24, known=[other]))
    with pytest.raises(TypeError):
        list(examined.knockouts(rows=24, known=[first], again=True))


@pytest.mark.parametrize("sets", [[(99,)], [()], [(1, 1)], [(-1,)]])
def test_modules_that_are_not_there_are_refused(sets: list[tuple[int, ...]], examined: Examined) -> None:
    with pytest.raises(ConfigError, match="modules"):
        next(examined.knockouts(sets))


EFFECT = KnockedOut(modules=(1,), loss=0.5, delta=0.1, low=0.05, high=0.2, changed=0.25, by_group=(0.1, None))
FOUND = Knockouts(
    which="last",
    step=60,
    rows=512,
    loss=0.4,
    groups=("long", "short"),
    n_modules=12,
    effects=(EFFECT, replace(EFFECT, modules=(1, 2))),
)


WHOLE = replace(FOUND, n_modules=2, effects=tuple(replace(EFFECT, modules=m) for m in [(0,), (1,), (0, 1)]))

CHANGED = WHOLE.having(replace(EFFECT, modules=(0,), delta=9.0))


@pytest.mark.parametrize(
    ("then", "kept"),
    [
        (replace(WHOLE, effects=()), WHOLE),  # nothing is known yet
        (replace(WHOLE, rows=8, effects=WHOLE.effects[:1]), WHOLE),  # other rows, just begun
        (replace(WHOLE, step=90, effects=WHOLE.effects[2:]), WHOLE),  # a pair on an adapter of later
        (replace(WHOLE, effects=WHOLE.effects[1:]), WHOLE),  # measured again, just begun
        (replace(WHOLE, rows=8, effects=WHOLE.effects[:2]), replace(WHOLE, rows=8, effects=WHOLE.effects[:2])),
        (CHANGED, CHANGED),
    ],
)
def test_what_is_whole_is_kept_until_something_whole_replaces_it(
    then: Knockouts, kept: Knockouts, tmp_path: Path
) -> None:
    file = tmp_path / "knockout.json"
    keep_knockouts(file, WHOLE)
    keep_knockouts(file, then)
    assert Knockouts.read(file) == kept
    begun = () if then == kept or not then.effects else (then,)
    assert kept_knockouts(file) == (*begun, kept)


def test_what_was_begun_beside_is_gone_on_with(
    examined: Examined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "knockout.json"
    *_, whole = examined.knockouts(rows=8)
    keep_knockouts(file, whole)
    _, first, *_ = examined.knockouts(rows=16)
    keep_knockouts(file, first)
    calls: list[tuple[int, ...]] = []
    real = inference_session.effect_of
    monkeypatch.setattr(inference_session, "effect_of", lambda *a: calls.append(a[0]) or real(*a))
    for knockouts in examined.knockouts(rows=16, known=kept_knockouts(file), again=True):
        keep_knockouts(file, knockouts)
    assert calls == [(index,) for index in range(1, whole.n_modules)]
    assert kept_knockouts(file) == (knockouts,)
    assert knockouts.rows == 16


def test_a_pair_is_one_pair_in_either_order(examined: Examined) -> None:
    *_, knockout = examined.knockouts([(3, 1)], rows=8)
    *_, again = examined.knockouts([(1, 3)], rows=8, known=[knockout])
    assert [effect.modules for effect in again.effects] == [(1, 3)]


def test_rows_of_other_data_come_from_anywhere_in_it(examined: Examined, tmp_path: Path) -> None:
    lines = [f"the film was great,{'good' if row < 100 else 'bad'}" for row in range(200)]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    losses = examined.elsewhere({"path": str(tmp_path), "max_length": 16}, rows=40)
    assert losses["rows"] == 40
    assert 0.2 < losses["metrics"]["accuracy"] < 0.8, "the first 40 rows are all good"


@given(
    st.sampled_from(["format", "which", "step", "rows", "loss", "groups", "n_modules", "effects"]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 10**20),
        st.floats(allow_nan=False),
        st.text(max_size=5),
        st.lists(st.integers(-2, 3), max_size=3),
        st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    ),
)
def test_a_file_that_lies_is_no_file(tmp_path_factory: pytest.TempPathFactory, key: str, value: object) -> None:
    file = tmp_path_factory.mktemp("lies") / "knockout.json"
    FOUND.write(file)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {key: value}))
    knockouts = Knockouts.read(file)
    assert knockouts is None or (
        0 <= knockouts.n_modules < 2**53 and all(max(e.modules) < knockouts.n_modules for e in knockouts.effects)
    )


def test_the_command_keeps_what_it_found(trained_run: Path) -> None:
    report = document(run(trained_run.parent, "ablate", trained_run.name, "--rows", "16", "--json"))
    assert len(report["modules"]) == report["n_modules"]
    scores = {"importance at the end", MODULE_IMPORTANCE, "final rank", ITSELF}
    assert {row["score"] for row in report["agreement"]} >= scores
    active = sum(row["delta"] != 0 for row in report["modules"])
    assert {row["modules"] for row in report["agreement_of_active"]} == {active}
    kept = Knockouts.read(trained_run / "knockout.json")
    assert kept is not None
    assert kept.rows == 16
    refused = run(trained_run.parent, "knockout", trained_run.name, "--together", "a,b")
    assert refused.exit_code == 2
    assert "--together a,b: must be positions of modules" in refused.stderr


@pytest.mark.parametrize("per_parameter", [False, True])
def test_importance_of_a_module_is_that_of_all_its_parameters_whichever_way_it_was_recorded(
    per_parameter: bool, tmp_path: Path
) -> None:
    """Earlier versions recorded importance per parameter."""
    folder = shutil.copytree(sample_runs_dir() / "20261205-144423-0c085bd5", tmp_path / "20261205-144423-0c085bd5")
    if per_parameter:
        with closing(sqlite3.connect(folder / "run.db")) as database, database:
            database.execute("UPDATE signals SET unit = 'loss change per parameter' WHERE name = 'importance'")
    stored = open_run(folder)
    recorded, modules = stored.signal("importance").drop(columns="step"), stored.modules
    ranks = stored.signal("rank").drop(columns="step").iloc[-1].to_numpy()
    parameters = np.maximum(1, ranks) * (modules["d_in"] + modules["d_out"]).to_numpy()
    expected = recorded.iloc[round(0.75 * (len(recorded) - 1)) :].mean().to_numpy()
    score = module_scores(folder)[MODULE_IMPORTANCE]
    assert score == pytest.approx(expected * parameters if per_parameter else expected, rel=1e-4)
