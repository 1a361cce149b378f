"""What libraries of trackers log while a run is written, without the secrets of the addresses they were given."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from dynlora.addresses import hidden


@contextmanager
def without_secrets_logged(addresses: Sequence[str]) -> Generator[None]:
    """A `with` block in which no record of any logger holds a secret of these addresses, tracebacks included."""
    made, formatter = logging.getLogRecordFactory(), logging.Formatter()

    def record(*arguments: Any, **of: Any) -> logging.LogRecord:
        found = made(*arguments, **of)
        try:
            found.msg, found.args = hidden(found.getMessage(), *addresses), None
        except (TypeError, ValueError):  # a record whose arguments do not fit says so where it is written
            return found
        if found.exc_info:
            found.exc_text = hidden(formatter.formatException(found.exc_info), *addresses)
        return found

    logging.setLogRecordFactory(record)
    try:
        yield
    finally:
        logging.setLogRecordFactory(made)
