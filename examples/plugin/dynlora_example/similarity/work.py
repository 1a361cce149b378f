"""The work of a comparison; the one module that loads torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynlora.engine.recorder import Recorder
from dynlora.inference.session import load_run
from dynlora.kinds.settings import stages_of
from dynlora.store.writer import RunWriter
from dynlora.training.folder_work import Outcome
from dynlora.training.progress_stream import StopRequest
from dynlora.training.stepwise import Stepwise, run_steps
from dynlora_example.similarity.kind import COMPARED, SimilaritySettings


class Comparing(Stepwise):
    """The modules of two runs, compared one after the other.

    Attributes:
        modules: names, in order.
        cosines: of the modules that are compared, by name.
    """

    def __init__(self, folders: list[Path], modules: list[str], recorder: Recorder) -> None:
        """Load the updates of both runs."""
        self.modules, self.recorder = modules, recorder
        self.updates: list[dict[str, Tensor]] = [
            {module.info.name: module.delta_weight().detach() for module in load_run(folder).adapters}
            for folder in folders
        ]
        self.cosines: dict[str, float] = {}
        self.step = 0

    @property
    def stages(self) -> list[dict[str, Any]]:
        """One stage, with a step for each module."""
        return stages_of({"modules": len(self.modules)})

    def advance(self) -> None:
        """Compare the next module."""
        name = self.modules[self.step]
        one, other = (update[name].flatten() for update in self.updates)
        self.cosines[name] = float(torch.cosine_similarity(one, other, dim=0))
        self.step += 1
        self.recorder.event(self.step, COMPARED, [], {"module": name, "cosine": self.cosines[name]})
        self.recorder.progress(self.step)

    def state_dict(self) -> dict[str, Any]:
        """Return what a continuation needs: the modules themselves are read again."""
        return {"step": self.step, "cosines": self.cosines}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.step, self.cosines = state["step"], dict(state["cosines"])


def resume(folder: Path, *, force: bool, progress: bool, is_new: bool) -> Outcome:
    """Start a comparison, or continue it; see `RunKind.resume`."""
    load = partial(_load, SimilaritySettings.of_run(folder), folder.parent)
    return run_steps(folder, load, _finish, force=force, progress=progress, is_new=is_new)


def _load(settings: SimilaritySettings, runs_dir: Path, writer: RunWriter) -> Comparing:
    """Return the comparison before its first module."""
    return Comparing([run.folder for run in settings.named(runs_dir)], settings.modules(runs_dir), writer)


def _finish(comparing: Comparing, writer: RunWriter, _stop: StopRequest) -> bool:
    """Keep the cosine of each module."""
    writer.set_meta("similarity_results", {"cosine": comparing.cosines})
    return True
