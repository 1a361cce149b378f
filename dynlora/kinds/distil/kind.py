"""What a data-free distillation is: runs that write texts teach one LoRA by texts of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynlora.config import RunConfig
from dynlora.inference.forms import forms
from dynlora.kinds.distil import result as distil_result
from dynlora.kinds.distil.result import Distil
from dynlora.kinds.distil.settings import NOT_RECYCLE, DistilSettings
from dynlora.kinds.named_runs import NO_TEACHER, TEACH
from dynlora.kinds.recorded import SourcedKind
from dynlora.kinds.run_kind import StartForm, Trial, interval_words
from dynlora.store.schema import command_text

if TYPE_CHECKING:
    from pandas import DataFrame


class DistilKind(SourcedKind):
    """Data-free distillation. It is not LoRA Recycle: no input is inverted and no episode is learned from."""

    name = "distil"
    command = "recycle"
    about = "one LoRA distilled from texts that finished runs wrote (data-free distillation)"
    settings = DistilSettings
    result = Distil
    form = StartForm(distil_result.WHAT, TEACH, "Start", NO_TEACHER, remark=NOT_RECYCLE)
    trial = Trial("Write with it")
    formats = tuple(forms())

    def estimate(self, settings: DistilSettings, runs_dir: Path) -> tuple[dict[str, Any], str]:
        """Return how long writing and learning will take; the test comes after that."""
        times = {"method": settings.method, **self.work.estimated(self.work.Materials.load(settings, runs_dir))}
        words = (
            f"about {times['minutes']:.1f} minutes: {times['writing_minutes']:.1f} to write {times['texts']:,} texts, "
            f"{times['learning_minutes']:.1f} for {settings.train_steps:,} steps of the student; the test comes after "
            f"that\n{NOT_RECYCLE}"
        )
        return times, words

    def lines(self, document: Mapping[str, Any], runs_dir: Path) -> Iterator[str]:
        """Yield how to export and use the student, and the tables of divergence, loss and texts."""
        run_id, names = document["id"], document.get("methods") or {}
        export = command_text("export", run_id, "--out", "DIR", runs_dir=runs_dir)
        yield f"next: {export}, or {self.usage(run_id, runs_dir)}"
        yield f"{run_id}, KL(teacher || model) on held-out texts, nats per token (95 % CI over texts)"
        for method, by_teacher in (document.get("kl") or {}).items():
            for teacher, row in by_teacher.items():
                yield f"  {names.get(method, method):36} {teacher:32} {interval_words(row)}"
        for teacher, by_method in (document.get("loss") or {}).items():
            yield f"held-out loss on the data of {teacher}, nats per token (95 % CI over examples)"
            for method, row in by_method.items():
                yield f"  {names.get(method, f'teacher {method}'):36} {interval_words(row)}"
        for row in document.get("texts") or ():
            yield (
                f"{row['texts']:,} texts of {row['teacher']} ({row['stage'].replace('_', '-')}), {row['tokens']:,} "
                f"tokens, {row['empty']:,} empty, {row['repeated']:,} repeated, sha256 {row['digest'][:12]}"
            )
        for note in document.get("notes") or ():
            yield f"note: {note}"

    def tables(self, result: Distil) -> Mapping[str, DataFrame]:
        """Return the teachers."""
        return {"teachers": distil_result.teachers_frame(result)}

    def usage(self, run_id: str, runs_dir: Path) -> str:
        """Return the command that writes with the student."""
        return command_text("predict", run_id, "--text", "TEXT", runs_dir=runs_dir)

    def model_config(self, folder: Path) -> RunConfig:
        """Return the config that loads the student: the store keeps it, see `DistilSettings.meta`."""
        return DistilSettings.stored_config(folder)

    def load(self, folder: Path) -> Any:
        """Return the student."""
        from dynlora.inference.session import load_run

        return load_run(folder)

    def export(
        self, folder: Path, out: Path, format: str, which: str = "last", measure: str = "sample"
    ) -> tuple[dict[str, Any], str]:
        """Write the student as an adapter that PEFT loads, or as a plain transformers folder."""
        from dynlora.kinds.distil.work.materials import export_student

        student = export_student(folder, out, format)
        return student, f"wrote {out} ({format}), the student of a distillation, {student['parameters']:,} parameters"
