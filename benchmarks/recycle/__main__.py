"""LoRA Recycle on intents: what do finished adapters give to intents that nobody trained, without their data?

    python -m benchmarks.recycle [--data ../shared/data/clinc150] [--model minilm] [--teachers 12] [--seeds 2]

CLINC150 has 150 intents. 60 of them are for the test; of the others each teacher learns six. All ways of making
features are tested on the same 600 episodes of 5 ways with 1 and 5 shots and 15 queries a class, and compared in pairs.
`real` learns from the teachers' own data: if it gains nothing over `base`, there is no headroom. `noise` learns from
what the inversion starts from, with the same labels. The best teacher is chosen on the test episodes, in its favour.
Everything is kept in --work after each part, by setting and texts, so a run that was ended continues where it was.
Without --data the classes are those of sentiment4, domain and sentiment: too few for more than two ways.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.recycle.intents import Intents
from benchmarks.recycle.learning import learned, tune, without_learning
from benchmarks.recycle.setting import DROPPING, MODULE, SOURCES, Setting
from benchmarks.recycle.tables import report, summary
from benchmarks.recycle.whole_runs import repeat
from benchmarks.recycle.work import Work
from benchmarks.settings_arguments import add_fields, given


def plan(setting: Setting) -> Iterator[tuple[int, str]]:
    """Yield the seed and source of each meta-training, what matters most first; dropping is compared on one seed."""
    for seed in range(setting.seeds):
        yield from ((seed, source) for source in SOURCES)
        if seed == 0:
            yield from ((0, source) for source in DROPPING)


def compare(work: Work, file: str) -> None:
    """Measure everything that is not measured yet, and write the results after each."""
    test = work.test()
    for seed, source in plan(work.setting):
        if f"{source}, seed {seed}" not in work.figures["accuracy"]:
            learned(work, test, source, seed)
        if "averaged" not in work.figures["accuracy"]:
            without_learning(work, test)
        results.write(file, summary(work), MODULE)


def main() -> None:
    """Train, invert, learn, test, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder of CLINC150")
    parser.add_argument("--work", type=Path, default=None, help="folder that keeps what is done")
    parser.add_argument("--tune", action="store_true", help="compare settings on intents of neither side")
    parser.add_argument("--whole", action="store_true", help="whole recycles by the command's code, one a seed")
    parser.add_argument("--quick", action="store_true", help="few steps: does it work, nothing more")
    add_fields(parser, Setting())
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    setting = given(arguments, Setting())
    if arguments.quick:
        setting = Setting(
            teachers=2,
            classes=3,
            test_classes=2,
            steps=20,
            iterations=12,
            inputs=8,
            episodes=10,
            test_episodes=60,
            seeds=1,
        )
    if arguments.data is None and not arguments.quick:
        setting = replace(setting, teachers=2, classes=3, test_classes=2)
    data = "sentiment4" if arguments.data is None else arguments.data.name
    file = "recycle-quick" if arguments.quick else f"recycle-{data}-{setting.model}"
    folder = results.emptied("recycle") if arguments.quick else arguments.work or results.QUICK / file
    work = Work.below(folder, setting, Intents.of(arguments.data, setting))
    if arguments.tune:
        tune(work, file)
        return
    if arguments.whole:
        repeat(work, file)
        return
    compare(work, file)
    report(summary(work))


if __name__ == "__main__":
    main()
