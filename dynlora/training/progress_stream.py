"""A stream that falls silent once nobody reads it: a closed terminal or pipe must not end a training run."""

from __future__ import annotations

from typing import Any, TextIO


class QuietStream:
    """Passes text on until that fails for the first time, and drops it from then on."""

    def __init__(self, stream: TextIO) -> None:
        """Wrap `stream`."""
        self._stream = stream
        self._is_open = True

    def write(self, text: str) -> int:
        """Write, or drop the text; return its length."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush, while somebody reads."""
        self._try("flush")

    def _try(self, method: str, *arguments: Any) -> None:
        if self._is_open:
            try:
                getattr(self._stream, method)(*arguments)
            except (OSError, ValueError):  # a broken pipe, or a stream that was closed
                self._is_open = False

    def __getattr__(self, name: str) -> Any:
        """Answer everything else as the stream does."""
        return getattr(self._stream, name)
