"""Python's collector is told of imports in dynlora's own processes alone, and what is open at the end is not lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BEGIN = "import gc\nfrom dynlora.jobs import environment\nenvironment.begin()\n"


def output_of(program: str, *arguments: str) -> str:
    """Return what a program prints; it must end well."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_in_a_process_of_somebody_else_nothing_is_changed() -> None:
    program = (
        "import gc\nbefore = gc.get_threshold()\nimport dynlora.__main__\nfrom dynlora.jobs import environment\n"
        "environment.imported()\nprint(gc.get_threshold() == before, gc.get_freeze_count())\n"
        "import datasets\nprint(datasets.are_progress_bars_disabled())"
    )
    assert output_of(program).split() == ["True", "0", "False"]


def test_imports_are_left_alone_and_what_is_made_after_them_is_collected() -> None:
    program = BEGIN + (
        "print(gc.get_threshold()[0])\nenvironment.imported()\n"
        "print(gc.get_threshold()[0], gc.get_freeze_count() > 1000)\n"
        "import weakref\nclass Part: pass\npart = Part()\npart.itself = part\nseen = weakref.ref(part)\ndel part\n"
        "gc.collect()\nprint(seen())\nimport datasets\nprint(datasets.are_progress_bars_disabled())"
    )
    assert output_of(program).split() == ["100000", "700", "True", "None", "True"]


def test_what_is_open_at_the_end_is_written_and_later_handlers_run(tmp_path: Path) -> None:
    program = BEGIN + (
        "import atexit, sys, threading, time\nfile = open(sys.argv[1], 'w')\nfile.write('all of it')\n"
        "class Holder: pass\nholder = Holder()\nholder.file = open(sys.argv[2], 'w')\nholder.file.write('this too')\n"
        "atexit.register(print, 'handler')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()"
    )
    assert output_of(program, str(tmp_path / "a"), str(tmp_path / "b")).split() == ["thread", "handler"]
    assert (tmp_path / "a").read_text("utf-8") == "all of it"
    assert (tmp_path / "b").read_text("utf-8") == "this too"


def test_where_triton_is_loaded_its_bindings_find_nothing_left_at_the_end() -> None:
    program = "import atexit, gc, sys\natexit.register(lambda: print(gc.get_freeze_count() > 0))\n" + BEGIN
    program += "environment.imported()\n"
    assert output_of(program).split() == ["True"]
    assert output_of(f"{program}sys.modules['triton'] = sys\n").split() == ["False"]
