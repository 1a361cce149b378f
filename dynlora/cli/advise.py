"""The command that advises before training: which modules, which ranks, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from dynlora.analysis import advice_text as text
from dynlora.cli.commands import fetch, read_config
from dynlora.cli.options import MOST_STEPS, STDOUT, OutFile, Real, Whole, configured, reports, write_out
from dynlora.config_files import with_run_folder
from dynlora.errors import ConfigError
from dynlora.kinds.train.kind import lora_config
from dynlora.store.schema import DEFAULT_RUNS_DIR


@click.command()
@click.option(
    "--budget",
    type=Real(0, 1, above=True),
    default=1.0,
    show_default=True,
    metavar="FRACTION",
    help="Of the parameters that uniform LoRA has at adapter.rank.",
)
@click.option("--leave-out", is_flag=True, help="Give no rank to the families that may be left out.")
@click.option("--steps", type=Whole(2, MOST_STEPS), default=None, help="Steps of the probe, split into two halves.")
@click.option("--no-timing", is_flag=True, help="Do not time steps without the lowest layers.")
@click.option("--out", type=OutFile(), default=None, help="Write the ranks: strategy.ranks_from; - is standard output.")
@configured
@reports
def advise(**options: Any) -> Any:
    """Suggest modules and ranks from a short look at gradients; nothing is trained to the end, no run is made."""
    del options["name"]  # of a run, and this makes none
    return suggested(**options)


def suggested(
    *, config: Path | None, overrides: tuple[str, ...], budget: float, leave_out: bool, steps: int | None,
    no_timing: bool, out: Path | None,
) -> tuple[Any, str]:  # fmt: skip
    """Look, write what was asked for, and report.

    Raises:
        ConfigError: when the configuration cannot be used, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    if out not in (None, STDOUT) and out.exists():
        raise ConfigError(f"--out {out}: exists already; give another file")
    settings = with_run_folder(read_config(config, overrides, None), DEFAULT_RUNS_DIR)
    fetch(settings)
    from dynlora.training.advice import LOOK_STEPS, AdviceRequest
    from dynlora.training.advice import advise as look

    request = AdviceRequest(budget, leave_out=leave_out, look_steps=steps or LOOK_STEPS, is_timed=not no_timing)
    answer = look(settings, request)
    summary = {
        "config": settings.model_dump(mode="json"), "scaling": answer["scaling"], "peft_task_type": answer["task_type"],
    }  # fmt: skip
    document = {**answer, "lora_config": lora_config(summary, answer["ranks"]), "evidence": text.EVIDENCE}
    if out is not None:
        write_out(out, (json.dumps(document, indent=1) + "\n").encode())
    return document, "\n".join(_lines(answer, out))


def _lines(answer: Mapping[str, Any], out: Path | None) -> Iterator[str]:
    """Yield the conclusion, what to do next, and the evidence."""
    yield text.headline(answer)
    yield text.confidence(answer)
    yield text.leave_out(answer)
    file = out or "ranks.json"
    again = "" if out else f"dynlora advise ... --out {file}; "
    yield f"next: {again}dynlora train --set strategy.name=lora --set strategy.ranks_from={file} ..."
    yield text.EVIDENCE
    yield "family                                   modules  mean rank  parameters  gain  gain per parameter (halves)"
    for family in answer["families"]:
        yield (
            f"{family['name']:40} {family['modules']:7} {family['mean_rank']:10.1f} {family['parameters_share']:11.0%} "
            f"{family['gain_share']:5.0%}  {family['gain_per_parameter']:.2f} ({family['low']:.2f} to "
            f"{family['high']:.2f})"
        )
    yield from map(text.layer, answer["layers"])
    yield text.look(answer)
