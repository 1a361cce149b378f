# ruff: noqa: E501
# (lists of odd texts read better in long lines)
"""Feed generated inputs to everything that reads what others wrote, in a process whose every step is watched.

`python -m tests.attack.fuzzing --count N --seed S FOLDER` prints a JSON report: inputs by kind, how many were refused in
a sentence, what crashed, and which files, processes or addresses outside the folder were touched.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl  # noqa: F401  (reads the list of file types of the system, once)

import dynlora.peft_adapter
from dynlora import config_files
from dynlora.config import parse_config
from dynlora.data_files import scan
from dynlora.errors import DynloraError
from dynlora.jobs import uploads
from dynlora.store import catalogue, measurements, notes, queries, schema, search, summary
from dynlora.store.reader import RunReader
from dynlora.viz.launch import data_check
from tests.peft_adapter.files import small_adapter
from tests.store.builder import finished_run

STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
)
CONNECTS = ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request")
PATHS = (
    "open",
    "sqlite3.connect",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.chown",
    "os.truncate",
    "os.listdir",
    "os.scandir",
    "shutil.rmtree",
    "shutil.move",
    "shutil.copyfile",
)
SOURCES = (
    "__reduce__",
    "../",
    "..\\",
    "\x00",
    "\u202e",
    "=cmd()",
    "<script>",
    "$(id)",
    "';--",
    "%00",
    "%2e%2e%2f",
    "\x1b[2J",
    "!!python/object/apply:os.system ['id']",
    "9" * 400,
    "-1",
    "1e999",
    "nan",
    "NaN",
    "null",
    "true",
    "[" * 50,
    "{" * 50,
    "&a [*a]",
    "\ud800",
    "é",
    "\ufeff",
    "a" * 3000,
    ".",
    "..",
    "CON",
    "",
    " ",
    "\n",
    "\t",
    "'",
    '"',
    "\\",
)
WORDS = (
    "accuracy",
    "tag:",
    "and",
    "or",
    "not",
    "(",
    ")",
    ">",
    "<=",
    "=",
    "!=",
    "~",
    "0.85",
    "status",
    "train.lr",
    "seed",
    "name",
    "model.name",
    "strategy",
    "adapter.rank",
    "data.path",
    "log.every",
)


class Watch:
    """What a process does to the outside; only what happens while `is_on`."""

    def __init__(self, folder: Path) -> None:
        self.is_on = False
        self.touched: Counter[str] = Counter()
        self._allowed = (str(folder), os.devnull)
        package = str(Path(__file__).resolve().parents[2] / "dynlora")
        self._readable = tuple(os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, package))
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in STARTS or event in CONNECTS or event == "pickle.find_class":
            self.touched[f"{event} {arguments!r}"[:300]] += 1
        elif event in PATHS:
            self._path(event, arguments)

    def _path(self, event: str, arguments: tuple[Any, ...]) -> None:
        for path in arguments[:1] if event == "open" else [item for item in arguments if isinstance(item, str | bytes)]:
            if not isinstance(path, str | bytes | os.PathLike):
                continue  # a descriptor that was opened before
            text = os.fsdecode(path).removeprefix("file:").partition("?")[0]
            if text == ":memory:":
                continue
            place = os.path.realpath(text) if "\x00" not in text else text
            reading = event in ("open", "os.listdir", "os.scandir") and (event != "open" or not _writes(arguments))
            if not place.startswith(self._allowed) and not (reading and place.startswith(self._readable)):
                self.touched[f"{event} {place}"[:300]] += 1


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    return bool((mode and set(mode) & set("wax+")) or (flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))


class Inputs:
    """Generated inputs, the same for a seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def text(self) -> str:
        """Return a text of odd pieces, words of ours and noise."""
        draw = self.draw
        noise = "".join(
            chr(draw.choice((draw.randrange(32, 127), draw.randrange(0x300)))) for _ in range(draw.randrange(9))
        )
        pieces = [draw.choice((*SOURCES, *WORDS, *WORDS, noise)) for _ in range(draw.choice((1, 1, 2, 3, 6)))]
        return draw.choice(("", " ", " ", ".")).join(pieces)

    def value(self, depth: int = 0) -> Any:
        """Return a value of any kind that JSON and YAML know."""
        draw = self.draw
        kind = draw.randrange(9 if depth < 4 else 6)
        plain = (
            None,
            draw.random() < 0.5,
            draw.randrange(-9, 99),
            draw.choice((1e308, -0.0, 1e-9, 2**70, float("inf"))),
        )
        if kind < 4:
            return plain[kind]
        if kind < 6:
            return self.text()
        if kind == 6:
            return [self.value(depth + 1) for _ in range(draw.randrange(4))]
        return {self.text(): self.value(depth + 1) for _ in range(draw.randrange(4))}

    def changed(self, content: bytes) -> bytes:
        """Return bytes with bits flipped, a part cut out, put in or doubled."""
        draw, data = self.draw, bytearray(content)
        for _ in range(draw.choice((1, 1, 2, 8))):
            place = draw.randrange(len(data) + 1)
            match draw.randrange(5):
                case 0 | 1 if data:
                    data[place % len(data)] ^= 1 << draw.randrange(8)
                case 2:
                    del data[place : place + draw.choice((1, 4, 64, 4096))]
                case 3:
                    data[place:place] = self.text().encode("utf-8", "surrogatepass")
                case _:
                    data[place:place] = data[place : place + draw.randrange(100)]
        return bytes(data)


class Targets:
    """What is fed, by name; each takes one input and either works or raises an error of dynlora's."""

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self.runs, self.inputs = folder / "runs", inputs
        self.runs.mkdir()
        self.run = finished_run(self.runs, 12, "20260101-000000-00000001")
        self.database = (self.run / "run.db").read_bytes()
        self.rows = [summary.run_summary(self.run).model_dump()]
        self.adapter = small_adapter(self.runs / ".uploads" / "adapter", 1)
        self.files = {path: path.read_bytes() for path in self.adapter.iterdir()}
        effect = {"modules": [0], "loss": 1.0, "delta": 0.1, "low": 0.0, "high": 0.2, "changed": 0.1, "by_group": [0.1]}
        values = {
            "which": "last",
            "step": 12,
            "rows": 4,
            "loss": 0.9,
            "groups": ["a"],
            "n_modules": 3,
            "effects": [effect],
        }
        knockout_record = measurements.Knockouts.from_values({"format": 1, **values})
        knockout_record.write(self.run / "knockout.json")
        self.knockout = (self.run / "knockout.json").read_bytes()
        self.yaml = self.run / "config.yaml"
        self.scratch = self.runs / ".scratch"
        self.scratch.mkdir()

    def query(self) -> None:
        """A search."""
        text = self.inputs.text()
        search.found_rows(text, self.rows)

    def run_id(self) -> None:
        """The id of a run, as an address or a command names it."""
        folder = schema.run_folder(self.runs, self.inputs.text())
        assert folder.parent == self.runs

    def config(self) -> None:
        """A configuration as values."""
        parse_config(
            {
                self.inputs.draw.choice(
                    ("train", "data", "model", "strategy", "adapter", "log", "seed", "name")
                ): self.inputs.value()
            }
        )

    def override(self) -> None:
        """A `--set`."""
        values: dict[str, Any] = {}
        config_files.set_key(
            values, *config_files.split_override(f"{self.inputs.draw.choice(WORDS)}={self.inputs.text()}")
        )
        parse_config(values)

    def yaml_file(self) -> None:
        """A YAML file."""
        self.yaml.write_bytes(self.inputs.changed(b"seed: 1\ntrain: {steps: 10, lr: 0.1}\nname: &a [x, *a]\n"))
        config_files.load_config(self.yaml)

    def upload(self) -> None:
        """An upload of a table."""
        table = self.inputs.changed(
            b'text,label\n"a, b",good\nc,bad\n'
            if self.inputs.draw.random() < 0.5
            else b'{"text": "a", "label": 1}\n{"text": "b", "label": [2]}\n'
        )
        path = uploads.keep(self.runs, f"{self.inputs.text()}.{self.inputs.draw.choice(uploads.ENDINGS)}", table)
        try:
            scan.look(path, scan.CheckConfig())
            rows = data_check.first_rows(path)
            data_check.preview_rows(rows)
            data_check.label_caption(rows, list(rows.columns)[0])
        finally:
            path.unlink()
            path.parent.rmdir()

    def adapter_folder(self) -> None:
        """An adapter of somebody else's."""
        path = self.inputs.draw.choice(list(self.files))
        path.write_bytes(self.inputs.changed(self.files[path]))
        try:
            dynlora.peft_adapter.read_adapter(self.adapter)
        finally:
            path.write_bytes(self.files[path])

    def knockout_file(self) -> None:
        """What was measured by switching modules off."""
        (self.run / "knockout.json").write_bytes(self.inputs.changed(self.knockout))
        measurements.Knockouts.read(self.run / "knockout.json")

    def small_files(self) -> None:
        """Notes and saved views."""
        content = self.inputs.changed(
            json.dumps({"tags": ["a"], "note": "b", "views": [{"name": "a", "query": "b"}]}).encode()
        )
        for path in (self.run / "notes.json", self.runs / ".views.json"):
            path.write_bytes(content)
        notes.read_notes(self.run)
        notes.read_views(self.runs)

    def store(self) -> None:
        """A run's database: bits, cuts, doubled parts."""
        (self.run / "run.db").write_bytes(self.inputs.changed(self.database))
        try:
            catalogue.run_rows(self.runs)
            with RunReader(self.run) as reader:
                for read in (reader.meta, reader.status, reader.groups, reader.logs, reader.examples, reader.events):
                    read()
                reader.scalars()
                for name in reader.signals():
                    reader.bins(name, 4)
            queries.list_runs(self.runs)
        finally:
            (self.run / "run.db").write_bytes(self.database)


SHARES = {
    "query": 30,
    "run_id": 20,
    "config": 12,
    "override": 12,
    "yaml_file": 8,
    "upload": 2,
    "adapter_folder": 5,
    "knockout_file": 6,
    "small_files": 4,
    "store": 1,
}
"""Inputs of each kind in a hundred; the costly ones are the few."""


def campaign(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Feed `count` inputs and return the report."""
    inputs = Inputs(seed)
    targets, watch = Targets(folder, inputs), Watch(folder)
    tried: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    crashes: dict[str, str] = {}
    crashed = 0
    names = inputs.draw.choices(list(SHARES), list(SHARES.values()), k=count)
    for name in [*SHARES, *names]:  # each once before anything is counted, so that what it imports is imported
        feed: Callable[[], None] = getattr(targets, name)
        tried[name] += 1
        watch.is_on = sum(tried.values()) > len(SHARES)
        try:
            feed()
        except DynloraError:
            refused[name] += 1
        except Exception as error:
            watch.is_on = False  # reading the trace opens the source
            crashed += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            crashes.setdefault(
                f"{name}: {type(error).__name__} in {Path(place.filename).name}:{place.lineno}", str(error)[:300]
            )
        finally:
            watch.is_on = False
    touched = dict(watch.touched.most_common(50))
    return {"tried": tried, "refused": refused, "crashed": crashed, "crashes": crashes, "touched": touched}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    sys.stdout.write(json.dumps(campaign(given.folder.resolve(), given.count, given.seed), indent=1, ensure_ascii=True))
