"""The Run page offers a run's adapter where there is one, and says how to get it on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from dynlora.errors import DynloraError, NotMergeableError
from dynlora.jobs import export as export_job
from dynlora.jobs import helper_job
from dynlora.jobs.helper_job import Failure, HelperJob, Progress
from dynlora.viz.run import button as export_button
from tests.pages.app import open_page
from tests.viz.runs import make_run

RUN = "20260101-000000-00000001"


def labels(run_id: str) -> list[str]:
    return [one.proto.label for one in open_page("run", run=run_id).get("download_button")]


def test_a_trained_run_offers_its_adapter_in_the_form_that_is_chosen_and_the_commands(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page("run", run=run.name)
    offered = [one.proto.label for one in app.get("download_button")]
    assert [label for label in offered if label != "CSV"] == ["Adapter", "Merged model"]
    app.selectbox(key="export-form").set_value("uniform").run()
    assert "Adapter for SGLang, TGI, LoRAX" in [one.proto.label for one in app.get("download_button")]
    assert any(f"--format uniform --out {run.name}-uniform.zip" in block.value for block in app.code)
    monkeypatch.setattr(export_button, "is_read_only", lambda: True)
    assert "Adapter" not in labels(run.name)


def test_an_export_on_all_held_out_examples_is_followed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[list[str]]()

    def start(kind: str, command: list[str], place: Path) -> None:
        started.append(command)
        HelperJob(kind=kind).of_process(os.getpid()).having(progress=Progress(done=12, of=48)).write(place)

    monkeypatch.setattr(helper_job, "start", start)
    app = open_page("run", run=run.name)
    app.button(key="export-measure").click().run()
    job, file = export_job.whole(run, "merged")
    assert started[0][-6:] == ["all", "--out", str(file), "--json", "--runs-dir", str(run.parent)]
    (bar,) = [one.proto for one in app.get("progress") if "held-out" in one.proto.text]
    assert (bar.text, bar.value) == ("12 of 48 held-out examples", 25)
    app.button(key="export-cancel").click().run()
    assert export_job.whole(run, "merged")[0] is None
    assert job is not None
    file.write_bytes(b"zip")
    words = "warning: worse\nwrote /x/y.zip (merged, last); on 24 held-out examples: loss 0.2 before, 0.3 after"
    job.having(status="done", message=words).write(file.with_suffix(helper_job.ENDING))
    app = open_page("run", run=run.name)
    assert "Zip file, measured on all" in [one.proto.label for one in app.get("download_button")]
    captions = [one.value.replace("\\", "").replace("\u200b", "") for one in app.caption]
    assert "On 24 held-out examples: loss 0.2 before, 0.3 after" in captions


def test_a_run_without_an_adapter_offers_none(runs_dir: Path) -> None:
    make_run(runs_dir)
    assert "Adapter" not in labels(RUN)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NotMergeableError("PEFT has no format for this update"), "^PEFT has no format"),
        (None, r"the adapter was not exported \(exit 2\): it broke"),
    ],
)
def test_what_the_child_refuses_is_its_own_error(
    error: Exception | None, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_or_leave(command: list[str], timeout_s: float, job: Path) -> CompletedProcess[Any]:
        assert command[1:6] == ["-P", "-m", "dynlora", "export", RUN]
        if error is not None:
            HelperJob(kind="export", status="failed", error=Failure.of(error)).write(job)
        return CompletedProcess(command, 2, b"", b"it broke")

    monkeypatch.setattr(helper_job, "run_or_leave", run_or_leave)
    with pytest.raises(NotMergeableError if error else DynloraError, match=message):
        export_job.exported(tmp_path / RUN, "peft")
