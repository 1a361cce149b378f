"""What a training is, as a kind of run among others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.run_summary import format_metrics, main_metric, origin_words
from dynlora.config import RunConfig
from dynlora.config_files import read_run_config
from dynlora.errors import DynloraError
from dynlora.inference.forms import forms, raised_loss
from dynlora.kinds.run_kind import NOTHING, Conclusion, RunKind, Trial
from dynlora.store.lifecycle import annotate
from dynlora.store.reader import RunReader
from dynlora.store.summary import RunSummary, check_can_resume, recorded_adapter, run_summary
from dynlora.viz.kit.panel import Data, Panel, Picks, RunView


class CapacityPanel(Panel[Data]):
    """A figure of where rank and importance are; `view.result` is a `RunReading`.

    Attributes:
        chooses_module: whether a click on a point follows its module.
    """

    part = "Capacity"
    chooses_module: ClassVar[bool] = False

    def applies(self, view: RunView) -> bool:
        """Say whether the run recorded ranks."""
        return view.result.has_ranks

    def picks(self, view: RunView) -> Picks | None:
        """Return that a click chooses a module, by its position."""
        run: RunReading = view.result
        return Picks("module", run.modules.sort_values("position")["name"].tolist()) if self.chooses_module else None


class TrainKind(RunKind):
    """Adapters trained on data."""

    name = "train"
    command = "train"
    about = "adapters trained on data"
    page = "run"
    settings = RunConfig
    models = ("adapter", "checkpoint")
    trial = Trial("Ask it")
    formats = tuple(forms())
    allocates = True

    def resume(self, folder: Path, *, force: bool = False, progress: bool = False, is_new: bool = False) -> Any:
        """Go on with a training here; what can be refused without torch is refused before it is loaded."""
        from dynlora.training.folder_work import changed_settings, check_own, check_resumable

        if os.environ.get("RANK", "0") == "0":  # of several processes the first may have set the run running already
            with RunReader(folder) as reader:
                meta, status = reader.meta(), reader.status()
            check_own(folder.name, meta)
            check_resumable(folder.name, status, force)
            check_can_resume(folder, status.opened)
            changed_settings(folder.name, meta.get("config"), read_run_config(folder))
        from dynlora.training import run as training_run

        return training_run.resume(folder.parent, folder.name, force=force, progress=progress)

    def read(self, folder: Path) -> RunReading:
        """Return a training with all its steps chosen."""
        from dynlora.analysis.run_reading import read_run

        return read_run(folder)

    def conclusion(self, result: RunReading, chosen: Mapping[str, str] = NOTHING) -> Conclusion:
        """Return the verdict against the runs beside it; empty where there is none."""
        verdict = verdict_on(result.folder, result.summary)
        return Conclusion(verdict["text"] if verdict else "")

    def standing(self, document: Mapping[str, Any]) -> str:
        """Return step, metrics and parameters; a line for its start and each repair of its data."""
        steps = f"{document['step']}/{document['max_steps']}"
        repairs = "".join(f"\ndata: {sentence}" for sentence in document.get("data_repairs") or ())
        return (
            f"{document['status']} at step {steps}, {_metrics(document)}, "
            f"{_parameters(document['params'])}{_origin(document)}{repairs}"
        )

    def facts(self, folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Return the verdict, the ranks as PEFT takes them, and the verdict's sentence."""
        known = run_summary(folder)
        verdict = verdict_on(folder, known)
        return {
            "verdict": verdict,
            "lora_config": lora_config(known, known.ranks),
            "conclusion": verdict and verdict["text"],
        }

    def load(self, folder: Path) -> Any:
        """Return the adapted model of a training."""
        from dynlora.inference.session import load_run

        return load_run(folder)

    def export(
        self, folder: Path, out: Path, format: str, which: str = "last", measure: str = "sample"
    ) -> tuple[dict[str, Any], str]:
        """Write the adapter, its gates averaged, and note in the run what that changed."""
        from dynlora.inference.export import export_run

        verdict = verdict_on(folder, run_summary(folder))
        text = verdict["text"] if verdict else None
        document = export_run(folder, out, format=format, which=which, verdict=text, measure=measure)
        stored = {key: value for key, value in document.items() if key != "folder"}
        try:
            annotate(folder, meta={f"export_{format}_{which}": stored})
        except (DynloraError, OSError) as error:
            document["not_stored"] = str(error)
        written = f"wrote {out} ({form_words(document)}, {which})"
        if recorded_adapter(folder):
            return document, f"{written}: the adapter of a recorded run, as PEFT wrote it when training ended"
        return document, f"{cost_of_averaging(document)}{written}{_measured(document)}"


def _metrics(document: Mapping[str, Any]) -> str:
    """Return the last metrics, and on how many rows."""
    return f"{format_metrics(document['metrics'], main_metric(document)[0])}{_rows(document)}"


def _measured(document: Mapping[str, Any]) -> str:
    """Return what averaging the gates changed, on how many rows; the metrics where nothing was averaged."""
    before, after = (format_metrics(document[f"metrics_{when}"]) for when in ("before", "after"))
    rows, of = document["rows"], document["of"]
    if not rows:
        return f"; as trained: {after}"
    on = f"on {rows:,} held-out examples" if rows == of else f"on a sample of {rows:,} of {of:,} held-out examples"
    if not document["baked"]:
        return f"; {on}: {after}"
    return (
        f"; averaging the gates changed logits by at most {document['max_abs_logit_gap']:.2e}; {on}: {before} before, "
        f"{after} after"
    )


def form_words(document: Mapping[str, Any]) -> str:
    """Return the form of an export, and where it goes."""
    form = forms()[document["form"]]
    return f"{form.name}, for {form.goes_to}" if form.engines else form.name


def lora_config(summary: RunSummary, ranks: Mapping[str, int]) -> dict[str, Any] | None:
    """Return ranks as the arguments of PEFT's `LoraConfig`: target_modules, r, lora_alpha and the patterns.

    Args:
        summary: of the run whose scaling they keep.
        ranks: by module.
    """
    from dynlora.analysis.ranks_to_use import lora_settings

    settings = lora_settings(summary, ranks)
    if settings is None:
        return None
    return {key: value for key, value in asdict(settings).items() if key != "is_scaling_known"}


def verdict_on(folder: Path, summary: RunSummary) -> dict[str, Any] | None:
    """Return the verdict on a finished run among the runs beside it; None where nothing can be held against it."""
    from dynlora.analysis.verdict import run_verdict
    from dynlora.analysis.verdict_text import headline

    verdict = run_verdict(folder, summary)
    contest = None if verdict is None else verdict.decisive
    if verdict is None or contest is None or contest.difference is None:
        return None
    difference = contest.difference
    return {
        "text": headline(verdict),
        "n": contest.seeds,
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "unit": contest.unit,
        "outcome": contest.outcome,
        "configuration": contest.group.label,
        "against": verdict.baseline.label,
    }


def _parameters(params: Mapping[str, Any]) -> str:
    """Return the adapter parameters in use, of the budget where it is known; a run that was imported may say none."""
    if "active" not in params:
        return "adapter parameters not known"
    used, budget = params["active"] + (params.get("gate") or 0), params.get("budget")
    return f"{used:,}{'' if budget is None else f' of {budget:,}'} adapter parameters"


def _origin(document: Mapping[str, Any]) -> str:
    """Return a line that says which adapter a run starts from; empty where it starts new."""
    origin = document.get("origin")
    return f"\n{origin_words(origin, origin['run'] or origin['name'])}" if origin else ""


def _rows(document: Mapping[str, Any]) -> str:
    """Return on how many held-out examples the metrics were found, where these are not all."""
    rows, of = (document["evaluated"].get(key) for key in ("rows", "of"))
    return f" (of {rows:,} of {of:,} held-out examples)" if rows and of and rows < of else ""


def cost_of_averaging(document: Mapping[str, Any]) -> str:
    """Return a warning where the export is worse than what was trained, with its remedy; else nothing."""
    losses = raised_loss(document)
    if losses is None:
        return ""
    before, after = losses
    return (
        f"warning: without its gates the held-out loss is {after:.3f} instead of {before:.3f}, "
        f"{100 * (after / before - 1):.1f} % more. To keep them, export with --format gated (dynlora.load) or "
        "--format onnx-gated; or train with strategy.gates=off\n"
    )
