"""A decode from its settings to its end: a run folder with one event for each solved problem, which continues."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dynlora import assets
from dynlora.assets.hub import sha256_of
from dynlora.blocks import Blocks, parse_blocks
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import read_run_config
from dynlora.engine.compress.plain import Truncatable, as_plain_lora
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.generate import cache_name
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.checkpoint import find_checkpoint
from dynlora.engine.loop.hardware import describe_machine
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError, RunRoleError
from dynlora.inference.session import average_gates, load_run
from dynlora.inference.writing import total_tokens
from dynlora.jobs import quick_launch
from dynlora.kinds.decode.settings import OWN, REWARDS, DecodeSettings
from dynlora.kinds.decode.work.results import plain, points_of, results, rows_of
from dynlora.kinds.decode.work.rewards import BY_NAME, ClassifierReward, OwnReward, Problem, Reward, problems_of
from dynlora.kinds.decode.work.solve import DRAFT, TARGET, Cast, Limits, Point, payload, solve
from dynlora.kinds.decode.work.writer import Role, StepEnd
from dynlora.kinds.named_runs import ADAPTERS, NamedRun
from dynlora.kinds.sources import share_weights
from dynlora.store.meta import section, table, text, whole
from dynlora.store.reader import RunReader
from dynlora.store.writer import RunWriter
from dynlora.tasks import WritingTask
from dynlora.training.folder_work import Outcome, check_can_work, take_threads, work_on
from dynlora.training.inputs import read_data
from dynlora.training.progress_stream import QuietStream, StopRequest

CROPPABLE = ("full_attention", "sliding_attention", "chunked_attention")
"""Kinds of blocks whose keys and values can be taken back."""

Judge = Path | str | Callable[[str, str, str], float]
"""A reward: the folder of a run, a name of `BY_NAME`, or a function of question, solution so far, and step."""


def cast_of(draft: Path, target: Path, reward: Judge | None, step_string: str) -> Cast:
    """Load the runs that play the roles.

    Args:
        draft: folder of a run that learned to write.
        target: of another one, or the same.
        reward: of the steps.
        step_string: ends a step.

    Raises:
        ConfigError: when a run cannot play its role; one sentence.
    """
    models = {name: load_run(folder) for name, folder in (("draft", draft), ("target", target))}
    judge = reward_of(reward)
    loaded = [*models.values(), *([judge.model] if isinstance(judge, ClassifierReward) else [])]
    share_weights([model.base.model for model in loaded])
    roles = {name: role_of(name, model, step_string) for name, model in models.items()}
    same = same_tokenizer(models["draft"], models["target"])
    return Cast(roles["draft"], roles["target"], judge, same)


def role_of(name: str, model: AdaptedModel, step_string: str) -> Role:
    """Return a model as one that writes steps.

    Raises:
        ConfigError: when it writes no texts, or cannot take back what it has read.
    """
    if not isinstance(model.task, WritingTask):
        raise ConfigError(f"--{name}: is a run of {model.task.name}, which writes no texts; give one of causal_lm")
    try:
        cache_name(model.base.model)
    except ValueError as error:
        raise ConfigError(f"--{name}: {error}; give a run of another model") from None
    kinds = getattr(model.base.model.config.get_text_config(), "layer_types", None) or []
    if other := next((kind for kind in kinds if kind not in CROPPABLE), None):
        raise ConfigError(f"--{name}: its model has blocks of {other}, which cannot take back a step; give another run")
    return Role(name, model, StepEnd(model.base.tokenizer, step_string, name), total_tokens(model))


def reward_of(reward: Judge | None) -> Reward | None:
    """Return a reward by its name, of a run's folder or of a function.

    Raises:
        ConfigError: when the run cannot judge.
    """
    if reward is None:
        return None
    if isinstance(reward, Path):
        return ClassifierReward(load_run(reward), reward.name)
    return BY_NAME[reward]() if isinstance(reward, str) else OwnReward(reward)


def same_tokenizer(one: AdaptedModel, other: AdaptedModel) -> bool:
    """Say whether two models have the same tokenizer: the same words, in the same way."""
    first, second = (_written_down(model.base.tokenizer) for model in (one, other))
    return first == second


def _written_down(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend.to_str() if backend is not None else (type(tokenizer), tokenizer.get_vocab())


LINE, BLANK_LINE = "\n", "\n\n"
"""What ends a step in the built-in data, and elsewhere, as published."""


@dataclass(frozen=True)
class Plan:
    """A decode that is ready to start.

    Attributes:
        cast: the roles.
        problems: held-out problems.
        points: each role alone, then the rules.
        limits: of each solution.
        seed: of what is drawn.
        meta: what the store keeps under `decode`.
        diagnosed: folder of the run whose nested ranks are measured, None where they are not.
    """

    cast: Cast
    problems: list[Problem]
    points: list[Point]
    limits: Limits
    seed: int
    meta: dict[str, Any]
    diagnosed: Path | None = None

    @property
    def total(self) -> int:
        """Solutions to be written."""
        return len(self.points) * len(self.problems)


def planned(settings: DecodeSettings, runs_dir: Path, function: Any = None) -> Plan:
    """Load the runs and the problems of a decode.

    Args:
        settings: of the decode.
        runs_dir: where its runs are looked for.
        function: the reward, where it is a function of one's own.

    Raises:
        DynloraError: one sentence that says what cannot be used.
    """
    draft, target = settings.writers(runs_dir)
    judge = settings.judge(runs_dir)
    if settings.reward == OWN and function is None:
        raise ConfigError(
            "reward callable: is a function, which only Python can give; call dynlora.speculate(reward=...) again"
        )
    config = _problem_config(settings, target)
    step_string = settings.step_string or _usual_step(config)
    reward: Judge = judge.folder if judge is not None else function or settings.reward
    cast = cast_of(draft.folder, target.folder, reward, step_string)
    data = read_data(config)
    problems = problems_of(data.held_out, cast.roles, _places(len(data.held_out), settings.limit, settings.seed))
    limits = Limits(settings.new_tokens, settings.step_tokens, settings.max_steps)
    points = points_of(settings.accept, settings.values, settings.control, ends=settings.ends)
    meta = {
        "points": [{"key": point.key, "accept": point.accept, "value": plain(point.value)} for point in points],
        "roles": {
            DRAFT: _described(draft, cast.draft.size.parameters),
            TARGET: _described(target, cast.target.size.parameters),
            "reward": {
                "kind": settings.reward if settings.reward in REWARDS else "classifier",
                "run": None if judge is None else judge.id,
                "name": None if judge is None else judge.name,
            },
        },
        "roles_saved": roles_saved({DRAFT: draft, TARGET: target, "reward": judge}),
        "data": config.data.source,
        "digest": data.digest,
        "split": "validation",
        "problems": len(problems),
        "limits": asdict(limits),
        "step_string": step_string,
        "same_tokens": cast.same_tokens,
    }
    return Plan(cast, problems, points, limits, settings.seed, meta, target.folder if settings.nested_ranks else None)


def _problem_config(settings: DecodeSettings, target: NamedRun) -> RunConfig:
    """Return the target's settings with the data of the decode: all its held-out examples.

    The seed is the target's, and so is all that it says of its own data, also where the decode names that data again:
    together they say which rows were held out of its training.
    """
    values = dict(target.config)
    data = section(values, "data")
    if settings.data is not None and not _is_of(data, settings.data):
        keep = {key: data[key] for key in ("prompt", "completion", "messages", "answer", "text") if data.get(key)}
        source = "path" if Path(os.path.expanduser(settings.data)).exists() else "name"
        known = settings.data in assets.DATASETS
        data = {source: settings.data, "task": "causal_lm", **({} if known else keep)}
    seed = whole(values.get("seed")) or 0
    return parse_config({"seed": seed, "model": values.get("model"), "data": {**data, "max_eval": None}})


def _is_of(data: Mapping[str, Any], named: str) -> bool:
    """Say whether a name or path is that of a run's data, in whatever way the path is written."""
    path, place = text(data.get("path")), Path(os.path.expanduser(named))
    if path is None or not place.exists():
        return path is None and not place.exists() and named == data.get("name")
    known = Path(os.path.expanduser(path))
    return known.exists() and known.samefile(place)


def _usual_step(config: RunConfig) -> str:
    return LINE if config.data.path is None and config.data.name in assets.DATASETS else BLANK_LINE


def _places(rows: int, limit: int | None, seed: int) -> list[int]:
    """Return which rows are decoded: all, or a sample by key, in order."""
    drawn = np.random.default_rng(stream_seed(seed, "decode problems")).permutation(rows)[:limit]
    return sorted(int(place) for place in drawn)


def _blocks(value: object) -> Blocks | None:
    try:
        return parse_blocks(value)
    except ConfigError:  # of a config that somebody wrote
        return None


def _described(run: NamedRun, parameters: int) -> dict[str, Any]:
    model = section(run.config, "model")
    return {
        "run": run.id,
        "name": run.name,
        "model": text(model.get("name")),
        "layers": _blocks(model.get("layers")),
        "parameters": parameters,
    }


def roles_saved(runs: Mapping[str, NamedRun | None]) -> dict[str, str]:
    """Return the digest of what each run trained, by role; a role that is no run has none.

    Raises:
        RunRoleError: when a file has gone; one sentence.
    """
    return {role: _digest(run) for role, run in runs.items() if run is not None}


def _digest(run: NamedRun) -> str:
    try:
        return sha256_of(_place(run.folder) / "tensors.safetensors")
    except OSError as error:
        raise RunRoleError(f"{run.role} {run.id}: its adapter cannot be read ({error.strerror}); try again") from None


def _place(folder: Path) -> Path:
    """Return where the last adapter of a run is."""
    places = (find_checkpoint(folder / name) for name in ADAPTERS)
    return next((place for place in places if place is not None), folder / ADAPTERS[0])


def changed_role(before: Mapping[str, Any], now: Mapping[str, str]) -> str | None:
    """Return the first role that has another adapter than before; None where none has, or nothing was recorded."""
    return next((role for role, digest in now.items() if before.get(role, digest) != digest), None)


ROWS = 48
"""Held-out completions whose tokens are compared."""


def nested_ranks(folder: Path, rows: int = ROWS) -> list[dict[str, Any]]:
    """Return {rank, share, agreement} of the ranks 0, 1, 2, 4, ... of a run's adapter, up to the whole.

    `share` is the fraction of the adapter's parameters; `agreement` the fraction of tokens of held-out completions at
    which the truncated adapter, with `rank` components in every module, finds the same token most probable as the
    whole one. Gates are replaced by their means.

    Raises:
        ConfigError: when the run writes no texts, or its data has no completions.
        NotMergeableError: when the method's update has no components.
    """
    config, model = read_run_config(folder), load_run(folder)
    data = read_data(config)
    if not isinstance(model.task, WritingTask) or data.held_out.text_pair is None:
        raise ConfigError(f"run {folder.name}: has no completions to compare tokens on; give a run that learned some")
    average_gates(model, data, config.seed)
    plain = as_plain_lora(model)
    drawn = np.random.default_rng(stream_seed(config.seed, "nested ranks")).permutation(len(data.held_out))[:rows]
    chosen = data.held_out.take(np.sort(drawn))
    whole = _choices(plain, chosen)
    adapter = Truncatable.of(plain, None, "plain")
    agreements = []
    for rank in _ranks(max(adapter.sizes, default=0)):
        components = [np.arange(min(rank, size)) for size in adapter.sizes]
        adapter.keep(components)
        same = (_choices(plain, chosen) == whole).double().mean()
        share = adapter.parameters_of(components) / max(1, adapter.parameters)
        agreements.append({"rank": rank, "share": share, "agreement": float(same)})
    return agreements


def _ranks(largest: int) -> Iterator[int]:
    """Yield 0, 1, 2, 4, ... and the largest."""
    yield 0
    rank = 1
    while rank < largest:
        yield rank
        rank *= 2
    if largest:
        yield largest


@torch.no_grad()
def _choices(model: AdaptedModel, rows: Rows) -> Tensor:
    """Return the most probable token at every token of the completions, each after the right tokens, (n,)."""
    task, tokenizer, choices = model.task, model.base.tokenizer, []
    assert isinstance(task, WritingTask)
    whole: Any = model.base.model
    device = next(whole.parameters()).device
    for index in range(len(rows)):
        prompt = task.prompt(tokenizer, rows, index)
        ids = [*prompt.ids, *tokenizer(prompt.expected, add_special_tokens=False)["input_ids"]]
        ids = ids[: model.max_length]
        logits = whole(input_ids=torch.tensor([ids], device=device)).logits[0, len(prompt.ids) - 1 :]
        choices.append(logits.argmax(-1).cpu())
    return torch.cat(choices)


PROBLEM = "problem"
"""Kind of the event of a solved problem."""

RESULTS, NESTED = "decode_results", "nested_ranks"
"""Meta keys of what a decode found, and of how much of the target's adapter is in its first components."""


def decode(
    settings: DecodeSettings, runs_dir: Path, *, progress: bool = False, function: Callable[..., float] | None = None
) -> Outcome:
    """Decode in a new run folder.

    Args:
        settings: of the decode.
        runs_dir: folder of the runs.
        progress: draw a bar.
        function: the reward, where it is a function of one's own.

    Raises:
        DynloraError: when something the settings name cannot be used; no folder is left then.
    """
    plan = planned(settings, Path(os.path.realpath(runs_dir)), function)
    folder = quick_launch.create(settings, runs_dir, "running")
    return work_on(folder, None, lambda writer, stop: _decoded(plan, writer, stop, [], progress))


def resume(folder: Path, *, force: bool = False, progress: bool = False, is_new: bool = False) -> Outcome:
    """Start a new or queued decode, or continue one at the problem where it ended.

    Raises:
        DynloraError: when it cannot continue: finished, running, or its runs or data have changed.
    """
    if not is_new:
        check_can_work(folder, force)
    settings = DecodeSettings.of_run(folder)
    with RunReader(folder) as reader:
        meta = reader.meta()
        events = reader.events(kinds=[PROBLEM])
    take_threads(meta)
    known = planned(settings, folder.parent) if events else None  # refused before anything is touched
    if known is not None:
        _check_unchanged(folder.name, section(meta, "decode"), known.meta)
    done = [event.payload for event in events]
    recorded = {row["key"] for row in rows_of(table(meta.get(RESULTS)))}

    def work(writer: RunWriter, stop: StopRequest) -> bool:
        return _decoded(known or planned(settings, folder.parent), writer, stop, done, progress, recorded)

    return work_on(folder, events[-1].step if events else None, work)


def _check_unchanged(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to continue with other data or other adapters than before.

    Raises:
        ConfigError: one sentence that says what has changed.
    """
    if before.get("digest") != now["digest"]:
        raise ConfigError(f"resume {name}: its data has changed since it began; restore it, or start again")
    if role := changed_role(section(before, "roles_saved"), now["roles_saved"]):
        raise ConfigError(
            f"resume {name}: the adapter of its {role} has changed since it began; restore it, or start again"
        )


def _decoded(
    plan: Plan,
    writer: RunWriter,
    stop: StopRequest,
    solved: list[dict[str, Any]],
    progress: bool,
    recorded: Collection[str] = (),
) -> bool:
    """Solve what is not solved yet, and return whether all is.

    Args:
        plan: of the decode.
        writer: of its folder.
        stop: says whether it was asked to stop.
        solved: payloads of what is solved; new ones are added.
        progress: draw a bar.
        recorded: keys of points whose results are recorded.
    """
    device = next(plan.cast.target.model.base.model.parameters()).device
    writer.set_meta("decode", plan.meta)
    writer.set_meta("machine", describe_machine(device, "fp32"))
    writer.update_max_steps(plan.total)
    writer.commit()
    known = {(one["point"], one["problem"]) for one in solved}
    with tqdm(
        total=plan.total, initial=len(known), disable=not progress, file=QuietStream(sys.stderr), unit="problem"
    ) as bar:
        for place, point in enumerate(plan.points):
            for index, problem in enumerate(plan.problems):
                if (point.key, problem.index) in known:
                    continue
                if stop():
                    return False
                solved.append(_solved(plan, place, index))
                step = place * len(plan.problems) + index + 1
                writer.event(step, PROBLEM, [], solved[-1])
                writer.progress(step)
                writer.commit()
                bar.set_postfix({"point": point.key}, refresh=False)
                bar.update(1)
            is_solved = known.issuperset((point.key, problem.index) for problem in plan.problems)
            if not is_solved or point.key not in recorded:
                _end_of_point(plan, point, place, writer, solved)
    if plan.diagnosed is not None:
        writer.set_meta(NESTED, nested_ranks(plan.diagnosed))
    return True


def _solved(plan: Plan, place: int, index: int) -> dict[str, Any]:
    task = plan.cast.target.model.task
    assert isinstance(task, WritingTask)
    problem, point = plan.problems[index], plan.points[place]
    record = payload(problem, point, solve(plan.cast, problem, point, plan.limits, plan.seed), task)
    for step in record["steps"]:
        step["reward"] = plain(step["reward"])
    return record


def _end_of_point(plan: Plan, point: Point, place: int, writer: RunWriter, solved: list[dict[str, Any]]) -> None:
    """Record what is known after a point, and say what is odd about its solutions."""
    mine = [one for one in solved if one["point"] == point.key]
    step = (place + 1) * len(plan.problems)
    document = results(plan.points, solved)
    writer.set_meta(RESULTS, document)
    row = next(row for row in rows_of(document) if row["key"] == point.key)
    for name in ("accuracy", "flops", "flops_with_prefill", "seconds"):
        if row[name] is not None:
            writer.scalar(name, "validation", step, float(row[name]))
    cut = sum(one["ended"] != "end" for one in mine)
    empty = sum(
        not (step["text"] or "").strip() and step is not one["steps"][-1] for one in mine for step in one["steps"]
    )
    if cut:
        writer.log("warning", f"{point.key}: {cut:,} of {len(mine):,} solutions reached a limit before their end")
    if empty:
        writer.log("warning", f"{point.key}: {empty:,} steps are empty; they were judged like any other")
    writer.commit()
