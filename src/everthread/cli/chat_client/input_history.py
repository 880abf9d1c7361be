"""The lines typed in earlier runs of the interactive client, for its arrow keys."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from everthread._extras import import_extra

if TYPE_CHECKING:
    from prompt_toolkit.history import History
else:
    History = import_extra("prompt_toolkit.history", "chat").History

MOST_LINES = 1000
MOST_BYTES = 1024 * 1024
"""A file beyond either limit is shortened to its newest half."""

_NO_LINKS: int = getattr(os, "O_NOFOLLOW", 0)


class InputHistory(History):
    """The lines of this run, and those of earlier runs from a file: one JSON string a line, for its owner alone.

    Args:
        path: The file; ``None`` stores nothing, as does a file that cannot be used.

    Attributes:
        is_keeping: Whether to add the next line: answers to questions are not worth it.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path
        self.is_keeping = True

    def load_history_strings(self) -> Iterable[str]:
        """Return the stored lines, newest first."""
        if self._path is None:
            return []
        lines, size = _read(self._path)
        if len(lines) > MOST_LINES or size > MOST_BYTES:
            lines = lines[-MOST_LINES // 2 :]
            self._path.unlink(missing_ok=True)
            for line in lines:
                self.store_string(line)
        return reversed(lines)

    def append_string(self, string: str) -> None:
        if self.is_keeping:
            super().append_string(string)

    def store_string(self, string: str) -> None:
        if self._path is None:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_LINKS
        try:
            with os.fdopen(os.open(self._path, flags, 0o600), "wb") as file:
                file.write(json.dumps(string).encode() + b"\n")
        except OSError:
            # A full disk or a read-only home must not end the conversation.
            return


def _read(path: Path) -> tuple[list[str], int]:
    """Return the newest lines of a file, and its size."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | _NO_LINKS), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - MOST_BYTES, 0))
            return [line for line in map(_decoded, file.read(MOST_BYTES).splitlines()) if line], size
    except OSError:
        return [], 0


def _decoded(line: bytes) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""
