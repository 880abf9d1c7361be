"""Give the write-ahead log its length in advance.

With ``synchronous=full``, a commit that lengthens the log also commits the file system's own journal: on ext4 it takes
nearly twice as long. So after its first commits a writer appends zeros to the log. SQLite overwrites them with the
next commits, and a log that was cut or ends in zeros is valid at any moment: recovery reads it up to the last complete
commit (https://www.sqlite.org/fileformat2.html#the_write_ahead_log).

Only the holder of the write lock lengthens or truncates a log, so processes do not disturb each other.
"""

from __future__ import annotations

from everthread.engines.sqlite.files import OpenFiles

CHECKPOINT_PAGES = 4000
"""The number of pages in the log at which SQLite moves them into the database and begins the log anew."""

_PAGE, _FRAME_HEADER, _LOG_HEADER = 4096, 24, 32
_FULL_LENGTH = _LOG_HEADER + CHECKPOINT_PAGES * (_PAGE + _FRAME_HEADER)

STEPS = {16: _FULL_LENGTH // 4, 64: _FULL_LENGTH}
"""The length of the log in bytes by the number of commits. A program with few commits does not pay for it."""


class LogGrowth:
    """Lengthen the log of a writer.

    Args:
        files: The open files.
        is_synced: Each commit is flushed to the disk. The length does not matter otherwise.
    """

    def __init__(self, files: OpenFiles, *, is_synced: bool) -> None:
        self._files = files
        self._is_synced = is_synced
        self._commits = 0

    def grow(self) -> None:
        """Count a commit, and lengthen the log if it is time. The caller holds the write lock. Never fails."""
        self._commits += 1
        length = STEPS.get(self._commits)
        if length is not None and self._is_synced:
            self._files.lengthen_log(length)

    def begin_again(self) -> None:
        """Note that the log was truncated."""
        self._commits = 0
