"""What the Recycle page says of a distillation, against ones that are easy to check by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynlora.kinds.distil import result
from dynlora.kinds.distil.panels.student import Divergence
from dynlora.kinds.distil.result import Distil
from dynlora.kinds.distil.settings import NOT_RECYCLE
from dynlora.viz.kit import theme
from tests.kinds.distil.written import PLAN, RESULTS, TEACHERS, by_teacher, interval, written_distil
from tests.viz.drawn import traces_of


def with_results(**changed: Any) -> dict[str, Any]:
    return {"distil_results": {**RESULTS, **changed}}


def test_the_conclusion_names_the_gap_its_interval_and_n(tmp_path: Path) -> None:
    distil = Distil.read(written_distil(tmp_path))
    assert distil.headline() == (
        "The student is nearer to its teachers than the base model: KL 0.100 nats per token instead of 0.400, "
        "−0.300 (95 % CI −0.310 to −0.290)."
    )
    assert distil.basis() == (
        "Paired over 20 texts that 2 teachers wrote for the test alone. The average of the adapters is further, 0.200. "
        f"Its held-out loss against the base model's is lower on the data of sums. {NOT_RECYCLE} "
        "Of 10 texts of teacher t2 (samples), 1 are empty and 0 repeat another."
    )


@pytest.mark.parametrize(
    ("gap", "message"),
    [(0.0, "is not significantly nearer to its teachers than the base model"), (0.2, "Use the base model.")],
)
def test_no_gain_is_said_with_what_to_do(gap: float, message: str, tmp_path: Path) -> None:
    distil = Distil.read(written_distil(tmp_path, **with_results(kl_against_base={"student": by_teacher(gap)})))
    assert message in distil.headline()


@pytest.mark.parametrize(
    ("gap", "message"),
    [(0.1, "is nearer, 0.200, and needs no training: use it."), (0.0, "not significantly different, 0.200")],
)
def test_an_average_that_does_as_well_is_named(gap: float, message: str, tmp_path: Path) -> None:
    distil = Distil.read(written_distil(tmp_path, **with_results(kl_against_average={"student": by_teacher(gap)})))
    assert message in distil.basis()


def test_losses_that_do_not_differ_or_rise_are_said(tmp_path: Path) -> None:
    same = {"t1": {"student": interval(0.0)}}
    record = Distil.read(written_distil(tmp_path, **with_results(loss_against_base=same)))
    assert "on the teachers' data is not significantly different from the base model's" in record.basis()
    mixed = {"t1": {"student": interval(-1.0)}, "t2": {"student": interval(1.0)}}
    record = Distil.read(written_distil(tmp_path, **with_results(loss_against_base=mixed)))
    assert "is lower on the data of sums, and higher on the data of tales." in record.basis()


def test_an_average_that_is_better_on_the_data_is_said(tmp_path: Path) -> None:
    better = {"t1": {"student": interval(1.0)}, "t2": {"student": interval(0.0)}}
    distil = Distil.read(written_distil(tmp_path, **with_results(loss_against_average=better)))
    assert "Its held-out loss against the average's is higher on the data of sums." in distil.basis()


def test_while_it_works_the_stage_and_the_estimate_are_said(tmp_path: Path) -> None:
    distil = Distil.read(written_distil(tmp_path, state=None, until=3))
    assert distil.headline() == "Not tested yet."
    assert distil.basis() == result.WHAT
    assert distil.progress(1) == ("Now teachers write texts for the student; estimated before the start: 2 min.")
    assert distil.progress(6).startswith("Now the student learns")
    frame = result.written_frame(distil)
    assert frame["written"].tolist() == [10, 10, 10]
    assert frame["texts are"].tolist() == ["for the student", "for the student", "for the test"]


def test_teachers_and_models_are_shown_in_order(tmp_path: Path) -> None:
    distil = Distil.read(written_distil(tmp_path))
    frame = result.frame_of(distil, distil.kl)
    assert frame["model"].tolist()[:3] == ["Student", "Base model", "Average of the adapters"]
    assert list(dict.fromkeys(frame["teacher"])) == ["All teachers", "sums", "tales"]
    losses = result.frame_of(distil, distil.loss)
    assert losses["model"].tolist() == ["Student", "Base model", "The teacher itself", "Teacher tales"]
    compared = result.compared(distil, distil.kl, ())
    assert compared is not None
    drawn = traces_of(Divergence().figure(compared, theme.LIGHT))
    assert [list(trace.x) for trace in drawn] == [
        pytest.approx(values) for values in ([0.1, 0.08, 0.12], [0.4, 0.38, 0.42], [0.2, 0.18, 0.22])
    ]


def test_a_value_of_another_kind_counts_as_none(tmp_path: Path) -> None:
    odd = {"kl": {"base": 3, "student": {"all": {"mean": "low"}}}, "loss": [1], "texts": "x", "methods": 7, "notes": 3}
    distil = Distil.read(written_distil(tmp_path, distil={"teachers": [3], "stages": "x"}, distil_results=odd))
    assert (distil.kl, distil.loss, distil.counted, distil.stages, distil.notes) == ((), (), (), (), ())
    assert distil.headline() == "Not tested yet."
    assert len(result.written_frame(distil)) == 2, "texts of the second teacher, that nobody named, are left out"


def test_teachers_whose_names_begin_alike_have_labels_of_their_own(tmp_path: Path) -> None:
    names = ["target for decoding, 160 steps", "target for decoding, 500 steps"]
    teachers = [{**one, "name": name} for one, name in zip(TEACHERS, names, strict=True)]
    distil = Distil.read(written_distil(tmp_path, distil={**PLAN, "teachers": teachers}))
    compared = result.compared(distil, distil.kl, ())
    assert compared is not None
    drawn = Divergence().figure(compared, theme.LIGHT)
    layout: Any = drawn.layout
    assert list(layout.yaxis.ticktext) == ["All teachers", "target for…160 steps", "target for…500 steps"]
    assert {name for trace in traces_of(drawn) for name in trace["customdata"]} == {"All teachers", *names}


def test_teachers_of_one_name_are_told_apart_by_their_run(tmp_path: Path) -> None:
    teachers = [{**one, "name": "a run"} for one in TEACHERS]
    distil = Distil.read(written_distil(tmp_path, distil={**PLAN, "teachers": teachers}))
    assert list(distil.names().values()) == ["a run (t1)", "a run (t2)"]
    assert result.written_frame(distil)["teacher"].unique().tolist() == ["a run (t1)", "a run (t2)"]
