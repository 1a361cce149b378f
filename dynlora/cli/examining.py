"""Commands that examine a trained run: knock-outs, and the child process that answers pages."""

from __future__ import annotations

from typing import Any

import click

from dynlora.cli.options import in_runs, reports


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--rows", type=click.IntRange(1), default=512, show_default=True, help="Held-out rows to look at.")
@click.option(
    "--together", multiple=True, metavar="I,J", help="Modules to switch off together, by position; again for more."
)
@click.option("--which", default="last", show_default=True, help="last or best.")
@click.option("--again", is_flag=True, help="Measure anew what is known already.")
@in_runs
@reports
def knockout(**options: Any) -> Any:
    """Switch each module off in turn: what do held-out rows lose, and did the allocator know?"""
    from dynlora.cli.knockout import knockout as run

    return run(**options)


@click.command(hidden=True)
@click.option("--idle", type=click.FloatRange(0, min_open=True), default=None, help="Seconds without a question.")
@click.option("--memory", type=click.IntRange(1), default=None, help="Bytes of memory to stay within.")
def answer(idle: float | None, memory: int | None) -> None:
    """Answer questions about trained runs, a line of JSON each; pages start this."""
    from dynlora.inference.worker import IDLE_S, main

    main(IDLE_S if idle is None else idle, memory)
