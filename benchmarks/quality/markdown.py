"""The tables of `docs/research/` from the figures of `tables.summary`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.quality.methods import method_of
from dynlora import strategies


def label(name: str) -> str:
    """Return a method's name for a table, with its fidelity where it is no method of PEFT's and not plain LoRA."""
    method = method_of(name)
    if method.engine == "peft" or method.strategy == "lora":
        return method.label
    return f"{method.label} ({strategies.strategy_class(method.strategy).fidelity})"


def interval(difference: Mapping[str, Any], verdict: str) -> str:
    """Return a difference with Student's interval, bold where both intervals exclude 0."""
    text = f"{difference['mean']:+.4f} [{difference['wide_low']:+.4f}, {difference['wide_high']:+.4f}]".replace(
        "-", "−"
    )
    if difference["seeds"] < 2:
        return f"{difference['mean']:+.4f}, one seed".replace("-", "−")
    return text if verdict == "open" else f"**{text}**"


def quality_table(cell: Mapping[str, Any], against: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a cell's table: a row a method, a column of losses less those of each it is held against."""
    differences = {(row["method"], row["against"]): row for row in cell["differences"]}
    against = [name for name in against if any(other == name for _, other in differences)]
    columns = ["method", "learning rate", "seeds", "held-out loss", "accuracy"]
    columns += [] if cell["metric"] == "accuracy" else [cell["metric"]]
    columns += [f"minus {method_of(name).label}" for name in against]
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for row in cell["methods"]:
        cells = [label(row["method"]), f"{row['lr']:g}", str(len(row["seeds"])), f"{row['loss']:.4f}"]
        cells.append(f"{100 * row['accuracy']:.1f} %")
        if cell["metric"] != "accuracy":
            cells.append(f"{row['judged']:.3f}")
        for other in against:
            difference = differences.get((row["method"], other))
            cells.append(interval(difference["loss"], difference["verdict"]) if difference else "")
        yield "| " + " | ".join(cells) + " |"


def methods_table(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of `benchmarks.methods`: a row a method, in the order of the mean of its losses."""
    cells = figures["cells"]
    rows = {cell["task"]: {row["method"]: row for row in cell["methods"]} for cell in cells}
    apart = {
        cell["task"]: {row["method"]: row for row in cell["differences"] if row["against"] == "lora"} for cell in cells
    }
    names = [name for name in figures["costs"] if all(name in methods for methods in rows.values())]
    columns = ["method", "learning rate"]
    columns += [column for task in rows for column in (f"{task}: loss", "accuracy", "minus LoRA")]
    columns += ["parameters", "allocated", "step / LoRA's", "sum of steps", "once, s", "memory, MiB"]
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for name in sorted(names, key=lambda name: sum(methods[name]["loss"] for methods in rows.values())):
        cost, first = figures["costs"][name], next(iter(rows.values()))[name]
        line = [label(name), f"{first['lr']:g}"]
        for task, by_method in rows.items():
            row, beside = by_method[name], apart[task].get(name)
            line += [f"{row['loss']:.4f}", f"{100 * row['accuracy']:.1f} %"]
            line.append(interval(beside["loss"], beside["verdict"]) if beside else "")
        few = min(methods[name]["parameters"][0] for methods in rows.values())
        most = max(methods[name]["parameters"][1] for methods in rows.values())
        line.append(f"{most:,}" if few == most else f"{few:,} to {most:,}")
        line.append(f"{cost['allocated']:,.0f}")
        line += ["1" if name == "lora" else f"{cost[key]:.2f}" for key in ("step_over_lora", "sum_over_lora")]
        line.append(f"{cost['before_s'] + cost['after_s']:+.1f}")
        line.append(f"{cost['peak_over_lora_mib']:+.0f}")
        yield "| " + " | ".join(line) + " |"
