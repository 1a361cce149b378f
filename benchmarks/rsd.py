"""Reward-Guided Speculative Decoding on worked problems: draft, target, assisted generation, and RSD by reward.

    python -m benchmarks.rsd [--runs-dir FOLDER --draft RUN --target RUN --judge RUN] [--problems 200]

Without runs, target, draft and judge are trained first, as `dynlora rsd prepare` does; `--judge oracle` leaves the
judge out. Every problem is solved in every way before the next one, and kept at once: a benchmark that was interrupted,
or that gets a judge or thresholds later, continues. All decoding is greedy, one problem at a time. FLOPs are counted by
formula; seconds are those of each part when it was first computed, because ways that begin alike share it. Intervals
draw the problems again, 2,000 times.

`transformers` is its assisted generation (lossless): FLOPs count the draft's tokens and one token per forward of the
target; with prefill, all tokens that the target verified.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from benchmarks import kept_rows, results
from dynlora.analysis.stats import percentile_interval
from dynlora.config import parse_config
from dynlora.config_files import read_run_config
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.kinds.decode.work import prepare
from dynlora.kinds.decode.work.results import RESAMPLES, Solved, row_of
from dynlora.kinds.decode.work.rewards import ClassifierReward, LikelihoodReward, OracleReward, Problem, Reward
from dynlora.kinds.decode.work.run import Plan, planned
from dynlora.kinds.decode.work.solve import DRAFT, TARGET, Limits, Point, Solution, Step, payload, solve
from dynlora.training import run

ASSISTED = "transformers"
THRESHOLDS = {"classifier": (0.3, 0.5, 0.7), "oracle": (0.5,), "likelihood": (0.3, 0.5, 0.7, 0.9)}
CONTROL = (0.5, 0.75)
LIMITS = Limits(tokens=64, step_tokens=32, steps=8)
"""Longer than any right solution of `arithmetic`."""

Way = tuple[str, Point, Reward | None]


def ways(judge: Reward | None) -> Iterator[Way]:
    """Yield every way of decoding: its name, its rule, its reward."""
    yield TARGET, Point(TARGET), None
    yield DRAFT, Point(DRAFT), None
    rewards = {"classifier": judge, "oracle": OracleReward(), "likelihood": LikelihoodReward()}
    for name, reward in rewards.items():
        for value in THRESHOLDS[name] if reward is not None else ():
            yield f"{name} {value:g}", Point("threshold", value), reward
    for value in CONTROL:
        yield f"constant {value:g}", Point("constant", value), None


def ways_of(plan: Plan) -> list[Way]:
    """Return every way of decoding that a plan's reward allows, and assisted generation."""
    judge = plan.cast.reward if isinstance(plan.cast.reward, ClassifierReward) else None
    return [*ways(judge), (ASSISTED, Point(ASSISTED), None)]


def solutions(plan: Plan, problem: Problem, missing: Sequence[Way]) -> Iterator[dict[str, Any]]:
    """Yield a problem solved in the ways that are missing."""
    task: Any = plan.cast.target.model.task
    for role in plan.cast.roles:
        role.memory.clear()
    for name, point, reward in missing:
        if name == ASSISTED:
            solution = assisted(plan, problem)
        else:
            solution = solve(replace(plan.cast, reward=reward), problem, point, LIMITS, plan.seed)
        yield {**payload(problem, point, solution, task), "point": name}


def assisted(plan: Plan, problem: Problem) -> Solution:
    """Return what transformers' assisted generation writes, with its costs."""
    draft, target = plan.cast.roles
    models: list[Any] = [role.model.base.model for role in plan.cast.roles]
    forwards: list[list[int]] = [[], []]
    handles = [
        model.register_forward_pre_hook(
            lambda _, args, kwargs, seen=seen: seen.append(_width(args, kwargs)), with_kwargs=True
        )
        for model, seen in zip(models, forwards, strict=True)
    ]
    ids = torch.tensor([problem.prompts[TARGET]])
    config = GenerationConfig(
        max_new_tokens=LIMITS.tokens,
        do_sample=False,
        eos_token_id=sorted(target.ends),
        pad_token_id=target.model.base.tokenizer.pad_token_id,
    )
    started = time.perf_counter()
    try:
        with torch.no_grad():
            output: Any = models[1].generate(
                inputs=ids, attention_mask=torch.ones_like(ids), generation_config=config, assistant_model=models[0]
            )
    finally:
        for handle in handles:
            handle.remove()
    seconds = time.perf_counter() - started
    written = output[0, ids.shape[1] :].tolist()
    text = str(target.model.base.tokenizer.decode(written, skip_special_tokens=True))
    prompt, counts = ids.shape[1], [len(seen) for seen in forwards]
    read = [sum(seen) for seen in forwards]
    flops = sum(role.size.written(prompt, count) for role, count in zip((draft, target), counts, strict=True))
    whole = sum(role.size.read(0, n) + 2 * role.size.head * n for role, n in zip((draft, target), read, strict=True))
    tokens = {
        "draft_kept": len(written) - counts[1],
        "draft_discarded": counts[0] - len(written) + counts[1],
        "target": counts[1],
    }
    ended = "end" if written and written[-1] in target.ends else "tokens"
    prefilled = {DRAFT: read[0] - counts[0], TARGET: read[1] - counts[1], "reward": 0}
    return Solution(text, ended, [Step(TARGET, text, written)], tokens, prefilled, flops, whole, seconds)


def _width(args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    ids = kwargs.get("input_ids", args[0] if args else None)
    return int(ids.shape[1]) if ids is not None else 0


def curve_of_control(solved: Sequence[Solved]) -> list[list[Solved]]:
    """Return the solutions of the control from p = 0, the target alone, to p = 1, the draft alone."""
    names = [TARGET, *(f"constant {value:g}" for value in CONTROL), DRAFT]
    return [[one for one in solved if one["point"] == name] for name in names]


def against_control(mine: Sequence[Solved], curve: Sequence[Sequence[Solved]]) -> dict[str, float]:
    """Return a way's accuracy less the control's at equal decode FLOPs, with its interval over problems.

    The control is interpolated linearly between its two points whose mean FLOPs are around the way's own; beyond its
    ends the end counts.
    """
    cost = float(np.mean([one["flops"] for one in mine]))
    ordered = sorted(curve, key=lambda point: np.mean([one["flops"] for one in point]))
    costs = [float(np.mean([one["flops"] for one in point])) for point in ordered]
    above = int(np.clip(np.searchsorted(costs, cost), 1, len(costs) - 1))
    share = float(np.clip((cost - costs[above - 1]) / max(1e-9, costs[above] - costs[above - 1]), 0, 1))
    right = [np.array([float(one["right"]) for one in point]) for point in (ordered[above - 1], ordered[above], mine)]
    gaps = right[2] - (1 - share) * right[0] - share * right[1]
    draws = np.random.default_rng(0).integers(0, len(gaps), (RESAMPLES, len(gaps)))
    low, high = percentile_interval(gaps[draws].mean(1))
    return {"difference": float(gaps.mean()), "low": low, "high": high}


def figures_of(solved: Sequence[Solved], about: dict[str, Any]) -> dict[str, Any]:
    """Return what is written: every way against the target alone, and RSD against the control at equal FLOPs."""
    names = list(dict.fromkeys(one["point"] for one in solved))
    by = {name: [one for one in solved if one["point"] == name] for name in names}
    curve = curve_of_control(solved)
    rows = []
    for name in names:
        row = row_of(name, name, None, by[name], by[TARGET])
        if name.split()[0] in THRESHOLDS:
            row["against_control"] = against_control(by[name], curve)
        rows.append(row)
    same = [one["text"].strip() == its["text"].strip() for one, its in zip(by[ASSISTED], by[TARGET], strict=True)]
    return {**about, "problems": len(by[TARGET]), "ways": rows, "assisted_equals_target": float(np.mean(same))}


def report(figures: dict[str, Any]) -> None:
    """Print every way beside the goals."""
    goal = "accuracy at most 1 point below the target's at 0.75 of its decode FLOPs"
    print(f"\n{figures['problems']} problems; goal: {goal}")
    for row in figures["ways"]:
        comparison = ""
        if against := row.get("against_target"):
            cost, whole = against["flops"], against["flops_with_prefill"]
            comparison = (
                f"  {_points(against['accuracy'])}, FLOPs {cost['ratio']:.2f} ({cost['low']:.2f} to "
                f"{cost['high']:.2f}), with prefill {whole['ratio']:.2f}"
            )
        if control := row.get("against_control"):
            comparison += f"; against constant at equal FLOPs {_points(control)}"
        print(f"  {row['key']:16} {row['accuracy']:6.1%} {row['seconds'] / row['problems']:6.2f} s{comparison}")


def _points(gap: dict[str, float]) -> str:
    mean, low, high = (100 * gap[key] for key in ("difference", "low", "high"))
    return f"{mean:+.1f} points ({low:+.1f} to {high:+.1f})"


def made(arguments: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Return the ids of the three runs, trained where they are not given."""
    given = {role: getattr(arguments, role) for role in (DRAFT, TARGET, "judge")}
    if all(given.values()):
        return given
    wanted = prepare.Preparation(draft=given[DRAFT], target=given[TARGET])
    if arguments.quick:  # a draft that learned nothing makes no mistakes to judge
        draft, target = prepare.draft_config(replace(wanted, layers="0-0")), prepare.target_config(wanted)
        return {DRAFT: _quick(draft, 1, folder), TARGET: _quick(target, 2, folder), "judge": "oracle"}
    adapters = prepare.prepare(wanted, folder, print)
    return {role: adapters[role] for role in given}


def _quick(config: Any, layers: int, folder: Path) -> str:
    """Train a run of few blocks for a few steps, and return its folder."""
    values = config.model_dump()
    values["model"]["layers"] = layers
    values["train"]["steps"] = 10
    values["data"]["max_eval"] = 16
    return str(run.train(parse_config(values), folder).folder)


def main() -> None:
    """Solve, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=results.QUICK / "rsd-runs")
    for role in (DRAFT, TARGET, "judge"):
        parser.add_argument(f"--{role}", default=None, help="a run that is there already")
    parser.add_argument("--data", default=None, help="a file or name; the default is the target's data")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--file", default="rsd", help="name of the results")
    parser.add_argument("--quick", action="store_true", help="few blocks, steps and problems: does it work")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    file = "rsd-quick" if arguments.quick else arguments.file
    runs_dir = results.emptied("rsd-runs") if arguments.quick else arguments.runs_dir
    names = made(arguments, runs_dir)
    limit = 3 if arguments.quick else arguments.problems
    plan = planned(
        DecodeSettings.parse(
            {
                "draft": names[DRAFT],
                "target": names[TARGET],
                "reward": names["judge"],
                "data": arguments.data,
                "limit": limit,
            }
        ),
        runs_dir.resolve(),
    )
    kept = results.QUICK / f"{file}.jsonl"
    kept.parent.mkdir(exist_ok=True, parents=True)
    if arguments.quick:
        kept.unlink(missing_ok=True)
    about = {"data": results.without_places(str(plan.meta["data"])), "roles": plan.meta["roles"]}
    about["training"] = _recipes(plan, runs_dir)
    whole: list[Solved] = []
    for done, rows in enumerate(complete(plan, kept), 1):
        whole += rows
        if done % 10 == 0 or done == len(plan.problems):
            figures = figures_of(whole, about)
            results.write(file, figures, "benchmarks.rsd")
            print(f"{done} problems", flush=True)
    report(figures_of(whole, about))


def complete(plan: Plan, kept: Path) -> Iterator[list[Solved]]:
    """Yield the solutions of each problem in every way; those that are not kept yet are written and kept."""
    wanted = ways_of(plan)
    keys = {way[0]: key_of(plan, way) for way in wanted}
    rows = [one for one in kept_rows.read_rows(kept) if one.get("key") == keys.get(one["point"], "")]
    known: dict[tuple[int, str], Solved] = {(one["problem"], one["point"]): one for one in rows}
    for problem in plan.problems:
        for solution in solutions(plan, problem, [way for way in wanted if (problem.index, way[0]) not in known]):
            row = {**solution, "key": keys[solution["point"]]}
            kept_rows.add_row(kept, row)
            known[(problem.index, row["point"])] = row
        yield [known[(problem.index, name)] for name, _, _ in wanted]


def key_of(plan: Plan, way: Way) -> str:
    """Return what changes with anything that a solution in this way depends on: roles, data, rule, limits.

    The judge counts where it is the reward, so a benchmark that gets another one keeps the other ways.
    """
    name, point, reward = way
    roles = (DRAFT, TARGET, *(["reward"] if isinstance(reward, ClassifierReward) else []))
    saved = [plan.meta["roles_saved"].get(role) for role in roles]
    return kept_rows.digest(saved, plan.meta["digest"], plan.meta["step_string"], name, asdict(point), asdict(LIMITS))


def _recipes(plan: Plan, runs_dir: Path) -> dict[str, Any]:
    """Return how the three runs were trained."""
    recipes = {}
    for role, about in plan.meta["roles"].items():
        if about["run"] is None:
            continue
        config = read_run_config(runs_dir / about["run"])
        recipes[role] = {
            "model": config.model.name,
            "layers": config.model.layers,
            "rank": config.adapter.rank,
            "steps": config.train.steps,
            "batch_size": config.train.batch_size,
            "lr": config.train.lr,
            "continued": "start_from" in config.strategy.fields,
        }
    return recipes


if __name__ == "__main__":
    main()
