"""Data-free distillation on two tasks: what does one student have of two teachers, without their data?

    python -m benchmarks.distil [--model smollm2-135m] [--steps 40]

One teacher learns worked problems (`arithmetic`, all tokens), one film reviews (`sentiment4-text`). All students are
the same LoRA, begin alike and take the same steps of the same size; they differ in what they learn from:

- `student`: texts that the teachers wrote, against the teacher of each (what `dynlora recycle` does);
- `base texts` (control): texts that the base model wrote, half of them against either teacher;
- `real texts`: the teachers' training texts, against the teacher of each: only the texts differ from `student`;
- `real data` (upper bound): the same texts, with the loss that the teachers learned from.

Beside them stand the base model, each teacher, and the average of the teachers' adapters. Measured are the loss on
held-out examples of both tasks, and KL to the teacher on texts it wrote for the test alone, all on the same examples
and texts. Differences are paired, intervals are 95 % over examples or texts. One seed. Everything is kept after each
part, so a benchmark that was ended continues where it was.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from benchmarks import kept_rows, results
from benchmarks.distil.learning import parts
from benchmarks.distil.setting import MODULE, QUICK, TAUGHT, Setting
from benchmarks.distil.tables import report, summary
from benchmarks.distil.work import Work
from benchmarks.settings_arguments import add_fields, given


def main() -> None:
    """Train, write, learn, test, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=None, help="folder that keeps what is done")
    parser.add_argument("--quick", action="store_true", help="few blocks and steps: does it work, nothing more")
    add_fields(parser, Setting())
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    setting = QUICK if arguments.quick else given(arguments, Setting())
    few = f"-{setting.layers}-blocks" if setting.layers else ""
    file = "distil-quick" if arguments.quick else f"distil{few}"
    folder = results.emptied("distil-quick") if arguments.quick else arguments.work or results.QUICK / file
    work = Work(folder / kept_rows.digest(vars(setting), TAUGHT), setting)
    for name, measure in parts(work):
        if name not in work.figures["kl"]:
            start = time.process_time()
            measure()
            work.take(name)
            work.timed(name, start)
            results.write(file, summary(work), MODULE, ("--work",))
    report(summary(work))


if __name__ == "__main__":
    main()
