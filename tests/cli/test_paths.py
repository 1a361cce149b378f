"""A path that cannot be used, at every path of every command: an answer or one sentence, and nothing is damaged.

Commands and their paths are found by walking the command line, so that a new one is tested by being there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dynlora.cli.main import main
from dynlora.cli.options import OutFile, OutFolder, PathOrName
from dynlora.errors import ConfigError
from dynlora.jobs import launch
from dynlora.safe_files import write_output
from dynlora.server import serve
from dynlora.training.folder_work import staged
from tests.faults.disk import fill, small_disk
from tests.tiny import tiny_arguments, tiny_rows, write_csv

HAS_PIPES = os.name != "nt"
needs_pipes = pytest.mark.skipif(not HAS_PIPES, reason="there are no pipes, devices and links among files")

RUN = "a-run"
SERVERS = ("answer", "warm")
"""Commands that read requests until their input ends, and take no path."""

RESUMED = (("push",), ("sync",))
"""Commands that leave whole files when they break: the same command completes what was sent."""

SETTINGS = ("data.path", "model.name", "strategy.ranks_from", "strategy.start_from")
"""Settings that name a path; they are given with --set."""


def walked(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below a group with its name, groups that do something themselves too."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield (*above, name), command
            yield from walked(command, (*above, name))
        elif name not in SERVERS:
            yield (*above, name), command


def is_path(option: click.Parameter) -> bool:
    """Say whether an option or argument takes a path."""
    return isinstance(option.type, click.Path | PathOrName)


PATHS = [(name, option) for name, command in walked(main) for option in command.params if is_path(option)] + [
    (name, setting)
    for name, command in walked(main)
    if any(option.name == "overrides" for option in command.params) and name != ("data", "check")
    for setting in SETTINGS
]


FOLDERS = [(name, option) for name, option in PATHS if isinstance(getattr(option, "type", None), OutFolder)]


@pytest.mark.parametrize(("name", "option"), FOLDERS, ids=[" ".join(name) for name, _ in FOLDERS])
def test_a_folder_to_write_is_refused_before_any_work(
    name: tuple[str, ...], option: click.Parameter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`strength` measured for minutes first, and an empty name filled the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for value, problem in (("", "is empty"), ("file", "exists and is a file"), ("full", "exists and is not an empty")):
        if (value, name) == ("full", ("share",)):
            continue  # its files have the run's id in their names, and the current folder is its default
        given = [value] if isinstance(option, click.Argument) else ["absent-run", "--out", value]
        refused = CliRunner().invoke(
            main, [*name, *given, *(["absent-run"] if isinstance(option, click.Argument) else [])]
        )
        assert refused.exit_code == 2
        assert problem in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


NEEDED = ("runs_dir", "port", "budget", "rows", "steps", "draft", "target")
"""Optional parameters that are given too: without them commands take long, or end before they look at a path."""


class Bench:
    """What commands need to get as far as their paths: a run, an adapter, a model, data; and places that are odd."""

    def __init__(self, root: Path, run: Path, model: Path, data: Path) -> None:
        self.root, self.model, self.data = root, model, data
        self.runs = root / "runs"
        shutil.copytree(run, self.runs / RUN)
        self.table = write_csv(root / "table.csv", tiny_rows(12))

    def arguments(self, name: tuple[str, ...], option: Any, path: Path) -> list[str]:
        """Return a command line with a path at one option and what else the command needs."""
        command: click.Command = main
        for part in name:
            assert isinstance(command, click.Group)
            command = command.commands[part]
        words = list(name)
        for parameter in command.params:
            if parameter is option:
                given = [RUN, str(path)] if parameter.name == "targets" else [str(path)]
            elif parameter.name == "overrides" and name != ("data", "check"):
                words += self.settings(name, option, path)
                continue
            else:
                given = self.usual(parameter)
            for value in given:
                words += [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]
        return words

    def settings(self, name: tuple[str, ...], option: Any, path: Path) -> list[str]:
        """Return `--set` for a run of one step, a path in the place of one of them."""
        if name == ("compress",) and not isinstance(option, str):
            return []  # of a run, whose settings are its own
        listed = tiny_arguments(self.model, self.data, "train.steps=1", "log.checkpoint_every=1")
        return [*listed, "--set", f"{option}={path}"] if isinstance(option, str) else listed

    def usual(self, parameter: click.Parameter) -> list[str]:
        """Return what an option has while another one is tried; nothing where its default is good."""
        known: dict[str, list[str]] = {
            "runs_dir": [str(self.runs)],
            "run_id": [RUN],
            "run_ids": [RUN],
            "teachers": [RUN],
            "sources": [RUN],
            "signal": ["rank"],
            "targets": [RUN, str(self.root / "sent")],
            "url": [str(self.root / "sent")],
            "text": ["a film"],
            "support": [str(self.table)],
            "folder": [str(self.root)],
            "source": [str(self.root / "none.db")],
            "path": [str(self.table)],
            "draft": [RUN],
            "target": [RUN],
            "model": [str(self.model)],
            "judge_model": [str(self.model)],
            "data": [str(self.table)],
            "budget": ["0.5"],
            "rows": ["20"],
            "steps": ["2"],
            "port": ["0"],
            "out": [str(self.root / "out.zip")],
        }
        is_needed = parameter.required or parameter.name in NEEDED
        if parameter.name == "out" and not parameter.required:
            is_needed = "folder" in (getattr(parameter, "help", "") or "")  # export does nothing without
        if parameter.name in ("model", "judge_model", "data") and isinstance(parameter.type, PathOrName):
            is_needed = True
        if not is_needed:
            return []
        assert parameter.name in known, f"give a value for {parameter.name}, which the command needs, in `usual`"
        return known[parameter.name]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, trained_run: Path, tiny_bert: Path, tiny_data: Path) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), trained_run, tiny_bert, tiny_data)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Kinds of odd paths that can be made on this machine."""
    possible: list[str] = []
    for kind, make in ODD.items():
        with suppress(pytest.skip.Exception), make(tmp_path_factory.mktemp("kind"), ""):
            possible.append(kind)
    return possible


@contextmanager
def long_name(root: Path, ending: str) -> Iterator[Path]:
    yield root / ("a" * 300 + ending)


@contextmanager
def missing(root: Path, ending: str) -> Iterator[Path]:
    yield root / "not" / f"there{ending}"


@contextmanager
def unknown_home(root: Path, ending: str) -> Iterator[Path]:
    yield Path(f"~nobody-of-this-name/x{ending}")


@contextmanager
def folder(root: Path, ending: str) -> Iterator[Path]:
    path = root / f"folder{ending}"
    path.mkdir()
    (path / "note.txt").write_text("mine")
    yield path


@contextmanager
def pipe(root: Path, ending: str) -> Iterator[Path]:
    os.mkfifo(root / f"pipe{ending}")
    yield root / f"pipe{ending}"


@contextmanager
def device(root: Path, ending: str) -> Iterator[Path]:
    """A device that can be read for ever, made here: whoever damages it damages no other program."""
    path = root / f"device{ending}"
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        path.open("rb").close()
    except PermissionError:
        pytest.skip("only root makes devices")
    yield path


@contextmanager
def link_to_pipe(root: Path, ending: str) -> Iterator[Path]:
    os.mkfifo(root / "far")
    (root / f"link{ending}").symlink_to(root / "far")
    yield root / f"link{ending}"


@contextmanager
def link_loop(root: Path, ending: str) -> Iterator[Path]:
    one, two = root / f"one{ending}", root / "two"
    one.symlink_to(two)
    two.symlink_to(one)
    yield one


@contextmanager
def read_only(root: Path, ending: str) -> Iterator[Path]:
    """A folder that takes nothing: of root only a file system can be closed."""
    if os.geteuid():
        (root / "closed").mkdir(mode=0o500)
        yield root / "closed" / f"new{ending}"
        return
    with mounted(root) as disk:
        if os.system(f"mount -o remount,ro {disk}"):
            pytest.skip("no file system can be made read-only here")
        yield disk / f"new{ending}"


@contextmanager
def full_disk(root: Path, ending: str) -> Iterator[Path]:
    """A disk without room; where none can be mounted, no file may grow."""
    if not os.geteuid():
        with mounted(root) as disk:
            fill(disk)
            yield disk / f"new{ending}"
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        yield root / f"new{ending}"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def mounted(root: Path) -> Iterator[Path]:
    try:
        disk = small_disk(root / "disk")
        with disk as place:
            yield place
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")


ODD: dict[str, Callable[[Path, str], Any]] = {
    "long name": long_name,
    "missing": missing,
    "unknown home": unknown_home,
    "folder": folder,
}
if HAS_PIPES:
    ODD |= {
        "pipe": pipe,
        "device": device,
        "link to a pipe": link_to_pipe,
        "link loop": link_loop,
        "read-only": read_only,
        "full disk": full_disk,
    }

FORMATS = (".csv", ".jsonl", ".json.gz", ".parquet", ".xlsx", ".txt", ".yaml", ".zip", ".html", ".db", ".safetensors")
ENDINGS = ("", *FORMATS, " x", "é")
"""What the name of something odd ends in: it must not be taken for what it says it is."""


def contents(root: Path) -> dict[str, tuple[int, int]]:
    """Return type and size of all that lies in a folder, links as links."""
    return {
        path.relative_to(root).as_posix(): (path.lstat().st_mode, path.lstat().st_size if path.is_file() else 0)
        for parent, folders, files in os.walk(root)
        for path in (Path(parent) / name for name in (*folders, *files))
    }


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Fail what waits for a pipe, or reads a device without end."""
    if not HAS_PIPES:
        yield
        return

    def fail(*_: object) -> None:
        raise KeyboardInterrupt("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No process is started, neither the next of a queue nor a server, and what is relative is in a folder of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("start_next", "wake"):
        monkeypatch.setattr(launch, name, lambda *_: None)
    monkeypatch.setattr(serve, "_serve", lambda *_: 0)
    for name in ("_warm", "_say_when_ready", "_start_demo"):
        monkeypatch.setattr(serve, name, lambda *_: None)


def wrong_with(bench: Bench, root: Path, name: tuple[str, ...], option: Any, kind: str, ending: str) -> str:
    """Try a path of a kind at an option; return what is wrong with how the command ended, nothing where all is well."""
    root.mkdir()
    with ODD[kind](root, ending) as path:
        before, arguments = contents(root), bench.arguments(name, option, path)
        with patience(120):
            result = CliRunner().invoke(main, arguments)
        after = contents(root)
    where = f"{' '.join(name)}, {label(option)}, {kind}{ending}"
    if name in RESUMED and kind == "full disk":
        after = {entry: after[entry] for entry in before}
    return "".join(f"{where}: {problem}\n" for problem in problems(result, option, before, after, kind))


def problems(result: Result, option: Any, before: dict[str, Any], after: dict[str, Any], kind: str) -> Iterator[str]:
    """Yield what is wrong: a trace, more than a sentence, a file that is gone, changed, or half made."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        yield f"raised {result.exception!r}"
    elif result.exit_code not in (0, 1, 2) or "Traceback" in result.stderr:
        yield f"ended with {result.exit_code}: {result.stderr[-600:]}"
    last = (result.stderr.strip().splitlines() or [""])[-1]
    if result.exit_code == 2 and not (last.startswith("Error: ") and 12 < len(last) < 700):
        yield f"says {last!r}"
    if "Errno" in last or "os error" in last:
        yield f"says what only a programmer reads: {last!r}"
    if lost := [entry for entry in before if after.get(entry) != before[entry] and not stat.S_ISDIR(before[entry][0])]:
        yield f"changed {lost}"
    if result.exit_code == 2 and (left := set(after) - set(before)):
        yield f"was refused and left {sorted(left)}"
    if isinstance(getattr(option, "type", None), OutFile) and kind != "folder" and result.exit_code != 2:
        yield f"wrote there: {result.exit_code}"


def label(option: Any) -> str:
    """Return the name of an option, an argument or a setting."""
    return option if isinstance(option, str) else str(option.name)


def sampled(name: tuple[str, ...], option: Any, kinds: list[str]) -> list[tuple[str, str]]:
    """Return the kinds that `make test` tries at an option: another one at each, and three where a file is written."""
    first = zlib.crc32(" ".join((*name, label(option))).encode())
    many = 3 if isinstance(getattr(option, "type", None), OutFile) else 1
    return [(kinds[(first + 3 * n) % len(kinds)], ENDINGS[(first + n) % len(ENDINGS)]) for n in range(many)]


def run(bench: Bench, *arguments: str) -> Result:
    """Run one command on the run."""
    return CliRunner().invoke(main, [*arguments, "--runs-dir", str(bench.runs)])


@needs_pipes
def test_a_file_is_written_through_a_link_and_over_a_file(bench: Bench, tmp_path: Path) -> None:
    target, link = tmp_path / "ranks.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    assert run(bench, "signals", RUN, "--signal", "rank", "--out", str(link)).exit_code == 0
    assert link.is_symlink()
    assert target.read_text().startswith("step,")


@needs_pipes
def test_a_refusal_names_what_a_link_leads_to(bench: Bench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "far")
    (tmp_path / "near").symlink_to(tmp_path / "far")
    result = run(bench, "signals", RUN, "--signal", "rank", "--out", str(tmp_path / "near"))
    assert result.exit_code == 2
    message = f"{tmp_path / 'near'}: is a link to {tmp_path / 'far'}, a pipe, which is not written over; give a file"
    assert f"--out {message}" in result.stderr


@needs_pipes
def test_python_writes_over_files_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is a pipe, which is not written over"):
        write_output(tmp_path / "pipe", b"text")
    with pytest.raises(ConfigError, match="exists and is a pipe"), staged(tmp_path / "pipe"):
        raise AssertionError("it was lent")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_dash_is_standard_output(bench: Bench) -> None:
    table = run(bench, "signals", RUN, "--signal", "rank")
    assert table.stdout.startswith("step,")
    assert run(bench, "signals", RUN, "--signal", "rank", "--out", "-").stdout == table.stdout
    page = run(bench, "report", RUN, "--out", "-")
    assert page.stdout.lower().startswith("<!doctype html>")
    assert page.stdout.rstrip().endswith("</html>")
    assert "open it in a browser" in page.stderr
    for command in (["report", RUN, "--json"], ["export", RUN]):
        result = run(bench, *command, "--out", "-")
        assert (result.exit_code, result.stdout) == (2, "")
    assert not Path("-").exists()


@needs_pipes
@pytest.mark.parametrize("ending", ["", ".zip"])
@pytest.mark.parametrize("form", ["peft", "merged"])
def test_an_export_that_fills_the_disk_leaves_nothing(form: str, ending: str, bench: Bench, tmp_path: Path) -> None:
    """Safetensors and tokenizers have errors of their own for a full disk."""
    with full_disk(tmp_path, ending) as out:
        result = run(bench, "export", RUN, "--format", form, "--out", str(out))
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith(f"Error: the export to {out} cannot be written (")
        assert "; free some space" in result.stderr
        assert not [path for path in out.parent.iterdir() if path.name not in ("ballast", "disk")]


def in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which `dynlora` is this one, from a folder."""
    ours = f"{shlex.quote(sys.executable)} -m dynlora"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(
        command.replace("dynlora", ours),
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_pipes
def test_an_output_that_takes_nothing_is_one_sentence_and_a_reader_that_leaves_none(tmp_path: Path) -> None:
    full = in_shell("dynlora models > /dev/full", tmp_path)
    assert (full.returncode, full.stderr) == (
        2,
        "Error: standard output: No space left on device; free some space, or give a path on another disk\n",
    )
    assert in_shell("dynlora models | true", tmp_path).stderr == ""


NAMES = list(dict.fromkeys(name for name, _ in PATHS))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", NAMES, ids=" ".join)
def test_a_path_that_cannot_be_used(name: tuple[str, ...], bench: Bench, kinds: list[str], tmp_path: Path) -> None:
    trials = [(option, *odd) for named, option in PATHS if named == name for odd in sampled(name, option, kinds)]
    wrong = [wrong_with(bench, tmp_path / f"{number}", name, *trial) for number, trial in enumerate(trials)]
    assert not any(wrong), "".join(wrong)


@pytest.mark.torture
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("name", "option"), PATHS, ids=[f"{' '.join(name)} {label(option)}" for name, option in PATHS])
def test_every_path_that_cannot_be_used(
    name: tuple[str, ...],
    option: Any,
    bench: Bench,
    kinds: list[str],
    tmp_path: Path,
    tally: Callable[[str, int, int], None],
) -> None:
    trials = list(product(kinds, ENDINGS))
    wrong = [wrong_with(bench, tmp_path / f"{number}", name, option, *trial) for number, trial in enumerate(trials)]
    tally("a path that cannot be used is an answer or a sentence", len(trials), wrong.count(""))
    assert not any(wrong), "".join(wrong)
