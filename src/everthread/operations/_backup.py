"""The backup file of a repair: JSON Lines, one for each thread, with the records that the repair changes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from everthread.errors import ConfigurationError, LimitExceededError
from everthread.operations._targets import Change
from everthread.transfer.files import MAX_LINE

_BEGINNING = b'{"everthread":"repair",'
"""The beginning of a line, without spaces."""

T = TypeVar("T")


class Entry(msgspec.Struct, frozen=True, tag_field="everthread", tag="repair"):
    """A thread in a backup.

    Attributes:
        source: The kind of the store; empty for one of everthread.
        thread: The name of the thread in it.
        tenant: Its owner.
        changes: What the repair changes.
        before: The digest of the thread's records before the repair, where they have no names.
        after: The digest after it.
        count: The number of records after it.
    """

    source: str
    thread: str
    tenant: str
    changes: list[Change]
    before: str = ""
    after: str = ""
    count: int = 0


def write_backup(backup: Path, entry: Entry) -> None:
    """Append a thread to a backup. It is on disk when this returns; only the file's owner can read it.

    Raises:
        LimitExceededError: The changes are larger than an undo reads.
    """
    line = json.dumps(msgspec.to_builtins(entry)).encode() + b"\n"
    if len(line) > MAX_LINE:
        what = f"the changes take {len(line):,} bytes in the backup; at most {MAX_LINE:,} can be undone"
        raise LimitExceededError(what, len(line), MAX_LINE)
    descriptor = os.open(backup, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        if file.tell() and os.pread(descriptor, 1, file.tell() - 1) != b"\n":
            # An earlier repair stopped in the middle of a line.
            file.write(b"\n")
        file.write(line)
        file.flush()
        os.fsync(descriptor)


def read_backup(backup: Path) -> Iterator[Entry]:
    """Yield the threads that are complete. One that is cut off was not repaired any more, and is left out.

    Raises:
        ConfigurationError: The file cannot be read, or is not a backup.
    """
    try:
        with backup.open("rb") as file:
            while line := file.readline(MAX_LINE):
                entry = _decoded(line, Entry)
                if entry is not None:
                    yield entry
                elif _decoded(line, msgspec.Raw) is not None or not _is_beginning(line):
                    raise ValueError
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"This backup cannot be read ({type(error).__name__}).") from None


def _decoded(line: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _is_beginning(line: bytes) -> bool:
    """Return whether a line that was cut off may be a thread."""
    start = line.strip().replace(b" ", b"")[: len(_BEGINNING)]
    return _BEGINNING.startswith(start)


def changes_fit(changes: Sequence[Change], size: int) -> bool:
    """Return whether changes from a backup are in order and within a thread of this many records."""
    places = [change.at for change in changes]
    return places == sorted(places) and all(0 <= at <= size for at in places)
