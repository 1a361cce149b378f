"""The model card of an exported adapter: what it is, how good, how to load it, where its ranks went."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from dynlora.analysis.ranks_to_use import axolotl, lora_settings
from dynlora.blocks import Blocks, in_words
from dynlora.inference.forms import forms, raised_loss
from dynlora.store.summary import RunSummary
from dynlora.text import printable

WIDTH, HEIGHT, MARGIN = 640, 240, 40
"""Of the curve, pixels."""

CELL, LINE, NAMES = 34, 26, 200
"""Width and height of a cell of the map, and room for the names of its rows, pixels."""

DARKEST = 0.65
"""Opacity of the largest rank: black text on it has a contrast of 7 to 1."""

MOST_CELLS = 20_000
"""Modules that are drawn."""

_SVG = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" fill="gray" role="img"'


def curve(points: Sequence[tuple[int, float]]) -> str:
    """Return the curve as an SVG picture with its four ends in numbers."""
    steps, losses = zip(*points, strict=True)
    low, high = min(losses), max(losses)
    wide, tall = (steps[-1] - steps[0]) or 1, (high - low) or 1.0
    places = " ".join(
        f"{MARGIN + (step - steps[0]) / wide * (WIDTH - 2 * MARGIN):.1f},"
        f"{HEIGHT - MARGIN - (loss - low) / tall * (HEIGHT - 2 * MARGIN):.1f}"
        for step, loss in points
    )
    labels = (
        (4, MARGIN, f"{high:.3f}"),
        (4, HEIGHT - MARGIN, f"{low:.3f}"),
        (MARGIN, HEIGHT - 12, f"step {steps[0]}"),
        (WIDTH - 2 * MARGIN, HEIGHT - 12, f"step {steps[-1]}"),
    )
    texts = "".join(f'<text x="{x}" y="{y}">{text}</text>' for x, y, text in labels)
    line = f'<polyline fill="none" stroke="teal" stroke-width="2" points="{places}"/>'
    return f'<svg {_SVG} viewBox="0 0 {WIDTH} {HEIGHT}">{line}{texts}</svg>\n'


def capacity_map(modules: Sequence[tuple[int | None, str, int]]) -> str:
    """Return the rank of each module as an SVG picture: layers from left to right, kinds from top to bottom.

    Args:
        modules: layer (None outside the blocks), kind and rank of each module, in order.
    """
    entries = modules[:MOST_CELLS]
    layers = sorted({-1 if layer is None else layer for layer, _, _ in entries})
    kinds = list(dict.fromkeys(kind for _, kind, _ in entries))
    ranks: dict[tuple[int, str], int] = {}
    for layer, kind, rank in entries:
        place = (-1 if layer is None else layer, kind)
        ranks[place] = ranks.get(place, 0) + rank
    most = max(ranks.values(), default=0) or 1
    heads = [
        _text(NAMES + CELL * (x + 0.5), LINE - 9, "–" if layer < 0 else str(layer), "middle")
        for x, layer in enumerate(layers)
    ]
    names = [_text(NAMES - 8, LINE * (y + 2) - 9, kind[-30:], "end") for y, kind in enumerate(kinds)]
    cells = [
        _picture_cell(x, y, ranks[layer, kind], most)
        for y, kind in enumerate(kinds)
        for x, layer in enumerate(layers)
        if (layer, kind) in ranks
    ]
    wide, tall = NAMES + CELL * len(layers) + 8, LINE * (len(kinds) + 1) + 8
    title = f"<title>Rank by module, 0 to {most}: layers from left to right, kinds from top to bottom</title>"
    size = f'viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}"'
    return f"<svg {_SVG} {size}>{title}{''.join((*heads, *names, *cells))}</svg>\n"


def _picture_cell(x: int, y: int, rank: int, most: int) -> str:
    """Return a cell: white, teal as far as its rank, black text, so that it is read on any ground."""
    left, top = NAMES + CELL * x, LINE * (y + 1)
    box = f'<rect x="{left + 1}" y="{top + 1}" width="{CELL - 2}" height="{LINE - 2}"'
    shade = f'{box} fill="teal" fill-opacity="{DARKEST * rank / most:.2f}"/>'
    return f'{box} fill="white"/>{shade}' + _text(left + CELL / 2, top + LINE - 9, str(rank), "middle", "black")


def _text(x: float, y: float, text: str, anchor: str, fill: str = "gray") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'


CURVE = "held-out-loss.svg"
MAP = "capacity-map.svg"
MOST_SHOWN = 4
"""Metrics whose change by the export is named."""


@dataclass(frozen=True)
class Padding:
    """How texts of different length become one batch of a decoder.

    Attributes:
        token: the tokenizer's padding token.
        id: its number, what `pad_token_id` is set to.
        is_end: it is the token that ends a text, too.
    """

    token: str
    id: int
    is_end: bool


@dataclass(frozen=True)
class Facts:
    """What a model card says.

    Attributes:
        summary: of the run, as `queries.run_summary` returns it.
        base: hub id or folder of the base model.
        is_on_hub: `base` is a hub id.
        is_rounded: the base model's weights were rounded from those on the hub.
        model_class: class of transformers that loads the base model with the right head.
        report: what `export_run` returns.
        curve: step and loss of each evaluation on the held-out examples.
        generates: the model writes texts; else it predicts labels.
        padding: of a decoder; None for an encoder, whose own default is right.
        modules: layer, kind and rank of each module of what is exported.
        verdict: on the run among those beside it, one sentence; None where there is none.
        layers: which blocks of the base model were used; None for all.
        reaction: what reacting to the input gained in the run, a sentence; None where it was not recorded.
        retention: what the adapter forgot, in sentences; None where it was not measured.
    """

    summary: RunSummary
    base: str
    is_on_hub: bool
    is_rounded: bool
    model_class: str
    report: Mapping[str, Any]
    curve: Sequence[tuple[int, float]]
    generates: bool = False
    padding: Padding | None = None
    modules: Sequence[tuple[int | None, str, int]] = ()
    verdict: str | None = None
    layers: Blocks | None = None
    reaction: str | None = None
    retention: str | None = None


def model_card(facts: Facts) -> dict[str, str]:
    """Return the files: README.md with the head that the hub reads, the curve and the capacity map as SVG."""
    summary, report = facts.summary, facts.report
    form = forms()[report["form"]]
    name = Path(report["folder"]).stem or "adapter"
    rank = max((rank for _, _, rank in facts.modules), default=1)
    python = {"peft": _snippet(facts), "merged": _merged_snippet(facts)}
    parts = [
        _head(facts, library=form.library),
        f"# {'Model' if form.holds_model else 'Adapter'} of the run {_code(summary.name)}",
        _result(facts),
        *_gates_matter(report),
        "## Load it",
        form.load_block(python, facts.base, name),
        *(["## Serve it", form.serving(facts.base, name, rank)] if facts.generates and not form.python else []),
        *_padding(facts),
        "## Training",
        _training(facts),
        *([f"![Held-out loss over the steps]({CURVE})"] if len(facts.curve) > 1 else []),
        *(["## Compared", _prose(facts.verdict)] if facts.verdict else []),
        *_strength(report),
        *(["## Retention", _prose(facts.retention)] if facts.retention else []),
        *_exactness(report, facts.reaction),
        *_compressed(report),
        "## Ranks",
        *([f"![Rank by module: layers from left to right, kinds from top to bottom]({MAP})"] if facts.modules else []),
        _ranks(summary),
        *_to_train_again(facts),
        "",
    ]
    files = {"README.md": "\n\n".join(parts)}
    files |= {CURVE: curve(facts.curve)} if len(facts.curve) > 1 else {}
    return files | ({MAP: capacity_map(facts.modules)} if facts.modules else {})


def _head(facts: Facts, *, library: str) -> str:
    """Return the metadata that the hub reads, as JSON, which is YAML too."""
    strategy = printable(facts.summary.strategy or "lora", 60)
    tags = {
        "library_name": library,
        "tags": list(dict.fromkeys(["lora", "dynlora", strategy])),
    }
    base = {"base_model": facts.base} if facts.is_on_hub else {}
    labels = {"pipeline_tag": "text-generation" if facts.generates else "text-classification"}
    lines = (f"{key}: {json.dumps(value)}" for key, value in {**base, **tags, **labels}.items())
    return "\n".join(["---", *lines, "---"])


def _code(text: object) -> str:
    """Return text of a run as code: no markup, one line."""
    plain = printable(text, 120).replace("`", "'")
    return f"`{plain}`"


def _prose(text: str) -> str:
    """Return a sentence that holds text of runs as plain text: no markup, one line."""
    plain = printable(text, 600).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", plain)


def _cell(text: str) -> str:
    """Return text for the cell of a table, which would be split at a bar, code or not."""
    return text.replace("|", r"\|")


def _data(summary: RunSummary) -> str:
    """Return the data set as code, of a local file or folder the name alone."""
    name = str(summary.data)
    return _code(Path(name).name if Path(name).is_absolute() else name)


def _result(facts: Facts) -> str:
    metrics, where = _headline(facts)
    words = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if isinstance(value, float))
    rounded = (
        f" The base model was a copy of {_code(facts.base)} with rounded weights, so results with the weights on the "
        "hub differ slightly; the merged model holds the exact ones."
    )
    return f"**On {where} of {_data(facts.summary)}: {words}.**{rounded if facts.is_rounded else ''}"


def _headline(facts: Facts) -> tuple[Mapping[str, Any], str]:
    """Return the metrics that the card begins with, and on which examples they were measured.

    Those of the export where it was measured on all held-out examples; else those of the last evaluation in training.
    """
    summary, report = facts.summary, facts.report
    held_out = summary.data_size.get("held_out")
    where = f"{held_out:,} held-out examples" if isinstance(held_out, int) else "the held-out examples"
    rows, of = report.get("rows"), report.get("of")
    if rows is None or of is None or rows >= of:
        return report["metrics_after"], where
    if report["which"] == "last" and summary.metrics:
        return summary.metrics, f"{where} (as trained)"
    return report["metrics_after"], f"a sample of {rows:,} of {of:,} held-out examples"


def _snippet(facts: Facts) -> str:
    if facts.generates:
        return f"""from peft import PeftModel
from transformers import {facts.model_class}, AutoTokenizer

folder = "."  # the folder of this file
base = {facts.model_class}.from_pretrained({json.dumps(facts.base)}{_first_blocks(facts)})
model = PeftModel.from_pretrained(base, folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder){_generate(facts)}"""
    return f"""from peft import PeftModel
from transformers import AutoConfig, {facts.model_class}, AutoTokenizer

folder = "."  # the folder of this file
config = AutoConfig.from_pretrained(folder)  # with the names of the classes
base = {facts.model_class}.from_pretrained({json.dumps(facts.base)}, config=config)
model = PeftModel.from_pretrained(base, folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)"""


def _first_blocks(facts: Facts) -> str:
    """Return the argument that loads the first blocks only; blocks that were chosen by number are PEFT's to take."""
    return f", num_hidden_layers={facts.layers}" if isinstance(facts.layers, int) else ""


def _merged_snippet(facts: Facts) -> str:
    return f"""from transformers import {facts.model_class}, AutoTokenizer

folder = "."  # the folder of this file
model = {facts.model_class}.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder){_generate(facts)}"""


def _generate(facts: Facts) -> str:
    """Return the lines that continue a text, where the model writes texts."""
    if not facts.generates:
        return ""
    return """

inputs = tokenizer(["Your text"], return_tensors="pt", padding=True, padding_side="left")
written = model.generate(**inputs, max_new_tokens=64, do_sample=False, pad_token_id=tokenizer.pad_token_id)
print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""


def _padding(facts: Facts) -> list[str]:
    """Return what to set when texts of different length are one batch of a decoder; nothing for an encoder."""
    if facts.padding is None:
        return []
    pad = facts.padding
    end = (
        " It is the end token too: always pass the attention mask, and when you train on, set the labels of padding to "
        "-100 by position, not by token."
        if pad.is_end
        else ""
    )
    use = (
        'pad on the left (`padding_side="left"`), so that every text is continued at its own end.'
        if facts.generates
        else "the class is read at the last token that is not padding, so the model must know this token."
    )
    return [
        "## Padding",
        f"The padding token is {_code(pad.token)}: set `model.config.pad_token_id = {pad.id}` where the base "
        f"model has another or none. In a batch of texts of different length, {use}{end}",
    ]


def _training(facts: Facts) -> str:
    summary = facts.summary
    params = summary.params
    active = params.get("active")
    rows = {
        "Base model": _base(facts) + _frozen(summary),
        "Method": _code(summary.strategy),
        "Data": _data(summary),
        **({} if facts.generates else {"Labels": _labels(summary)}),
        "Adapter": f"{facts.report['which']}, step {summary.step:,}",
        "Seed": _code(summary.seed),
        "Adapter parameters": f"{active:,}" if isinstance(active, int) else "not recorded",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items())])


def _base(facts: Facts) -> str:
    """Return the base model as code, of a local folder the name alone, and how much of it was used."""
    how = "num_hidden_layers" if isinstance(facts.layers, int) else "layer_replication"
    part = "" if facts.layers is None else f", {in_words(facts.layers)} (`{how}`)"
    return (_code(facts.base) if facts.is_on_hub else f"{_code(Path(facts.base).name)}, a local folder") + part


def _frozen(summary: RunSummary) -> str:
    """Return how the frozen weights were kept while the adapter was trained, where not in fp32."""
    settings = summary.config.get("model") or {}
    if (kind := settings.get("quantization")) is not None:
        return (
            f", quantised to {_code(kind)} while training: on the whole weights the adapter's effect differs a little"
        )
    return ", in bf16 while training" if settings.get("dtype") == "bf16" else ""


def _labels(summary: RunSummary) -> str:
    return ", ".join(_code(label) for label in summary.labels) or "numbers"


def _exactness(report: Mapping[str, Any], reaction: str | None) -> list[str]:
    """Return how far the export is from what was trained, as it was measured; nothing of a part of an adapter.

    `reaction` says what reacting to the input gained in the run.
    """
    if "compressed" in report:
        return []
    if not report["baked"]:
        has_gates = forms()[report["form"]].keeps_gates
        what = "The gates react to the input here as they did in training" if has_gates else "The run has no gates"
        exact = f"{what}: this is what was trained, exactly." if report.get("strength", 1) == 1 else f"{what}."
        return ["## Gates", f"{reaction} {exact}" if reaction and has_gates else exact]
    changes = "; ".join(_changes(report["metrics_before"], report["metrics_after"]))
    gain = f"{reaction} " if reaction else ""
    return [
        "## Gates",
        f"{gain}The gates of this run react to the input, which no format of PEFT holds. They were replaced by their "
        f"means over training examples. On {_measured_on(report)}: {changes}. An output changed by at most "
        f"{report['max_abs_logit_gap']:.2g}. To train without gates, set `strategy.gates=off`.",
    ]


def _strength(report: Mapping[str, Any]) -> list[str]:
    """Return what the trained update was multiplied by; nothing where it is as it was trained."""
    strength = report.get("strength", 1)
    if strength == 1:
        return []
    return [
        "## Strength",
        f"The trained update is multiplied by {strength:g}. The factor is in the weights of this adapter, so nothing "
        "has to be set to load it.",
    ]


def _measured_on(report: Mapping[str, Any]) -> str:
    """Return the examples on which averaging the gates was measured."""
    rows, of = report.get("rows"), report.get("of")
    return "the held-out examples" if rows is None or rows == of else f"a sample of {rows:,} held-out examples"


def _gates_matter(report: Mapping[str, Any]) -> list[str]:
    """Return a warning where averaging the gates made the adapter worse, with the two ways that keep them."""
    losses = raised_loss(report)
    if losses is None:
        return []
    before, after = losses
    return [
        f"**Averaging the gates of this run raised its held-out loss from {before:.3f} to {after:.3f}.** Two exports "
        "keep them: `dynlora export ID --format gated` for Python (`dynlora.load`), and `--format onnx-gated`."
    ]


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return metrics before and after, loss first."""
    names = sorted((name for name in before if name in after), key=lambda name: name != "loss")
    return [
        f"{printable(name.replace('_', ' '), 40)} {before[name]:.4f} before, {after[name]:.4f} after"
        for name in names
        if isinstance(before[name], float) and isinstance(after[name], float)
    ][:MOST_SHOWN]


def _compressed(report: Mapping[str, Any]) -> list[str]:
    """Return what was left out of the trained adapter and what that costs; nothing where all of it is here."""
    size = report.get("compressed")
    if size is None:
        return []
    return [
        "## Compressed",
        f"This is {size['share']:.0%} of what was trained: {size['parameters']:,} of {size['of']:,} adapter "
        f"parameters. On {size['rows']:,} held-out examples the loss differs from that of the whole adapter by "
        f"{size['difference']:+.4f} (95 % CI {size['low']:+.4f} to {size['high']:+.4f}). Components were kept by "
        "one threshold over all modules, without further training.",
    ]


def _ranks(summary: RunSummary) -> str:
    rows = (f"| {_cell(_code(name))} | {rank} |" for name, rank in summary.ranks.items())
    return "\n".join(["| module | rank |", "|---|---:|", *rows])


def _to_train_again(facts: Facts) -> list[str]:
    """Return these ranks as Axolotl takes them, folded; nothing of a model that predicts labels."""
    settings = lora_settings(facts.summary, facts.summary.ranks) if facts.generates else None
    if settings is None:
        return []
    yaml = axolotl(settings).replace("`", "'")
    return [f"<details><summary>Train with these ranks in Axolotl</summary>\n\n```yaml\n{yaml}\n```\n\n</details>"]
