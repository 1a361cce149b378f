"""Pictures of a run to share: the map of its ranks, the ranks step by step, and what a language model wrote.

Each has the run's name, its metric with the interval, and the verdict on it, so that it needs no page around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from math import ceil
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from dynlora.analysis import run_summary
from dynlora.analysis.capacity_frames import Grid, grid_of, scale_end
from dynlora.analysis.planted_ranks import needed_modules, placement_sentence
from dynlora.analysis.result_strip import Answer, ResultStrip
from dynlora.analysis.run_reading import RunReading, uniform_rank
from dynlora.kinds.train.panels.capacity import rank_caption
from dynlora.kinds.train.panels.replay import ModelReplay
from dynlora.kinds.train.panels.texts import Generated, GeneratedTexts, conclusion
from dynlora.text import one_line, plural
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import NEEDED, row_edges
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.theme import Palette
from dynlora.viz.report.canvas import (
    BOLD,
    HEIGHT,
    LEVELS,
    MARGIN,
    WIDTH,
    Box,
    Canvas,
    font,
    gif,
    in_palette,
    is_drawable,
    png,
    wrapped,
)

TITLE, ABOUT, SMALL, ANSWER, METRIC = 36, 20, 18, 28, 56
"""Sizes of the words, pixels."""

SIDE = Box(MARGIN, 152, 316, 452)
"""Where the answers are."""

MAIN = Box(410, 152, WIDTH - 410 - MARGIN, 452)
"""Where the map is."""

MOST_FRAMES = 48
"""Frames of a moving picture."""

Progress = Callable[[int, int], None]
"""Takes how many frames are drawn, and how many there are."""


def untold(done: int, of: int) -> None:
    """Take how many frames are drawn and tell nobody."""


class Missing(NamedTuple):
    """Why a run has no such picture."""

    name: str
    reason: str


@dataclass(frozen=True)
class Shared:
    """A picture of a run as a file.

    Attributes:
        name: what it is called.
        file: name of the file.
        mime: type of its content.
        content: of the file.
        alt: what it shows, for those who cannot see it; also in the file.
    """

    name: str
    file: str
    mime: str
    content: bytes
    alt: str


@dataclass(frozen=True)
class Subject:
    """A run and what is written on each of its pictures.

    Attributes:
        run: with all its steps.
        strip: its answers.
    """

    run: RunReading
    strip: ResultStrip

    @property
    def title(self) -> str:
        """Name of the run."""
        return one_line(self.run.summary.name, 120)

    @property
    def about(self) -> str:
        """Method, model, data and steps; first the state of a run that has not finished."""
        summary = self.run.summary
        words = one_line(run_summary.about(summary), 200)
        if summary.status == "finished":
            return words
        return f"{summary.status.capitalize()} at step {summary.step:,} of {summary.max_steps:,} · {words}"

    @property
    def answers(self) -> str:
        """The metric and the verdict in sentences."""
        return " ".join(_sentence(answer) for answer in (self.strip.metric, self.strip.verdict))

    @property
    def needed(self) -> np.ndarray:
        """Whether each module is known to need rank, in the order of the modules as described."""
        return self.run.modules["name"].isin(needed_modules(self.run.summary)).to_numpy()

    def caption(self, start: np.ndarray, now: np.ndarray | None, step: int) -> str:
        """Return where components are needed and what has moved; ranks as recorded, first and at a step."""
        run, words = self.run, ""
        if now is not None:
            ranks = dict(zip(run.modules["name"], np.nan_to_num(now)[run.modules["position"]].astype(int), strict=True))
            words = placement_sentence(run.summary, ranks)
        return f"{words} {rank_caption(run.modules, start, now, step, run.event_steps)}".strip()

    def shared(self, name: str, suffix: str, content: bytes, alt: str) -> Shared:
        """Return a picture as a file; `suffix` says of which type."""
        file = f"dynlora-{self.run.folder.name}-{name.replace(' ', '-').lower()}.{suffix}"
        return Shared(name, file, f"image/{suffix}", content, alt)


def _sentence(answer: Answer) -> str:
    mark = "" if answer.question.endswith("?") else ":"
    end = "" if not answer.basis or answer.basis.endswith(".") else "."
    return f"{answer.question}{mark} {answer.answer.rstrip('.')}. {answer.basis}{end}".rstrip()


def _framed(subject: Subject, colours: Palette, has_side: bool = True) -> Canvas:
    """Return a picture with the name of the run, what it is, and its answers."""
    canvas = Canvas(colours)
    line = Box(MARGIN, 40, WIDTH - 2 * MARGIN, 0)
    canvas.paragraph(line, subject.title, TITLE, colours.text, weight=BOLD)
    canvas.paragraph(Box(MARGIN, 90, line.width, 0), subject.about, ABOUT, colours.muted)
    canvas.draw.line((MARGIN, 130, WIDTH - MARGIN, 130), fill=colours.hairline, width=2)
    canvas.text((MARGIN, HEIGHT - 30), "dynlora", font(ABOUT, BOLD), colours.accent)
    if has_side:
        _side(canvas, subject.strip)
    return canvas


def _side(canvas: Canvas, strip: ResultStrip) -> None:
    """Draw the metric, large, and the verdict below it."""
    colours, answer = canvas.colours, strip.metric
    y = canvas.paragraph(SIDE, answer.question, SMALL, colours.muted, most=2)
    y = canvas.paragraph(_below(SIDE, y), answer.answer, METRIC, colours.text, weight=BOLD)
    y = canvas.paragraph(_below(SIDE, y), answer.basis, SMALL, colours.muted, most=2) + 26
    answer = strip.verdict
    y = canvas.paragraph(_below(SIDE, y), answer.question, SMALL, colours.muted, most=2) + 4
    y = canvas.paragraph(_below(SIDE, y), answer.answer, ANSWER, colours.text, weight=BOLD, most=4) + 4
    canvas.paragraph(_below(SIDE, y), answer.basis, SMALL, colours.muted, most=max(1, (SIDE.bottom - y) // 23))


def _below(box: Box, y: int) -> Box:
    """Return what of a box is below a place."""
    return Box(box.left, y, box.width, box.bottom - y)


def no_ranks(run: RunReading) -> str:
    """Return why a run has no map of ranks; empty where it has one."""
    if run.has_ranks:
        return ""
    if run.summary.status in run_summary.ACTIVE:
        return "The run has not recorded any ranks yet."
    return "The run has not recorded any ranks, so there is no map of them."


# --- the map


def map_picture(subject: Subject, colours: Palette) -> Shared | Missing:
    """Return the ranks of all modules over the steps, with the answers, as PNG."""
    name, run = "Map", subject.run
    if reason := no_ranks(run):
        return Missing(name, reason)
    heat, start = run.heat("rank"), run.values("rank", run.first)
    if start is None or not heat.points:
        return Missing(name, "The run has not recorded any ranks yet.")
    canvas, values = _framed(subject, colours), heat.frame.to_numpy(float)
    end = _heading(subject, canvas, "Rank by module over steps", values)
    box = Box(MAIN.left + 92, MAIN.top + 44, MAIN.width - 92, 322)
    edges, centres = row_edges(run.rows["group"])
    ends = np.append(heat.first_step - 0.5, heat.frame.columns.to_numpy()[-1] + 0.5)
    rows, columns = _places(edges, box.height), _places(ends, box.width)
    shares = values[run.rows["position"]] / end
    gaps = np.isin(edges[:-1], centres - 0.5)  # else an interval between two edges is room between groups
    of_row = np.where(gaps, np.cumsum(gaps) - 1, -1)[rows]
    pixels = np.where(of_row[:, None] < 0, np.nan, shares[of_row][:, columns])
    if box.height / len(run.rows) > 6:
        pixels[1:][np.diff(of_row) != 0] = np.nan
    canvas.cells(box, pixels)
    for centre in centres[run.rows["name"].isin(needed_modules(run.summary))] / edges[-1]:
        half = max(2.0, box.height / edges[-1] / 2)
        y = box.top + box.height * centre
        _outline(canvas, (box.left, round(y - half), box.right - 1, round(y + half) - 1))
    _groups(canvas, box, run.rows["group"], centres / edges[-1])
    _steps(canvas, box, ends, run.events_shown)
    caption = subject.caption(start, run.values("rank", run.last), run.last)
    canvas.paragraph(Box(MAIN.left, box.bottom + 48, MAIN.width, 0), caption, SMALL, colours.muted, most=3)
    modules = plural(len(run.modules), "module")
    alt = f"Map of the rank of {modules} over steps, {subject.title}. {caption} {subject.answers}"
    return subject.shared(name, "png", png(canvas.image, subject.title, alt), alt)


def _outline(canvas: Canvas, corners: tuple[int, int, int, int]) -> None:
    """Draw the outline of what is known to need rank around left, top, right and bottom."""
    left, top, right, bottom = corners
    canvas.draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), outline=canvas.colours.needed, width=2)


def _heading(subject: Subject, canvas: Canvas, words: str, ranks: np.ndarray) -> float:
    """Draw the title of what is on the right, its colours and what an outline means; return the strongest's rank."""
    highest = max(1.0, float(np.nanmax(ranks))) if np.isfinite(ranks).any() else 1.0
    end = scale_end("rank", uniform_rank(subject.run.summary), len(ranks)) or highest
    colours, y = canvas.colours, MAIN.top + 20
    canvas.text((MAIN.left, y), words, font(ABOUT, BOLD), colours.text)
    bar = Box(MAIN.right - 150, y - 14, 110, 14)
    canvas.cells(bar, np.tile(np.linspace(0, 1, bar.width), (bar.height, 1)))
    canvas.draw.rectangle((bar.left, bar.top, bar.right - 1, bar.bottom - 1), outline=colours.hairline)
    canvas.text((bar.left - 8, y - 1), "0", font(SMALL), colours.muted, "rs")
    canvas.text((bar.right + 8, y - 1), f"{end:.0f}{'+' if highest > end else ''}", font(SMALL), colours.muted)
    if subject.needed.any():
        right = bar.left - 48
        canvas.text((right, y - 1), NEEDED, font(SMALL), colours.muted, "rs")
        left = round(right - font(SMALL).getlength(NEEDED)) - 24
        _outline(canvas, (left, bar.top + 2, left + 10, bar.top + 12))
    return end


def _places(edges: np.ndarray, pixels: int) -> np.ndarray:
    """Return for each pixel between the first and the last edge in which interval it is."""
    middles = edges[0] + (np.arange(pixels) + 0.5) / pixels * (edges[-1] - edges[0])
    return np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, len(edges) - 2)


def _groups(canvas: Canvas, box: Box, groups: pd.Series, centres: np.ndarray) -> None:
    """Name the groups of rows at the left of a box; of names closer than a line the first is drawn."""
    last = -np.inf
    rows = list(zip(groups, centres.tolist(), strict=True))
    for name, members in groupby(rows, key=lambda row: row[0]):
        inside = [centre for _, centre in members]
        y = box.top + box.height * sum(inside) / len(inside)
        if y - last >= SMALL:
            canvas.text((box.left - 12, y), one_line(name, 10), font(SMALL), canvas.colours.text, "rm")
            last = y


def _steps(canvas: Canvas, box: Box, ends: np.ndarray, events: Sequence[int]) -> None:
    """Draw the steps below a box, and a tick below it where rank moved."""
    colours, first, last = canvas.colours, float(ends[0]), float(ends[-1])
    at = [box.left + box.width * (event + 0.5 - first) / (last - first) for event in events]
    for x in at:
        canvas.draw.line((x, box.bottom + 3, x, box.bottom + 9), fill=colours.second, width=2)
    typeface, y = font(SMALL), box.bottom + 28
    canvas.text((box.left, y), f"step {round(first + 0.5):,}", typeface, colours.muted)
    canvas.text((box.right, y), f"step {round(last - 0.5):,}", typeface, colours.muted, "rs")
    if at:
        middle = (box.left + box.right) / 2
        canvas.text((middle, y), plural(len(at), "reallocation"), typeface, colours.second, "ms")


# --- the moving picture


def moving_picture(subject: Subject, colours: Palette, progress: Progress = untold) -> Shared | Missing:
    """Return the rank of each module step by step, with the answers, as a GIF of at most `canvas.MOST_BYTES`.

    Args:
        subject: the run.
        colours: of the mode.
        progress: is told after each frame.
    """
    name, run = "Moving picture", subject.run
    if reason := no_ranks(run):
        return Missing(name, reason)
    ranks = ModelReplay().data(RunView(run.folder, run, run.store)).ranks
    values, steps = np.nan_to_num(ranks.to_numpy(float)), [int(step) for step in ranks.columns]
    if not values.size or not (np.diff(values, axis=1) != 0).any():
        until = "yet" if run.summary.status in run_summary.ACTIVE else "in this run"
        return Missing(name, f"No rank has moved {until}, so there is nothing to play.")
    frames, drawn = [], list(_frames(subject, steps, values, colours))
    for done, draw in enumerate(drawn, 1):
        frames.append(in_palette(draw(), colours))
        progress(done, len(drawn))
    caption = subject.caption(values[:, 0], values[:, -1], steps[-1])
    alt = (
        f"The rank of {plural(len(run.modules), 'module')} from step {steps[0]:,} to {steps[-1]:,}, {subject.title}. "
        f"{caption} {subject.answers}"
    )
    content, _ = gif(frames, alt)
    return subject.shared(name, "gif", content, alt)


def _frames(
    subject: Subject, steps: Sequence[int], values: np.ndarray, colours: Palette
) -> Iterator[Callable[[], Image.Image]]:
    """Yield what draws each frame: at most `MOST_FRAMES` of the steps, those at which rank moved first."""
    run, grid, background = subject.run, grid_of(subject.run.modules), _framed(subject, colours)
    every = np.stack([grid.of(values[run.modules["position"], place]) for place in range(len(steps))])
    end = _heading(subject, background, "Rank of each module", every)
    needed = grid.of(subject.needed.astype(float)) > 0
    for place in _chosen(every):
        caption = subject.caption(values[:, 0], values[:, place], steps[place])
        moved = np.nan_to_num(every[place] - every[max(0, place - 1)]) != 0
        state = ModelAtStep(every[place], moved, needed, end, steps[place], steps[-1], caption)
        yield partial(_frame, background, grid, state, run.events_shown)


def _chosen(every: np.ndarray) -> list[int]:
    """Return which of the recorded states are frames, in their order: first and last, moves, and others evenly."""
    n = len(every)
    moves = [place for place in range(1, n) if (np.nan_to_num(every[place]) != np.nan_to_num(every[place - 1])).any()]
    even = np.linspace(0, n - 1, min(n, MOST_FRAMES)).round().astype(int).tolist()
    first = list(dict.fromkeys([0, n - 1, *moves, *even]))
    return sorted(first[:MOST_FRAMES])


class ModelAtStep(NamedTuple):
    """The model in one frame.

    Attributes:
        cells: rank of each cell.
        moved: which of them have another rank than in the frame before.
        needed: which of them are known to need rank.
        end: rank of the strongest colour.
        step: of the frame.
        last: step of the last frame.
        caption: what has moved until now.
    """

    cells: np.ndarray
    moved: np.ndarray
    needed: np.ndarray
    end: float
    step: int
    last: int
    caption: str


def _frame(background: Canvas, grid: Grid, state: ModelAtStep, events: Sequence[int]) -> Image.Image:
    """Return one frame."""
    canvas, colours = background.copy(), background.colours
    room = Box(MAIN.left + 92, MAIN.top + 44, MAIN.width - 92, 258)
    wide, high = min(96.0, room.width / len(grid.layers)), min(52.0, room.height / len(grid.kinds))
    for row, kind in enumerate(grid.kinds):
        if row % ceil(SMALL / high) == 0:
            place = (room.left - 12, room.top + (row + 0.5) * high)
            canvas.text(place, one_line(kind, 10), font(SMALL), colours.text, "rm")
    gap = 2 if min(wide, high) > 8 else 0
    for (row, column), rank in np.ndenumerate(state.cells):
        if not np.isfinite(rank):
            continue
        left, top = round(room.left + column * wide), round(room.top + row * high)
        size = round(room.left + (column + 1) * wide) - left - gap, round(room.top + (row + 1) * high) - top - gap
        share = round(min(1.0, float(rank) / state.end) * LEVELS) / LEVELS
        cell = _cell(colours, (max(1, size[0]), max(1, size[1])), f"{rank:.0f}", share, bool(state.moved[row, column]))
        canvas.image.paste(cell, (left, top))
        if state.needed[row, column]:
            _outline(canvas, (left, top, left + size[0] - 1, top + size[1] - 1))
    _layer_names(canvas, grid.layers, (room.left, round(room.top + high * len(grid.kinds))), wide)
    _progress(canvas, state, events)
    return canvas.image


@lru_cache(maxsize=1024)
def _cell(colours: Palette, size: tuple[int, int], words: str, share: float, has_moved: bool) -> Image.Image:
    """Return a module as a rectangle: its rank where there is room for it, framed where that has moved."""
    fill = theme.shade(colours, share)
    canvas = Canvas(colours, Image.new("RGB", size, fill))
    border, width = (colours.second, 3) if has_moved else (colours.hairline, 1)
    canvas.draw.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=border, width=width if min(size) > 8 else 1)
    if size[0] >= 18 and size[1] >= 14:
        typeface = font(int(np.clip(min(size[0] / 1.8, size[1] / 1.5), 9, 22)))
        canvas.text((size[0] / 2, size[1] / 2), words, typeface, theme.ink_on(colours, fill), "mm")
    return canvas.image


def _layer_names(canvas: Canvas, names: Sequence[str], corner: tuple[int, int], wide: float) -> None:
    """Name the layers below their columns, as many as there is room for."""
    left, y = corner[0], corner[1] + 20
    canvas.text((left - 12, y), "layer", font(SMALL), canvas.colours.muted, "rs")
    for column, name in enumerate(names):
        if column % ceil(34 / wide) == 0:
            canvas.text((left + (column + 0.5) * wide, y), name, font(SMALL), canvas.colours.muted, "ms")


def _progress(canvas: Canvas, state: ModelAtStep, events: Sequence[int]) -> None:
    """Draw how far training is, where rank moves, and what has moved."""
    colours, bar = canvas.colours, Box(MAIN.left, 534, MAIN.width, 6)
    canvas.text((bar.left, bar.top - 14), f"Step {state.step:,} of {state.last:,}", font(22, BOLD), colours.text)
    canvas.draw.rectangle((bar.left, bar.top, bar.right, bar.bottom), fill=colours.hairline)
    reach = bar.left + bar.width * state.step / max(1, state.last)
    canvas.draw.rectangle((bar.left, bar.top, reach, bar.bottom), fill=colours.accent)
    for event in events:
        x = bar.left + bar.width * event / max(1, state.last)
        canvas.draw.line((x, bar.top - 4, x, bar.bottom + 4), fill=colours.second, width=2)
    canvas.paragraph(Box(bar.left, bar.bottom + 14, bar.width, 0), state.caption, SMALL, colours.muted, most=3)


# --- what a language model wrote


def texts_picture(subject: Subject, colours: Palette) -> Shared | Missing:
    """Return a prompt with its text at the first and at the last evaluation, as PNG."""
    name, run = "Before and after", subject.run
    steps = GeneratedTexts().data(RunView(run.folder, run, run.store))
    if not steps:
        return Missing(name, "" if not run_summary.writes(run.summary) else "The run has not recorded any texts.")
    first, last = min(steps), max(steps)
    if first == last:
        return Missing(name, f"The run has recorded its texts once, at step {last:,}: there is no before and after.")
    pair = chosen_pair(steps[first], steps[last])
    if pair is None:
        return Missing(name, "No text that changed can be drawn. The report has all texts.")
    canvas = _framed(subject, colours, has_side=False)
    before, after = pair
    width = (WIDTH - 2 * MARGIN - 24) // 2
    y = _written(canvas, Box(MARGIN, 150, WIDTH - 2 * MARGIN, 0), "Prompt", after.prompt, most=4) + 16
    marks = {True: ", correct", False: ", not correct", None: ""}
    start = "before training" if first == 0 else f"at step {first:,}"
    ends = (
        (f"Text {start}{marks[before.right]}", before.text),
        (f"Text at step {last:,}{marks[after.right]}", after.text),
    )
    for left, (label, text) in zip((MARGIN, WIDTH - MARGIN - width), ends, strict=True):
        frame = (left, y, left + width, 560)
        canvas.draw.rounded_rectangle(frame, 10, fill=colours.sunken, outline=colours.hairline)
        _written(canvas, Box(left + 18, y + 10, width - 36, 0), label, text, most=max(1, (545 - y - 36) // 26))
    _foot(canvas, subject, conclusion(steps))
    alt = (
        f"A text of {subject.title} {start} and at step {last:,}. Prompt: {one_line(after.prompt, 300)} "
        f"Before: {one_line(before.text, 300) or '(nothing)'} After: {one_line(after.text, 300) or '(nothing)'} "
        f"{subject.answers}"
    )
    return subject.shared(name, "png", png(canvas.image, subject.title, alt), alt)


def _written(canvas: Canvas, box: Box, label: str, text: str, most: int) -> int:
    """Draw a text under its label and return where it ends."""
    colours = canvas.colours
    y = canvas.paragraph(box, label, SMALL, colours.muted)
    return canvas.paragraph(_below(box, y + 2), text.strip() or "(nothing)", ABOUT, colours.text, most=most)


def _foot(canvas: Canvas, subject: Subject, sentence: str) -> None:
    """Draw what all texts show, and the metric and the verdict, below the text that is drawn."""
    box, lines = Box(MARGIN + 110, 574, WIDTH - 2 * MARGIN - 110, 0), list[str]()
    for words, most in ((sentence, 1), (subject.answers, 2)):
        lines += wrapped(words, font(SMALL), box.width, most)
    canvas.paragraph(box, "\n".join(lines), SMALL, canvas.colours.muted, most=3)


def chosen_pair(before: Sequence[Generated], after: Sequence[Generated]) -> tuple[Generated, Generated] | None:
    """Return the texts of one prompt, before and after, that are fit to be shown; None where there is none.

    First those of which only the later is correct, then others that changed; those that the typeface lacks characters
    for are left out.
    """
    first = {text.row: text for text in before}
    pairs = [(first[text.row], text) for text in after if text.row in first and first[text.row].text != text.text]
    legible = [
        pair for pair in pairs if all(_is_legible(text) for text in (pair[1].prompt, pair[0].text, pair[1].text))
    ]
    legible.sort(key=lambda pair: not (pair[1].right and not pair[0].right))
    return next(iter(legible), None)


def _is_legible(text: str) -> bool:
    return all(is_drawable(character) for character in text if not character.isspace())


def pictures_of(subject: Subject, colours: Palette, progress: Progress = untold) -> Iterator[Shared | Missing]:
    """Yield each picture of a run, or why there is none; those that a run of its sort never has are left out."""
    for draw in (map_picture, partial(moving_picture, progress=progress), texts_picture):
        one = draw(subject, colours)
        if isinstance(one, Shared) or one.reason:
            yield one
