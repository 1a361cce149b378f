"""What a recycle is: finished classifiers teach one meta-LoRA, without their data (LoRA Recycle)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynlora.errors import ConfigError
from dynlora.inference.forms import form_of
from dynlora.inference.forms.peft import Peft
from dynlora.kinds.named_runs import NO_TEACHER, TEACH
from dynlora.kinds.recorded import SourcedKind
from dynlora.kinds.recycle import result as recycle_result
from dynlora.kinds.recycle.result import Recycle
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.run_kind import StartForm, Trial, interval_words
from dynlora.store.schema import command_text

if TYPE_CHECKING:
    from pandas import DataFrame

UNCHECKED = "given with --test, not checked against the teachers' data"
"""What is known of the classes of a file."""


class RecycleKind(SourcedKind):
    """LoRA Recycle: synthetic inputs of each teacher, and episodes over their classes."""

    name = "recycle"
    command = "recycle"
    about = "a meta-LoRA made of finished runs (LoRA Recycle)"
    settings = RecycleSettings
    result = Recycle
    form = StartForm(
        recycle_result.PURPOSE,
        TEACH,
        "Start",
        NO_TEACHER,
        evidence=recycle_result.EVIDENCE,
    )
    trial = Trial("Try it on a new task", "few-shot", "meta")
    formats = ("peft", "uniform")

    def estimate(self, settings: RecycleSettings, runs_dir: Path) -> tuple[dict[str, Any], str]:
        """Return how long inversion and episodes will take; the test comes after that."""
        times = self.work.estimated(self.work.Materials.load(settings, runs_dir))
        words = (
            f"about {times['minutes']:.1f} minutes: {times['inversion_minutes']:.1f} to invert {times['classes']} "
            f"classes, {times['episodes_minutes']:.1f} for {settings.episodes:,} episodes; the test comes after that"
        )
        return times, words

    def lines(self, document: Mapping[str, Any], runs_dir: Path) -> Iterator[str]:
        """Yield how to try the meta-LoRA, and the table of its few-shot accuracy."""
        run_id, accuracy = document["id"], document.get("accuracy") or {}
        yield f"next: {self.usage(run_id, runs_dir)}"
        test = document.get("test") or {}
        if test:
            known = UNCHECKED if test.get("is_new") else "classes that the teachers know"
            yield (
                f"{run_id}, {test['classes']} classes of {test['source']} ({known}); mean accuracy (95 % CI over "
                "episodes)"
            )
        for method, by_shots in accuracy.items():
            for shots, row in by_shots.items():
                yield f"  {document['methods'][method]:55} {shots}-shot  {interval_words(row)}"
        for note in document.get("notes") or ():
            yield f"note: {note}"

    def tables(self, result: Recycle) -> Mapping[str, DataFrame]:
        """Return the teachers."""
        return {"teachers": recycle_result.teachers_frame(result)}

    def usage(self, run_id: str, runs_dir: Path) -> str:
        """Return the command that classifies with the meta-LoRA."""
        return command_text("fewshot", run_id, "--support", "FILE", "--text", "TEXT", runs_dir=runs_dir)

    def load(self, folder: Path) -> Any:
        """Return the meta-LoRA, whose `fewshot` takes examples."""
        from dynlora.kinds.recycle.work.few_shot import load_meta

        return load_meta(folder)

    @property
    def operations(self) -> Mapping[str, Callable[..., Any]]:
        """Predictions for texts from a few labelled ones."""
        return {"few_shot": _few_shot}

    def export(
        self, folder: Path, out: Path, format: str, which: str = "last", measure: str = "sample"
    ) -> tuple[dict[str, Any], str]:
        """Write the meta-LoRA as a feature-extraction adapter that PEFT loads."""
        from dynlora.kinds.recycle.work.few_shot import export_meta

        form = form_of(format)
        if not isinstance(form, Peft):
            raise ConfigError(f"--format {format}: a meta-LoRA has no head to predict with; export it as peft")
        document = export_meta(folder, out, form)
        words = f"wrote {out} ({form.name}), a feature-extraction adapter of {document['parameters']:,} parameters"
        return document, words


def _few_shot(model: Any, support: list[tuple[str, str]], texts: list[str]) -> Any:
    """Return predictions for texts; `support` holds pairs of a text and its class."""
    from dynlora.inference.session import checked_texts

    checked_texts(texts, None)
    checked_texts([text for text, _ in support], None)
    return model.fewshot(support).predict(texts)
