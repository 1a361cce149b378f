"""What a merge is: finished adapters of unequal rank on one base model become one adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynlora.config import RunConfig
from dynlora.errors import ConfigError
from dynlora.inference.forms import forms
from dynlora.kinds.merge import result as merge_result
from dynlora.kinds.merge.result import OWN, Merge, head_of
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.recorded import SourcedKind
from dynlora.kinds.run_kind import StartForm, Trial, interval_words
from dynlora.store.schema import command_text

if TYPE_CHECKING:
    from pandas import DataFrame


class MergeKind(SourcedKind):
    """Merging of adapters.

    Heads: on the data of each source its own head is used. The merge has a head where all heads are equal, or where
    none is trained, as for models that write texts; else it is exported without one.
    """

    name = "merge"
    command = "merge"
    about = "one adapter merged from finished ones"
    settings = MergeSettings
    result = Merge
    form = StartForm(
        merge_result.WHAT,
        "Merge adapters",
        "Merge",
        "No finished run kept an adapter yet: launch two of one base model first.",
        remark=merge_result.WHAT,
    )
    trial = Trial("Write with it")
    formats = tuple(forms())

    def lines(self, document: Mapping[str, Any], runs_dir: Path) -> Iterator[str]:
        """Yield how to export and use the merge, and the table of its loss."""
        run_id = document["id"]
        export = command_text("export", run_id, "--out", "DIR", runs_dir=runs_dir)
        usage = self.usage(run_id, runs_dir)
        yield f"next: {export}{f', or {usage}' if usage else ''}"
        for source, by_model in (document.get("loss") or {}).items():
            yield f"held-out loss on the data of {source} (95 % CI over examples)"
            for model, label in merge_result.MODELS.items():
                yield f"  {label:16} {interval_words(by_model[model])}"
        for note in document.get("notes") or ():
            yield f"note: {note}"

    def tables(self, result: Merge) -> Mapping[str, DataFrame]:
        """Return the sources."""
        return {"sources": merge_result.sources_frame(result)}

    def usage(self, run_id: str, runs_dir: Path) -> str:
        """Return the command that uses the merge; empty for one without a head."""
        if head_of(runs_dir / run_id) == OWN:
            return ""
        return command_text("predict", run_id, "--text", "TEXT", runs_dir=runs_dir)

    def has_model(self, folder: Path) -> bool:
        """Say whether a merge has ended with a model that answers: one of classifiers whose heads differ does not."""
        return super().has_model(folder) and head_of(folder) != OWN

    def model_config(self, folder: Path) -> RunConfig:
        """Return the config that loads the merge.

        Raises:
            ConfigError: when it has no head to answer with.
        """
        if head_of(folder) == OWN:
            raise ConfigError(
                f"run {folder.name}: is a merge of runs whose heads differ, so it has no head to predict with; export "
                "it, or give one of its runs"
            )
        return MergeSettings.stored_config(folder)

    def load(self, folder: Path) -> Any:
        """Return the merge on its base model; without the head where the sources' differ."""
        from dynlora.kinds.merge.work.run import load_merge

        return load_merge(folder)

    def export(
        self, folder: Path, out: Path, format: str, which: str = "last", measure: str = "sample"
    ) -> tuple[dict[str, Any], str]:
        """Write the merge as an adapter that PEFT loads, or as a plain transformers folder."""
        from dynlora.kinds.merge.work.run import export_merge

        document = export_merge(folder, out, format)
        return document, f"wrote {out} ({format}), a merge of {document['parameters']:,} parameters"
