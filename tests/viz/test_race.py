"""The races on Home and at the end of the tour: real sample runs, at equal budget, with the verdict of Compare."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynlora.analysis.pairing import FEWEST_SEEDS
from dynlora.analysis.verdict import run_verdict
from dynlora.server.serve import sample_runs_dir
from dynlora.store.summary import run_summary
from dynlora.viz.kit import theme
from dynlora.viz.ui import run_picker
from dynlora.viz.verdict import Race, race_caption, race_figure, races
from tests.viz.drawn import traces_of


@pytest.fixture(scope="module")
def sample_races(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Race]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_picker, "sample_runs_dir", sample_runs_dir)
        patch.setenv(run_picker.RUNS_DIR_VARIABLE, str(tmp_path_factory.mktemp("runs")))
        yield races(run_picker.list_all())


def test_two_races_are_drawn_and_what_does_not_help_is_said(sample_races: list[Race]) -> None:
    assert [race.title.partition(",")[0] for race in sample_races] == ["sentiment4", "clinc150"]
    for race in sample_races:
        assert not race.is_won
        assert re.fullmatch(r"(Undecided|Equal within 1 point): [+−]\d+\.\d points against lora", race.answer.answer)


def test_all_runs_of_a_race_share_model_data_steps_and_budget(sample_races: list[Race]) -> None:
    for race in sample_races:
        summaries = [run_summary(Path(sample_runs_dir()) / run) for run in race.runs]
        assert len({(one.model, one.data, one.max_steps, one.params["budget"]) for one in summaries}) == 1
        assert race.contest.seeds >= FEWEST_SEEDS
        assert race.verdict.is_plain


def test_the_figure_is_the_verdict_that_a_page_of_one_run_reaches(sample_races: list[Race]) -> None:
    for race in sample_races:
        folder = Path(sample_runs_dir()) / race.contest.group.runs[0]
        alone = run_verdict(folder, run_summary(folder))
        assert alone is not None
        assert alone.decisive is not None
        assert alone.decisive.difference == race.contest.difference


def means_of(race: Race, metric: str) -> list[float]:
    sides = race.verdict.baseline.runs, race.contest.group.runs
    return [
        sum(float(run_summary(Path(sample_runs_dir()) / run).metrics[metric] or 0) for run in runs) / len(runs)
        for runs in sides
    ]


def test_a_verdict_is_the_difference_of_the_results_that_the_page_lists(sample_races: list[Race]) -> None:
    for race in sample_races:
        before, after = means_of(race, "accuracy")
        assert race.contest.difference is not None
        assert race.contest.difference.mean == pytest.approx(100 * (after - before))


def test_the_lines_end_where_the_runs_ended(sample_races: list[Race]) -> None:
    for race in sample_races:
        means = means_of(race, "loss")
        drawn = [trace for trace in traces_of(race_figure(race, theme.LIGHT)) if trace.name in race.names]
        assert [trace.name for trace in drawn] == race.names
        assert [trace.y[-1] for trace in drawn] == pytest.approx(means)
        for name, mean in zip(race.names, means, strict=True):
            assert f"{name} {mean:.3f}" in race_caption(race)
