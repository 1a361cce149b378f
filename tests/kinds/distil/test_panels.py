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


def test_the_conclusion_names_the_gap_its_interval_and_n(tmp_path: Path) -> None:
    distil = Distil.read(written_distil(tmp_path))
    assert "KL 0.100 nats per token instead of 0.400, −0.300 (95 % CI −0.310 to −0.290)" in distil.headline()
    assert distil.basis().startswith("Paired over 20 texts that 2 teachers wrote")
    assert NOT_RECYCLE in distil.basis()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kl_against_base": {"student": by_teacher(0.0)}}, "is not significantly nearer"),
        ({"kl_against_base": {"student": by_teacher(0.2)}}, "Use the base model."),
        ({"kl_against_average": {"student": by_teacher(0.1)}}, "is nearer, 0.200, and needs no training: use it."),
        ({"kl_against_average": {"student": by_teacher(0.0)}}, "not significantly different, 0.200"),
        ({"loss_against_base": {"t1": {"student": interval(0.0)}}}, "data is not significantly different"),
        (
            {"loss_against_base": {"t1": {"student": interval(-1.0)}, "t2": {"student": interval(1.0)}}},
            "is lower on the data of sums, and higher on the data of tales.",
        ),
        (
            {"loss_against_average": {"t1": {"student": interval(1.0)}, "t2": {"student": interval(0.0)}}},
            "against the average's is higher on the data of sums.",
        ),
    ],
)
def test_the_conclusion_follows_the_intervals(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    distil = Distil.read(written_distil(tmp_path, distil_results={**RESULTS, **changed}))
    assert message in f"{distil.headline()} {distil.basis()}"


def test_teachers_and_models_are_shown_in_order(tmp_path: Path) -> None:
    distil = Distil.read(written_distil(tmp_path))
    frame = result.frame_of(distil, distil.kl)
    assert frame["model"].tolist()[:3] == ["Student", "Base model", "Average of the adapters"]
    assert list(dict.fromkeys(frame["teacher"])) == ["All teachers", "sums", "tales"]
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
