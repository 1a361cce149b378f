"""The three runs of a decode on data with worked solutions: a target, a draft of fewer blocks, and a judge of steps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.config import RunConfig, parse_config
from dynlora.config_files import read_run_config
from dynlora.engine.data.batches import calibration_batches
from dynlora.engine.data.text_data import Rows
from dynlora.engine.model.some_blocks import block_influence, most_influential
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError
from dynlora.inference.session import load_run
from dynlora.kinds.decode.settings import Preparation
from dynlora.kinds.decode.work.rewards import Reference, judged_text
from dynlora.kinds.named_runs import named_run
from dynlora.store.schema import command_text
from dynlora.tasks import WritingTask
from dynlora.training import run
from dynlora.training.folder_work import RunFailedError
from dynlora.training.inputs import load_inputs, read_data

RIGHT, WRONG = "right", "wrong"
LOOKS = 2
"""Batches of training examples that blocks are chosen by."""

HELD_OUT = 0.1
"""Fraction of the problems whose steps the judge is tested on."""

MOSTLY = 0.9
"""Fraction of right steps from which a judge learns little but to say right."""

FOLDER = "judge-data"
"""Beside the runs: the rows that judges learn from, in a folder for each draft."""


def prepare(
    preparation: Preparation, runs_dir: Path, say: Callable[[str], None], *, progress: bool = False
) -> dict[str, Any]:
    """Train target, draft and judge in turn, as far as they are not given, and return their ids.

    Args:
        preparation: what is to be prepared.
        runs_dir: folder of the runs.
        say: is told what happens.
        progress: draw bars.

    Returns:
        `target`, `draft` and `judge`, ids or folders; `rows`, what the judge learned from; `command`, what to do next.

    Raises:
        DynloraError: when something that is named cannot be used, a run fails, or is stopped.
    """
    runs: dict[str, str] = {}
    for role, given, config in (
        ("target", preparation.target, target_config),
        ("draft", preparation.draft, draft_config),
    ):
        if given is not None:
            runs[role] = str(named_run(role, given, runs_dir).folder)
            continue
        say(f"Training the {role}")
        runs[role] = str(_trained(config(preparation), runs_dir, progress))
    say(f"The draft solves {preparation.problems:,} training problems")
    rows = write_rows(Path(runs["draft"]), runs_dir / FOLDER / Path(runs["draft"]).name, preparation)
    say(f"Training the judge on {rows['train']:,} partial solutions, {rows['right']:.0%} of them right")
    if rows["right"] > MOSTLY:
        say("Few are wrong, so the judge will keep nearly every step; a draft trained for less makes more mistakes")
    runs["judge"] = str(_trained(judge_config(preparation, Path(rows["folder"])), runs_dir, progress))
    named = {role: Path(folder).name for role, folder in runs.items()}
    roles = ["--draft", named["draft"], "--target", named["target"], "--reward", named["judge"]]
    command = command_text("rsd", *roles, "--threshold", "0.3:0.9:4", "--control", "0.5", runs_dir=runs_dir)
    return {**named, "rows": rows, "command": command}


def _trained(config: RunConfig, runs_dir: Path, progress: bool) -> Path:
    outcome = run.train(config, runs_dir, progress=progress)
    if outcome.state != "finished":
        name = outcome.folder.name
        raise RunFailedError(
            f"run {name} {outcome.state}{f': {outcome.error}' if outcome.error else ''}; continue it with "
            f"`{command_text('resume', name, runs_dir=runs_dir)}`, and give what is trained as --draft or --target"
        )
    return outcome.folder


def target_config(preparation: Preparation) -> RunConfig:
    """Return the settings of the target: all blocks, plain LoRA."""
    return parse_config(_writer(preparation, "target", preparation.steps, {"rank": 8, "dropout": 0.0}, 1e-3))


def draft_config(preparation: Preparation) -> RunConfig:
    """Return the settings of the draft: some blocks, which have to learn to do without the others."""
    values = _writer(preparation, "draft", preparation.draft_steps, {"rank": 32, "dropout": 0.0}, 1e-3)
    values["model"]["layers"] = chosen_blocks(preparation)
    return parse_config(values)


def chosen_blocks(preparation: Preparation) -> str:
    """Return the numbers of the draft's blocks, as `model.layers` takes them: those wanted, or the most influential.

    Raises:
        ConfigError: when the model has fewer.
    """
    if isinstance(preparation.layers, str):
        return preparation.layers
    inputs = load_inputs(target_config(preparation))
    model = inputs.base.model.eval()
    read = signature(model.forward).parameters
    batches = calibration_batches(inputs.encoded("train"), LOOKS, preparation.seed)
    model_inputs = [
        {name: value for name, value in batch.items() if name in read and name != "labels"} for batch in batches
    ]
    return most_influential(block_influence(model, model_inputs), preparation.layers)


def _writer(preparation: Preparation, role: str, steps: int, adapter: Mapping[str, Any], lr: float) -> dict[str, Any]:
    source = "path" if Path(os.path.expanduser(preparation.data)).exists() else "name"
    return {
        "name": f"{role} for decoding, {Path(preparation.data).name}",
        "seed": preparation.seed,
        "model": {"name": preparation.model},
        "data": {source: preparation.data, "task": "causal_lm"},
        "adapter": dict(adapter),
        "strategy": {"name": "lora"},
        "train": {"steps": steps, "batch_size": 8, "lr": lr, "max_grad_norm": 1.0},
        "log": {"generate_max": 64},
    }


def judge_config(preparation: Preparation, folder: Path) -> RunConfig:
    """Return the settings of the judge: a classification run on partial solutions."""
    return parse_config(
        {
            "name": f"judge for decoding, {Path(preparation.data).name}",
            "seed": preparation.seed,
            "model": {"name": preparation.judge_model},
            "data": {"path": str(folder), "task": "classification"},
            "strategy": {"name": "lora"},
            "train": {"steps": preparation.judge_steps},
        }
    )


def write_rows(draft: Path, folder: Path, preparation: Preparation) -> dict[str, Any]:
    """Let the draft solve training problems, label each partial solution, and write both sides, split by problem.

    Args:
        draft: folder of the run.
        folder: that train.jsonl and validation.jsonl are written to.
        preparation: how many problems, and how they are solved.

    Returns:
        `folder`; `train` and `validation`, numbers of rows; `right`, the fraction of right ones.

    Raises:
        ConfigError: when the data has no worked solutions or answers, or all steps have one label.
    """
    model, config = load_run(draft), read_run_config(draft)
    task = model.task
    if not isinstance(task, WritingTask):
        raise ConfigError(f"--draft {draft.name}: is a run of {task.name}, which writes no texts; give another")
    data = read_data(config).train
    if data.text_pair is None or "answer" not in data.fields:
        raise ConfigError(f"--data {config.data.source}: has no solutions with answers to judge steps by; give others")
    order = np.random.default_rng(stream_seed(preparation.seed, "judge problems")).permutation(len(data))
    chosen = data.take(np.sort(order[: preparation.problems]))
    written = model.continued_rows(task, chosen, preparation.temperature, preparation.seed)
    sides: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    held_out = max(1, round(HELD_OUT * len(chosen)))
    for place in range(len(chosen)):
        side = "validation" if place % max(1, len(chosen) // held_out) == 0 else "train"
        sides[side] += judged_rows(chosen, place, str(written[place]["prediction"]), preparation.step_string)
    labels = [row["label"] for row in sides["train"]]
    if len(set(labels)) < 2:
        raise ConfigError(
            f"--problems {preparation.problems}: all steps of the draft are {labels[0] if labels else 'empty'}, and a "
            "judge needs both kinds; solve more problems, or raise the temperature"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for side, rows in sides.items():
        (folder / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    counts = {side: len(rows) for side, rows in sides.items()}
    return {"folder": str(folder), **counts, "right": labels.count(RIGHT) / len(labels)}


def judged_rows(rows: Rows, place: int, solution: str, step_string: str) -> list[dict[str, Any]]:
    """Return the partial solutions of a problem that a judge learns from, each once.

    Those of the draft's solution, and those of the worked one: a decode has steps of the target before those of the
    draft, and a judge that knew the draft's alone would learn which kinds of steps the draft gets wrong, and no more.
    """
    worked = rows.text_pair[place] if rows.text_pair else ""
    judged = [*labelled(rows, place, solution, step_string), *labelled(rows, place, worked, step_string)]
    return list({row["text"]: row for row in judged}.values())


def labelled(rows: Rows, place: int, solution: str, step_string: str) -> Iterator[dict[str, Any]]:
    """Yield every partial solution of a problem with its label: right while all its steps are."""
    answers = rows.fields["answer"]
    reference = Reference(answers[place], rows.text_pair[place] if rows.text_pair else "")
    so_far, is_right = "", True
    for step in steps_of(solution, step_string):
        so_far += step
        is_right = is_right and reference.is_right(step)
        text = judged_text(rows.text[place], so_far)
        yield {"text": text, "label": RIGHT if is_right else WRONG, "problem": place}


def steps_of(solution: str, step_string: str) -> Sequence[str]:
    """Return the steps of a solution, each with what ends it."""
    parts = solution.split(step_string)
    steps = [part + step_string for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
    return [step for step in steps if step.strip()]
