"""What is shared of a run: pictures with the verdict in them, a moving one that fits, or a sentence in their place."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dynlora.kinds.train.panels.texts import Generated
from dynlora.store.writer import RunWriter
from dynlora.viz.kit import theme
from dynlora.viz.report import canvas, subject_of
from dynlora.viz.report.pictures import (
    MAIN,
    Missing,
    Shared,
    chosen_pair,
    map_picture,
    moving_picture,
    pictures_of,
    texts_picture,
)
from tests.command_line import document, run
from tests.viz.runs import HOSTILE, N_MODULES, make_run, planted

RUN = "20260101-000000-00000001"


def opened(one: Shared | Missing | None) -> Any:
    assert isinstance(one, Shared), one
    return Image.open(io.BytesIO(one.content))


def of_name(folder: Path, name: str) -> Shared | Missing | None:
    return next((one for one in pictures_of(subject_of(folder), theme.LIGHT) if one.name == name), None)


def colours_of(image: Any) -> set[str]:
    """Return the colours of the ranks, without those of the bar that explains them."""
    part = image.convert("RGB").crop((MAIN.left, MAIN.top + 40, MAIN.right, MAIN.top + 300))
    return {"#{:02X}{:02X}{:02X}".format(*colour) for _, colour in part.getcolors(2**20) or []}


def of_rank(rank: float, colours: theme.Palette = theme.LIGHT) -> str:
    """Return the colour of a rank: the scale ends at twice the uniform rank of every run, here 4."""
    return theme.shade(colours, round(rank / 8 * canvas.LEVELS) / canvas.LEVELS).upper()


def is_drawn(rank: int, image: Any) -> bool:
    """Say whether the cells of a frame have the colour of a rank, or the nearest of the 256 that frames share."""
    own = [int(of_rank(rank)[i : i + 2], 16) for i in (1, 3, 5)]
    others = ([int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours_of(image))
    return any(max(abs(a - b) for a, b in zip(own, other, strict=True)) < 6 for other in others)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that moved rank, beside three seeds of it and of plain LoRA: there is a verdict on it."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        for place, strategy in enumerate(("dynamic", "lora")):
            make_run(
                folder,
                run_id=f"{RUN[:-2]}{place}{seed}",
                strategy=strategy,
                seed=seed,
                extras=True,
                gates=False,
                moves=strategy == "dynamic",
                text="a run",
            )
    return folder / f"{RUN[:-2]}00"


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_the_map_has_the_ranks_and_says_the_metric_and_the_verdict(judged: Path, colours: theme.Palette) -> None:
    subject = subject_of(judged)
    one = map_picture(subject, colours)
    image = opened(one)
    assert image.size == (canvas.WIDTH, canvas.HEIGHT)
    assert {of_rank(rank, colours) for rank in (3, 4, 5)} <= colours_of(image)
    assert colours.panel in colours_of(image)
    assert image.text["Title"] == "a run"
    assert image.text["Description"] == one.alt  # pyright: ignore[reportAttributeAccessIssue]
    for words in ("a run", "rank moved from query", subject.strip.metric.answer, subject.strip.verdict.answer):
        assert words in image.text["Description"]
    assert "over lora" in subject.strip.verdict.answer


def test_the_verdict_and_the_name_are_drawn(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    text = canvas.Canvas.text
    monkeypatch.setattr(
        canvas.Canvas, "text", lambda self, place, words, *more: drawn.append(words) or text(self, place, words, *more)
    )
    subject = subject_of(judged)
    for draw in (map_picture, moving_picture):
        drawn.clear()
        assert isinstance(draw(subject, theme.LIGHT), Shared)
        assert "a run" in drawn
        drawn_text = " ".join(drawn)
        assert subject.strip.metric.answer in drawn_text
        for answer in (subject.strip.metric.basis, subject.strip.verdict.answer, subject.strip.verdict.basis):
            assert answer in drawn_text


def test_the_moving_picture_plays_the_ranks_from_the_first_step_to_the_last(judged: Path) -> None:
    progress: list[tuple[int, int]] = []
    one = moving_picture(subject_of(judged), theme.LIGHT, lambda done, of: progress.append((done, of)))
    image = opened(one)
    assert image.format == "GIF"
    assert len(one.content) <= canvas.MOST_BYTES  # pyright: ignore[reportAttributeAccessIssue]
    assert image.n_frames == len(progress) == progress[-1][1] > 10
    assert [done for done, _ in progress] == list(range(1, len(progress) + 1))
    assert image.info["loop"] == 0
    assert b"over lora" in image.info["comment"]
    assert [rank for rank in (3, 4, 5) if is_drawn(rank, image)] == [4]
    assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255), "the panel keeps its colour"
    image.seek(image.n_frames - 1)
    assert image.info["duration"] == canvas.LAST_MS
    assert [rank for rank in (3, 4, 5) if is_drawn(rank, image)] == [3, 4, 5]


def test_the_same_run_gives_the_same_files(judged: Path) -> None:
    subject = subject_of(judged)
    assert map_picture(subject, theme.LIGHT) == map_picture(subject, theme.LIGHT)
    assert moving_picture(subject, theme.LIGHT) == moving_picture(subject, theme.LIGHT)


def noise(frames: int) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    shapes = draw.integers(0, 256, (frames, 90, 320, 3), dtype=np.uint8)
    return [canvas.in_palette(Image.fromarray(pixels), theme.LIGHT) for pixels in shapes]


def test_frames_are_left_out_until_the_file_fits_and_it_takes_as_long() -> None:
    frames = noise(16)
    whole, n = canvas.gif(frames, "x")
    assert n == 16
    small, left = canvas.gif(frames, "x", len(whole) // 3)
    assert len(small) <= len(whole) // 3
    assert 2 < left < 8
    played: Any = Image.open(io.BytesIO(small))
    assert played.n_frames == left
    total = 0
    for frame in range(left):
        played.seek(frame)
        total += played.info["duration"]
    assert total == pytest.approx(canvas.FIRST_MS + canvas.LAST_MS + 14 * canvas.FRAME_MS, rel=0.15)


def test_at_last_the_picture_is_made_smaller() -> None:
    whole, _ = canvas.gif(noise(2), "x")
    small, left = canvas.gif(noise(2), "x", len(whole) // 2)
    assert len(small) <= len(whole) // 2
    assert left == 2
    assert Image.open(io.BytesIO(small)).size == (160, 45)


def test_nothing_is_played_of_a_run_in_which_nothing_moved(runs_dir: Path) -> None:
    folder = make_run(runs_dir, strategy="lora", moves=False)
    one = of_name(folder, "Moving picture")
    assert one == Missing("Moving picture", "No rank has moved in this run, so there is nothing to play.")
    drawn = of_name(folder, "Map")
    assert "No rank has moved up to step 40" in opened(drawn).text["Description"]
    assert of_name(folder, "Before and after") is None, "it writes no texts"


def test_a_queued_and_an_imported_run_have_a_sentence_in_place_of_pictures(runs_dir: Path) -> None:
    queued = make_run(runs_dir, state="queued", steps=0)
    assert all(isinstance(one, Missing) for one in pictures_of(subject_of(queued), theme.LIGHT))
    meta = {"name": "from a tracker", "strategy": None, "model": None, "data": None, "config": {}, "params": {}}
    folder = RunWriter.create(runs_dir, run_id=f"{RUN[:-1]}2", config_yaml="{}\n", meta=meta, max_steps=3)
    writer = RunWriter.open(folder, resume_from=None)
    for step in range(4):
        writer.scalar("loss", "train", step, 1.0 / (step + 1))
        writer.progress(step)
    writer.finish("finished", None)
    made = list(pictures_of(subject_of(folder), theme.LIGHT))
    assert [isinstance(one, Missing) for one in made] == [True, True]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=str(at), marks=() if at in (0, len(HOSTILE) - 1) else pytest.mark.torture)
        for at, text in enumerate(HOSTILE)
    ],
)
def test_any_text_can_be_drawn(text: str, runs_dir: Path) -> None:
    folder = make_run(runs_dir, text=text, extras=True, own=True)
    for one in pictures_of(subject_of(folder), theme.LIGHT):
        alt = opened(one).info.get("comment", b"").decode(errors="ignore") or opened(one).text["Description"]
        assert "\n" not in alt
        assert "\u202e" not in alt
        assert "\x00" not in alt


def text(row: int, words: str, right: bool | None = None, prompt: str = "How many shells?") -> Generated:
    return Generated(row, "", prompt, "", words, ended=True, right=right)


def test_the_pair_that_is_drawn_changed_became_right_and_can_be_drawn() -> None:
    first = [text(row, "before", right=False) for row in range(5)]
    last = [text(0, "before", right=True), text(1, "after", right=False)]
    assert chosen_pair(first, last) == (first[1], last[1])
    right = text(4, "10 shells", right=True)
    foreign = text(3, "十個貝殼", right=True)
    assert chosen_pair(first, [*last, foreign, right]) == (first[4], right)
    assert chosen_pair(first, [last[0], foreign]) is None
    assert chosen_pair([], []) is None


def with_texts(runs_dir: Path, *steps: tuple[int, Sequence[str]]) -> Path:
    facts = {"task_facts": {"generates": True, "loss_unit": "nats"}}
    folder = make_run(runs_dir, state="stopped", about=facts, gates=False)
    writer = RunWriter.open(folder, resume_from=40)
    for step, texts in steps:
        rows = [
            {"row": row, "prompt": "How many?", "text": words, "ended": True, "right": words == "10"}
            for row, words in enumerate(texts)
        ]
        writer.event(step, "generations", [], {"rows": rows})
    writer.finish("finished", None)
    return folder


def test_the_text_of_a_language_model_is_drawn_before_and_after(runs_dir: Path) -> None:
    folder = with_texts(runs_dir, (0, ["I think it is many", "same"]), (40, ["10", "same"]))
    one = texts_picture(subject_of(folder), theme.LIGHT)
    alt = opened(one).text["Description"]
    assert "before training and at step 40" in alt
    assert "Prompt: How many? Before: I think it is many After: 10" in alt


def test_without_the_typeface_pillows_own_draws_ascii(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = (canvas.font, canvas.is_drawable, canvas.wrapped)
    assert canvas.drawable("−0.3 · é → 中") == "−0.3 · é → ?"
    monkeypatch.setattr(canvas, "_typeface", lambda: None)
    for cache in caches:
        cache.cache_clear()
    try:
        assert canvas.drawable("−0.3 · é → 中") == "-0.3 · e ? ?"
        assert isinstance(map_picture(subject_of(judged), theme.LIGHT), Shared)
    finally:
        for cache in caches:
            cache.cache_clear()


@pytest.mark.parametrize("width", [40, 200, 1000])
def test_a_paragraph_keeps_its_words_and_its_width(width: int) -> None:
    typeface, words = canvas.font(18), "rank moved from query to value\nand averylongwordthatfitsnowhere stays"
    lines = canvas.wrapped(words, typeface, width, 99)
    assert "".join("".join(lines).split()) == "".join(words.split())
    assert all(typeface.getlength(line) <= width for line in lines)
    cut = canvas.wrapped(words, typeface, width, 1)
    assert len(cut) == 1
    assert cut[0].endswith("…")
    assert typeface.getlength(cut[0]) <= width


def test_no_path_of_this_machine_is_in_a_picture(runs_dir: Path) -> None:
    about = {"model": "/home/someone/secret/own-model", "data": "/home/someone/secret/tickets.csv"}
    folder = make_run(runs_dir, about=about)
    for one in pictures_of(subject_of(folder), theme.LIGHT):
        assert isinstance(one, Shared)
        assert b"someone" not in one.content
        assert str(runs_dir).encode() not in one.content


def test_the_command_writes_every_file_and_says_what_there_is_none_of(judged: Path, tmp_path: Path) -> None:
    out = tmp_path / "to" / "share"
    report = document(run(judged.parent, "share", judged.name, "--out", str(out), "--json"))
    assert sorted(report["files"]) == sorted(path.name for path in out.iterdir())
    assert {path.suffix for path in out.iterdir()} == {".png", ".gif", ".html"}
    assert all((out / name).stat().st_size == file["bytes"] for name, file in report["files"].items())
    assert report["missing"] == {}
    plain = f"{RUN[:-2]}10"
    report = document(run(judged.parent, "share", plain, "--out", str(out), "--dark", "--json"))
    assert list(report["missing"]) == ["Moving picture"]
    with Image.open(out / f"dynlora-{plain}-map.png") as image:
        assert image.getpixel((2, 2)) == tuple(int(theme.DARK.panel[i : i + 2], 16) for i in (1, 3, 5))
    refused = run(judged.parent, "share", judged.name, "--out", str(out / f"dynlora-{plain}-map.png"))
    assert refused.exit_code == 2


def test_ranks_lie_where_their_module_is(judged: Path) -> None:
    """Module 0, the first of its kind, gives a component to module 2, the first of another."""
    image = opened(map_picture(subject_of(judged), theme.LIGHT)).convert("RGB")
    left, right, top, bottom = 510, 1150, 202, 510
    rows = [image.getpixel((right, y)) for y in range(top, bottom)]
    last: list[Any] = [colour for colour, after in pairwise([*rows, None]) if colour != after]
    ranks = [of_rank(rank) for rank in (3, 4, 5)]
    seen = ["#{:02X}{:02X}{:02X}".format(*colour) for colour in last]
    assert [ranks.index(colour) + 3 for colour in seen if colour in ranks] == [3, *[4] * 5, 5, *[4] * 5]
    before = {image.getpixel((left, y)) for y in range(top, bottom)}
    assert before == {tuple(int(of_rank(4)[i : i + 2], 16) for i in (1, 3, 5)), (255, 255, 255)}
    assert N_MODULES == 12


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_pictures_outline_the_modules_that_need_rank_and_count_their_components(
    tmp_path: Path, judged: Path, colours: theme.Palette
) -> None:
    subject = subject_of(make_run(tmp_path, about=planted(2, 5)))
    words = "9 of 48 components are in the 2 modules that need them (uniform LoRA: 8 of 48)."
    assert {of_rank(rank, colours) for rank in (3, 4, 5)} <= colours_of(opened(map_picture(subject, colours)))
    for draw in (map_picture, moving_picture):
        one = draw(subject, colours)
        assert colours.needed in colours_of(opened(one))
        assert words in one.alt  # pyright: ignore[reportAttributeAccessIssue]
        assert colours.needed not in colours_of(opened(draw(subject_of(judged), colours)))


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([], "The run has not recorded any texts."),
        ([(0, ["a"])], "The run has recorded its texts once, at step 0: there is no before and after."),
        ([(0, ["a"]), (40, ["a"])], "No text that changed can be drawn. The report has all texts."),
    ],
    ids=["none", "once", "the same"],
)
def test_a_language_model_without_such_texts_says_why(
    steps: list[tuple[int, list[str]]], reason: str, runs_dir: Path
) -> None:
    folder = with_texts(runs_dir, *steps)
    assert texts_picture(subject_of(folder), theme.LIGHT) == Missing("Before and after", reason)
