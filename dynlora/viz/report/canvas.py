"""Pictures to share, drawn without a browser: words in a typeface, bars, grids, and their PNG and GIF files.

The typeface is the one that streamlit brings for its pages; without it Pillow's own serves, which knows ASCII alone.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

WIDTH, HEIGHT, MARGIN = 1200, 675, 44
"""Size of a picture, as chats and slides show one, and the room around what is on it, pixels."""

REGULAR, BOLD = 400, 650
"""Weights of the typeface."""

SPACING = 1.3
"""Distance of two lines, in sizes of the typeface."""

MOST_BYTES = 3_000_000
"""Largest file of a moving picture: what chats and mails take."""

PLAIN = {"–": "-", "−": "-", "’": "'", "“": '"', "”": '"', "…": "..."}
"""What is written for a character that a typeface lacks; of others the letter without its accent, or a ?."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def _typeface() -> Path | None:
    """Return the file of the typeface; None where this version of streamlit brings none that can be read."""
    package = find_spec("streamlit")
    origin = package.origin if package else None
    files = sorted(Path(origin).parent.glob("static/**/SourceSansVF-Upright*")) if origin else []
    for file in files:
        try:
            ImageFont.truetype(file, 20).set_variation_by_axes([REGULAR])
        except OSError:  # FreeType was built without variations, or without the compression of web pages
            continue
        return file
    return None


@lru_cache(maxsize=64)
def font(size: int, weight: int = REGULAR) -> Font:
    """Return the typeface in a size, pixels, and a weight."""
    file = _typeface()
    if file is None:
        return ImageFont.load_default(size)
    made = ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
    made.set_variation_by_axes([weight])
    return made


@lru_cache(maxsize=4096)
def is_drawable(character: str) -> bool:
    """Say whether the typeface has a character; what it lacks is drawn as the mark of a character that nobody has."""
    return _drawn(character) != _drawn("\U0010ffff")


def _drawn(character: str) -> bytes:
    image = Image.new("L", (40, 40))
    ImageDraw.Draw(image).text((8, 8), character, font=font(20), fill=255)
    return image.tobytes()


def drawable(text: str) -> str:
    """Return text with what the typeface lacks written otherwise."""
    return "".join(character if is_drawable(character) else _otherwise(character) for character in text)


def _otherwise(character: str) -> str:
    plain = PLAIN.get(character) or unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or "?"


@lru_cache(maxsize=512)
def wrapped(text: str, typeface: Font, width: float, most: int) -> Sequence[str]:
    """Return text in at most `most` lines of a width, pixels; what is cut ends with dots.

    Args:
        text: with its line ends.
        typeface: that it is drawn in.
        width: of a line.
        most: lines.
    """
    lines = [line for part in drawable(text).splitlines() for line in _broken(part, typeface, width)]
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], _cut(f"{lines[most - 1]}…", typeface, width)]


def _broken(text: str, typeface: Font, width: float) -> Iterator[str]:
    """Yield one line of text in as many as it needs, between words where that is possible."""
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if typeface.getlength(longer) <= width:
            line = longer
            continue
        if line:
            yield line
        line = word
        while typeface.getlength(line) > width and len(line) > 1:
            fits = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or typeface.getlength(line[:n]) <= width)
            yield line[:fits]
            line = line[fits:]
    yield line


def _cut(line: str, typeface: Font, width: float) -> str:
    """Return a line that ends with dots and is not wider than `width`."""
    words = line.rstrip("….,; ")
    while words and typeface.getlength(drawable(f"{words}…")) > width:
        words = words[:-1].rstrip()
    return drawable(f"{words}…")


@dataclass(frozen=True)
class Box:
    """A part of a picture, pixels from its top left corner."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """Its right end."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """Its lower end."""
        return self.top + self.height


class Canvas:
    """A picture that is drawn on.

    Attributes:
        colours: of the mode.
        image: the picture as it is.
        draw: draws lines and shapes on it.
    """

    def __init__(self, colours: Palette, image: Image.Image | None = None):
        """Start with an empty picture of the usual size, or with another one."""
        self.colours = colours
        self.image = Image.new("RGB", (WIDTH, HEIGHT), colours.panel) if image is None else image
        self.draw = ImageDraw.Draw(self.image)

    def copy(self) -> Canvas:
        """Return a picture that looks the same and is drawn on apart."""
        return Canvas(self.colours, self.image.copy())

    def text(self, place: tuple[float, float], words: str, typeface: Font, colour: str, anchor: str = "ls") -> None:
        """Draw one line; `anchor` says which point of it is at the place, as Pillow does."""
        self.draw.text(place, drawable(words), font=typeface, fill=colour, anchor=anchor)

    def paragraph(self, box: Box, words: str, size: int, colour: str, *, weight: int = REGULAR, most: int = 1) -> int:
        """Draw words from the top of a box, as wide as it, and return where they end, pixels from the top.

        Args:
            box: where they are.
            words: with their line ends.
            size: of the typeface.
            colour: of the words.
            weight: of the typeface.
            most: lines.
        """
        typeface, y = font(size, weight), float(box.top)
        for line in wrapped(words, typeface, box.width, most):
            self.text((box.left, y + size), line, typeface, colour)
            y += SPACING * size
        return round(y)

    def cells(self, box: Box, shares: np.ndarray) -> None:
        """Fill a box with the colours of the sequential scale.

        Args:
            box: where they are.
            shares: a fraction from 0 to 1 for each of its pixels, rows by columns; NaN leaves the panel.
        """
        scale = np.array([_rgb(theme.shade(self.colours, level / LEVELS)) for level in range(LEVELS + 1)], np.uint8)
        known = np.isfinite(shares)
        pixels = scale[np.where(known, np.clip(shares, 0, 1) * LEVELS, 0).round().astype(int)]
        pixels[~known] = _rgb(self.colours.panel)
        self.image.paste(Image.fromarray(pixels), (box.left, box.top))


LEVELS = 48
"""Steps of the sequential scale that a picture has."""


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def png(image: Image.Image, title: str, description: str) -> bytes:
    """Return a picture as PNG, with its title and what it says in the file."""
    about = PngInfo()
    for key, words in (("Title", title), ("Description", description), ("Software", "dynlora")):
        about.add_itxt(key, words)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True, pnginfo=about)
    return out.getvalue()


FRAME_MS, FIRST_MS, LAST_MS = 160, 900, 3200
"""How long a frame of a moving picture is seen, the first, and the last."""


def in_palette(image: Image.Image, colours: Palette) -> Image.Image:
    """Return a picture in the colours that all frames of a moving picture share, each pixel in the nearest."""
    palette, nearest = _palette(colours)
    parts = np.asarray(image, np.uint8) >> (8 - BITS)
    made = Image.fromarray(nearest[parts[..., 0], parts[..., 1], parts[..., 2]], "P")
    made.putpalette(palette)
    return made


BITS = 5
"""Bits of each part of a colour by which the nearest of the palette is looked up."""


@lru_cache(maxsize=2)
def _palette(colours: Palette) -> tuple[list[int], np.ndarray]:
    """Return at most 256 colours, and which of them is the nearest to any, by the first bits of its parts.

    They are those of the scale, and those between the panel and all that is written on it.
    """
    scale = [theme.shade(colours, level / LEVELS) for level in range(LEVELS + 1)]
    steps_of = {"text": 60, "muted": 50, "second": 24, "accent": 32, "needed": 8, "hairline": 4}
    inks = [(getattr(colours, name), steps) for name, steps in steps_of.items()]
    ramps = [theme.mixed(colours.panel, ink, step / steps) for ink, steps in inks for step in range(1, steps + 1)]
    every = np.array([_rgb(colour) for colour in [*ramps, *scale, colours.sunken, colours.panel]])
    size = 1 << BITS
    middles = (np.indices((size, size, size)).reshape(3, -1).T + 0.5) * (256 / size)
    distance = (every**2).sum(axis=1) - 2 * middles @ every.T
    nearest = distance.argmin(axis=1).astype(np.uint8).reshape(size, size, size)
    nearest[tuple((every >> (8 - BITS)).T)] = np.arange(len(every))  # a colour of the palette stays, the last of equals
    return every.ravel().tolist(), nearest


def gif(frames: Sequence[Image.Image], description: str, most_bytes: int = MOST_BYTES) -> tuple[bytes, int]:
    """Return frames as a GIF that repeats and rests on the last, and how many of them are in it.

    Every second one is left out, and at last the size halved, until the file is not larger than `most_bytes`.

    Args:
        frames: as `in_palette` returns them, at least one.
        description: what they show, written into the file.
        most_bytes: of the file.
    """
    left = list(frames)
    while len(content := _gif(left, len(frames), description)) > most_bytes:
        if len(left) > 2:
            left = [*left[:-1:2], left[-1]]
        elif left[0].width > 300:
            left = [frame.resize((frame.width // 2, frame.height // 2)) for frame in left]
        else:
            break
    return content, len(left)


def _gif(frames: Sequence[Image.Image], planned: int, description: str) -> bytes:
    """Return frames as a GIF that takes as long as the planned number of frames."""
    pause = FRAME_MS * planned // len(frames)
    durations = [FIRST_MS, *[pause] * (len(frames) - 2), LAST_MS][-len(frames) :]
    out = io.BytesIO()
    frames[0].save(
        out,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        comment=description.encode()[:1000],
        optimize=False,
    )
    return out.getvalue()
