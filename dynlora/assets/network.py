"""Ask something that may never answer, and say in a few words why it did not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class UnavailableError(Exception):
    """One place did not have what was asked for; its text is the reason, to be put into an `AssetError`."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """Run `call` and give up after `seconds`, whatever it hangs in.

    A library's own time-outs do not cover name look-up, retries and redirects; a thread left behind does no harm, since
    it is a daemon and its result is dropped.

    Args:
        seconds: How long to wait.
        call: What to run; it must not hold locks or write files.

    Raises:
        UnavailableError: There was no answer in time.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # handed over to the waiting thread, which raises it
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="dynlora-lookup")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise UnavailableError(f"no answer within {seconds:.0f} s")
    return results[0]


def reason(error: BaseException) -> str:
    """The first line of an error, or its kind when it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
