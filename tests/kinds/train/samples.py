"""What the panels of a training say of every sample run; `python -m tests.kinds.train.samples` writes it down again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynlora.analysis.run_reading import read_run
from dynlora.kinds.run_kind import kind_of_run, registry
from dynlora.viz.kit.panel import Panel, RunView

CAPTIONS = Path(__file__).parent / "captions"
SAMPLES = Path(__file__).resolve().parents[3] / "sample_runs"
TRAININGS = sorted(one for one in SAMPLES.iterdir() if one.is_dir() and kind_of_run(one).name == "train")
PANELS = registry()["train"].panels


def view_of(folder: Path) -> RunView:
    """Return a sample run as a page shows it when a module is followed."""
    run = read_run(folder)
    run = replace(run, module=run.modules["name"].iloc[0])
    return RunView(folder, run, run.store)


def cards(view: RunView) -> Iterator[tuple[Panel[Any], str, RunView]]:
    """Yield every panel of a run with each of its views, and the end of the card's key."""
    for panel in PANELS:
        if panel.applies(view):
            yield from ((panel, end, one) for end, one in panel.views(view).items())


def written(panel: Panel[Any]) -> dict[str, str]:
    """Return the captions of a panel that are written down, by run and end of the card's key."""
    lines = (CAPTIONS / f"{panel.id}.txt").read_text("utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines)


def main() -> None:
    """Write the captions of every panel."""
    lines = defaultdict[str, list[str]](list)
    for folder in TRAININGS:
        for panel, end, view in cards(view_of(folder)):
            data = panel.data(view)
            words = panel.reason_missing(view) if data is None else panel.caption(data)
            lines[panel.id].append(f"{folder.name}{end}: {words}")
    for name, texts in lines.items():
        (CAPTIONS / f"{name}.txt").write_text("\n".join(texts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
