"""Reward-Guided Speculative Decoding on worked problems: draft, target, and both together by reward and by chance.

    python -m benchmarks.rsd [--runs-dir FOLDER --draft RUN --target RUN] [--problems 200] [--data NAME]

Without runs, target, draft and judge are trained first, as `dynlora rsd prepare` does. Rewards are the target's
likelihood, and the oracle as an upper bound. All decoding is greedy, one problem at a time; FLOPs are counted by
formula, and every way is compared with the target alone on the same problems.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from benchmarks import results
from dynlora.cli.kinds import worked_on
from dynlora.config import parse_config
from dynlora.kinds.decode.settings import DecodeSettings, Preparation
from dynlora.kinds.decode.work import prepare
from dynlora.training import run

THRESHOLDS = {"target-likelihood": (0.3, 0.5, 0.7, 0.9), "oracle": (0.5,)}
CONTROL = (0.5, 0.75)


def made(arguments: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Return the runs of draft and target, trained where they are not given."""
    given = {role: getattr(arguments, role) for role in ("draft", "target")}
    if all(given.values()):
        return given
    wanted = Preparation.of(**given)
    if not arguments.quick:
        prepared = prepare.prepare(wanted, folder, print)
        return {role: prepared[role] for role in given}
    draft, target = prepare.draft_config(wanted.model_copy(update={"layers": "0-0"})), prepare.target_config(wanted)
    return {"draft": _quick(draft, 1, folder), "target": _quick(target, 2, folder)}


def _quick(config: Any, layers: int, folder: Path) -> str:
    """Train a run of few blocks for a few steps, and return its folder."""
    values = config.model_dump()
    values["model"]["layers"] = layers
    values["train"]["steps"], values["data"]["max_eval"] = 10, 16
    return str(run.train(parse_config(values), folder).folder.resolve())


def main() -> None:
    """Decode, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=results.QUICK / "rsd-runs")
    parser.add_argument("--draft", default=None, help="a run that is there already")
    parser.add_argument("--target", default=None, help="a run that is there already")
    parser.add_argument("--data", default=None, help="a file or name; the default is the target's data")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="few blocks, steps and problems: does it work")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    file = "rsd-quick" if arguments.quick else "rsd"
    runs_dir = results.emptied("rsd-runs") if arguments.quick else arguments.runs_dir
    settings: dict[str, Any] = {**made(arguments, runs_dir), "data": arguments.data}
    settings |= {"limit": 2, "new_tokens": 16} if arguments.quick else {"limit": arguments.problems, "new_tokens": 64}
    settings["control"] = CONTROL[: 1 if arguments.quick else None]
    ways: dict[str, Any] = {}
    for reward, values in THRESHOLDS.items():
        settings |= {"reward": reward, "values": values[: 1 if arguments.quick else None]}
        document, words, code = worked_on(DecodeSettings.parse(settings), runs_dir)
        if code:
            raise SystemExit(words)
        print(words, flush=True)
        ways[reward] = [document["target_alone"], document["draft_alone"], *document["points"]]
        results.write(file, {"problems": settings["limit"], "ways": ways}, "benchmarks.rsd")


if __name__ == "__main__":
    main()
