"""Measure, print, write; see the package."""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers.utils import logging as transformers_logging

import benchmarks.language_model
from benchmarks import results
from benchmarks.language_model.against_peft import PRECISIONS, parity, steps
from benchmarks.language_model.against_trl import has_trl, tokens, trl
from benchmarks.language_model.memory import memory
from dynlora.engine.loop.hardware import resolve_precision

GOALS = {"parity": 1e-6, "trl": 1e-5, "steps": 0.95, "tokens": {"trl defaults": 1.5, "trl tuned": 1.05}, "memory": 0.5}

SECTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "parity": parity,
    "trl": trl,
    "steps": steps,
    "tokens": tokens,
    "memory": memory,
}


def lines_of(figures: Mapping[str, Any]) -> Iterator[tuple[str, float, float, bool]]:
    """Yield what was measured, its value, its goal, and whether more is better."""
    if (figure := figures.get("parity")) is not None:
        yield "largest difference of losses, lora - PEFT's", figure["largest_difference"], GOALS["parity"], False
    if (figure := figures.get("trl")) is not None:
        yield "rows with TRL's labels, share", figure["equal_labels"] / figure["rows"], 1.0, True
        yield "largest difference of losses, ours - TRL's", figure["largest_difference"], GOALS["trl"], False
    for precision, figure in (figures.get("steps") or {}).items():
        for mine, row in figure["ratios"].items() if precision in PRECISIONS else ():
            yield from (
                (f"step {precision}: {mine} / {their}", ratio, GOALS["steps"], False) for their, ratio in row.items()
            )
    for mine, row in figures.get("tokens", {}).get("ratios", {}).items():
        for their, ratio in row.items():
            yield f"tokens: {mine} / {their}", ratio, GOALS["tokens"][their], True
    if (figure := figures.get("memory")) is not None:
        yield "peak memory of the loss, in pieces / whole", figure["ratio"], GOALS["memory"], False


def report(figures: Mapping[str, Any]) -> None:
    """Print what was found beside the goals."""
    print()
    for text, value, goal, more in lines_of(figures):
        met = value >= goal if more else value <= goal
        print(f"  {text:50} {value:9.3g}   goal {'≥' if more else '≤'} {goal:g} {'met' if met else 'MISSED'}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=benchmarks.language_model.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--quick", action="store_true", help="few steps: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # PEFT asks for the old name
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    chosen = [name for name in arguments.only.split(",") if name in SECTIONS]
    if not has_trl():
        print("trl and tokens are left out: TRL is not installed (pip install trl)")
        chosen = [name for name in chosen if name not in ("trl", "tokens")]
    name = "language_model-quick" if arguments.quick else "language_model"
    kept = results.RESULTS / f"{name}.json"
    old = json.loads(kept.read_text("utf-8"))["figures"] if kept.exists() else {}
    figures: dict[str, Any] = {section: old[section] for section in SECTIONS if section in old} | {"goals": GOALS}
    for section in chosen:
        before = os.getloadavg()
        with tempfile.TemporaryDirectory() as place:
            figures[section] = SECTIONS[section](Path(place), quick=arguments.quick)
        figures[section]["load"] = [before, os.getloadavg()]
        figures["precision_of_auto"] = resolve_precision("auto", torch.device("cpu"))
        results.write(name, figures, "benchmarks.language_model")  # a section that fails costs no other
    report(figures)
    print("written:", kept)


if __name__ == "__main__":
    main()
