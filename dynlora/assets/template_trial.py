"""A chat template that nobody looked at, tried in a process of its own: it may fill the memory, or never end.

Run as a file, it reads a template, and tells by its exit code whether that ends within the limits; errors are an end.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from contextlib import suppress

from jinja2 import ChainableUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_CHARACTERS, MOST_BYTES, MOST_SECONDS = 1_000_000, 2**30, 2
"""What a template may write of two short messages; the memory and the processor time that it may need."""

_WAIT_S = 120
"""How long the trial may take on a busy machine, or where processor time cannot be limited."""

_TOO_MUCH = 3
"""Exit code of a trial that went beyond its limits."""

_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
"""Marks of transformers' own, which change nothing of the text."""

_TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@functools.cache
def is_bounded(template: str) -> bool:
    """Say whether a chat template ends within the limits; it may still be wrong."""
    command = [sys.executable, "-P", __file__]
    with suppress(subprocess.TimeoutExpired):
        tried = subprocess.run(
            command, input=json.dumps(template).encode(), timeout=_WAIT_S, capture_output=True, check=False
        )
        return 0 <= tried.returncode != _TOO_MUCH
    return False


def _tried(template: str) -> int:
    """Return the exit code: whether a template writes or needs too much."""
    with suppress(ImportError, OSError, ValueError):  # not everywhere
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"], undefined=ChainableUndefined)
    environment.globals |= {"raise_exception": str, "strftime_now": str}
    try:
        made = environment.from_string(_GENERATION.sub("", template))
        is_long = len(made.render(messages=_TURNS, add_generation_prompt=True)) > MOST_CHARACTERS
    except MemoryError:
        is_long = True
    except Exception:  # transformers raises it too, and then it is told
        is_long = False
    return _TOO_MUCH if is_long else 0


if __name__ == "__main__":
    sys.exit(_tried(json.load(sys.stdin)))
